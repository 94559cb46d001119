"""The same versions and code everywhere, and what a node computes with."""

import platform
from importlib.metadata import version

import pytest

from qa_ray.config.policies import Precision
from qa_ray.doctor.machine import Devices, code, devices, installed, same_code, same_devices, same_versions
from qa_ray.doctor.verdict import Status
from qa_ray.errors import ConfigError

A100, T4 = ("A100", 40 * 10**9), ("T4", 16 * 10**9)


def test_equal_versions_pass_and_are_those_of_this_process() -> None:
    verdict = same_versions({name: installed() for name in ("a", "b")})
    assert verdict.status is Status.PASSED
    assert f"python {platform.python_version()}, torch {version('torch')}" in verdict.seen


def test_version_that_differs_or_is_missing_is_told_with_its_nodes() -> None:
    own = installed()
    odd = {name: one for name, one in own.items() if name != "numpy"} | {"torch": "1.0"}
    verdict = same_versions({"a": own, "b": own, "odd": odd})
    assert verdict.status is Status.FAILED
    assert verdict.seen == (
        f"torch is {version('torch')} on a, b; 1.0 on odd; numpy is {version('numpy')} on a, b; none on odd"
    )
    assert "install the same versions" in verdict.cure


def test_equal_code_passes_and_has_every_file() -> None:
    assert {"model/loading.py", "doctor/machine.py", "cli/console.py"} <= code().keys()
    assert same_code({name: code() for name in ("a", "b")}).status is Status.PASSED


def test_file_that_differs_or_is_missing_is_named_with_its_node() -> None:
    own = code()
    older = {name: digest for name, digest in own.items() if name != "cli/console.py"}
    verdict = same_code({"a": own, "b": own, "edited": own | {"doctor/machine.py": "0"}, "older": older})
    assert verdict.status is Status.FAILED
    assert verdict.seen == "qa_ray/cli/console.py, doctor/machine.py differ on edited, older"


def test_cpu_computes_in_fp32_and_not_in_fp16() -> None:
    assert devices(Precision.FP32, use_gpu=False).precision == "fp32"
    with pytest.raises(ConfigError, match=r"train\.precision=fp16 needs a GPU: use bf16 or fp32"):
        devices(Precision.FP16, use_gpu=False)


def with_gpus(*gpus: tuple[str, int], precision: str = "bf16", emulated: bool = False) -> Devices:
    return Devices(gpus, precision, emulated)


@pytest.mark.parametrize(
    ("found", "counted", "status", "words"),
    [
        ({"a": with_gpus(A100), "b": with_gpus(A100)}, (1, 1), Status.PASSED, "2 x A100; train.precision=auto is bf16"),
        ({"a": with_gpus(A100, T4), "b": with_gpus(T4)}, (2, 1), Status.PASSED, "1 x A100, 2 x T4; "),
        ({"a": with_gpus(A100), "b": with_gpus(precision="")}, (1, 0), Status.PASSED, "1 x A100; "),
        ({"a": with_gpus(A100), "b": with_gpus(T4)}, (1, 0), Status.PASSED, "1 x A100; "),
        ({"a": with_gpus(), "b": with_gpus()}, (0, 0), Status.PASSED, "no GPU; train.precision=auto is bf16"),
        ({"a": with_gpus(precision=""), "b": with_gpus(precision="")}, (0, 0), Status.SKIPPED, "no node has a GPU"),
        ({"a": with_gpus(A100), "b": with_gpus()}, (1, 1), Status.FAILED, "b: Ray counts 1 GPUs, torch sees 0"),
        ({"a": with_gpus(A100), "b": with_gpus()}, (0, 0), Status.WARNING, "a: Ray counts 0 GPUs, torch sees 1"),
        (
            {"a": with_gpus(A100), "b": with_gpus(T4, precision="fp16")},
            (1, 1),
            Status.FAILED,
            "means bf16 on a; fp16 on b",
        ),
        ({"a": with_gpus(A100, T4, precision="bf16 and fp16")}, (2,), Status.FAILED, "means bf16 and fp16 on a"),
        ({"a": with_gpus(), "b": with_gpus(emulated=True)}, (0, 0), Status.WARNING, "b: bf16 is emulated there"),
    ],
    ids=[
        "alike",
        "of two kinds",
        "head without",
        "head that gives none",
        "none",
        "none where workers need one",
        "torch sees none",
        "not given to Ray",
        "two formats",
        "two formats on a node",
        "emulated",
    ],
)
def test_devices_are_compared_with_ray_and_each_other(
    found: dict[str, Devices], counted: tuple[int, ...], status: Status, words: str
) -> None:
    verdict = same_devices(found, dict(zip(found, counted, strict=True)), Precision.AUTO)
    assert verdict.status is status
    assert words in verdict.seen
    assert bool(verdict.cure) == (status in (Status.FAILED, Status.WARNING))
