"""The same versions and the same code everywhere."""

import dataclasses
import platform
from importlib.metadata import version

from qa_ray.doctor.installation import Installation, installed, same_code, same_versions
from qa_ray.doctor.verdict import Status


def test_this_process_tells_its_versions_and_files() -> None:
    found = installed()
    assert found.versions["python"] == platform.python_version()
    assert found.versions["torch"] == version("torch")
    assert {"model/head.py", "doctor/installation.py", "data/windows.py"} <= set(found.files)


def test_equal_installations_pass() -> None:
    found = {name: installed() for name in ("a", "b")}
    assert same_versions(found).status is same_code(found).status is Status.PASSED


def changed(**versions: str) -> Installation:
    own = installed()
    return dataclasses.replace(own, versions=own.versions | versions)


def test_version_that_differs_is_told_with_its_nodes() -> None:
    verdict = same_versions({"a": installed(), "b": installed(), "odd": changed(torch="1.0")})
    assert verdict.status is Status.FAILED
    assert verdict.seen == f"torch is {version('torch')} on a, b, 1.0 on odd"
    assert "install the same versions" in verdict.cure


def test_package_that_is_missing_on_a_node_is_told() -> None:
    odd = Installation({name: one for name, one in installed().versions.items() if name != "numpy"}, {})
    assert "none on odd" in same_versions({"a": installed(), "b": installed(), "odd": odd}).seen


def test_file_that_differs_or_is_missing_is_named_with_its_node() -> None:
    own = installed()
    edited = dataclasses.replace(own, files=own.files | {"model/head.py": "0"})
    older = dataclasses.replace(own, files={name: one for name, one in own.files.items() if name != "cli.py"})
    verdict = same_code({"a": own, "b": own, "edited": edited, "older": older})
    assert verdict.status is Status.FAILED
    assert verdict.seen == "qa_ray/cli.py, model/head.py differ on edited, older"
