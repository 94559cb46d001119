"""The image of a cluster's nodes: what its Dockerfile copies, installs and runs as; built where there is a builder."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from cluster_file import cluster_file
from dockerfile import copies, instructions, path_in, seen_by_the_builder
from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGE = "REGISTRY/qa_ray:TAG"
BUILD = f"docker build --tag {IMAGE} . && docker push {IMAGE}"
RUNS = [instruction.text for instruction in instructions() if instruction.name == "RUN"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def values(name: str) -> list[str]:
    return [instruction.text for instruction in instructions() if instruction.name == name]


def test_both_kinds_of_cluster_name_the_image_that_the_pages_build() -> None:
    assert yaml.safe_load(cluster_file())["docker"]["image"] == IMAGE
    groups = yaml.safe_load((ROOT / "jobs" / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    specs = [groups["headGroupSpec"], *groups["workerGroupSpecs"]]
    assert {spec["template"]["spec"]["containers"][0]["image"] for spec in specs} == {IMAGE}
    for page in ("README.md", "docs/clusters.md"):
        assert BUILD in (ROOT / page).read_text()


def test_nodes_install_nothing() -> None:
    config = yaml.safe_load(cluster_file())
    assert config["setup_commands"] == config["head_setup_commands"] == []
    assert "pip" not in json.dumps(config)


def test_image_starts_from_a_python_that_is_supported_and_named_exactly() -> None:
    (base,) = values("FROM")
    named = re.fullmatch(r"python:3\.(\d+)-slim-\w+", base)
    assert named is not None
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert f"3.{named[1]}" in workflow["jobs"]["all"]["strategy"]["matrix"]["python"]


def test_nobody_in_it_is_root_and_the_launcher_finds_its_home() -> None:
    last = [instruction.name for instruction in instructions() if instruction.name in ("RUN", "COPY", "USER")][-1]
    assert (last, values("USER")) == ("USER", ["1000"])
    (made,) = [command for command in RUNS if "useradd" in command]
    user = made.split("&&")[0].split()
    assert user[user.index("--uid") + 1] == "1000"
    assert values("ENV") == [f"HOME=/home/{user[-1]}"]
    # Where cluster.yaml mounts files, which Docker would make as root.
    mounted = {str(Path(target).parent) for target in yaml.safe_load(cluster_file())["file_mounts"]}
    assert {place.replace("~", f"/home/{user[-1]}") for place in mounted} <= set(made.split())
    (volume,) = [option for option in yaml.safe_load(cluster_file())["docker"]["run_options"] if "volume" in option]
    assert volume.partition(":")[2].startswith(f"/home/{user[-1]}/qa_ray/")


def test_programs_of_rays_launcher_and_kuberays_probes_are_installed() -> None:
    (packages,) = [command for command in RUNS if "apt-get install" in command]
    assert {"rsync", "openssh-client", "wget", "g++"} <= set(packages.split())


def test_only_what_is_copied_reaches_the_builder() -> None:
    sources = {source for group, _ in copies() for source in group}
    assert all((ROOT / source).exists() for source in sources)
    assert sources == seen_by_the_builder()
    assert not [source for source in sources if "env" in source]


@pytest.mark.parametrize("command", RUNS)
def test_command_is_one_that_the_shell_reads(command: str) -> None:
    subprocess.run(["sh", "-n", "-c", command], check=True)
    assert "||" not in command
    assert ";" not in command, "a failure before it would be passed over"


def test_every_package_that_is_needed_has_a_version_that_fits() -> None:
    (command,) = [command for command in RUNS if "constraint" in command]
    assert "--constraint constraints.txt '.[sample]' boto3" in command
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["sample"], "boto3"]
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    for requirement in map(Requirement, needed):
        pinned = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned, prereleases=True), requirement


def run_in(root: Path, command: str, place: str, **variables: str) -> None:
    """Run a command of the Dockerfile in a folder that stands for the image's root, with these tests' own Python."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(root), "PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}
    done = subprocess.run(
        ["sh", "-e", "-c", command], cwd=path_in(root, place, "."), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def follow(root: Path, *, first: dict[str, str], then: dict[str, str]) -> None:
    """Do what the Dockerfile does with the project's files, in its order.

    Args:
        root: stands for the image's.
        first: variables for the installation of what the code needs.
        then: variables for that of the code.
    """
    place = "/"
    for name, text in instructions():
        if name == "WORKDIR":
            place = text
            path_in(root, place, ".").mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = text.split()
            for source in sources:
                copy_as_docker(ROOT / source, path_in(root, place, target))
        elif name == "RUN" and "pip" in text:
            run_in(root, text, place, **(then if "--no-deps" in text else first))


def copy_as_docker(source: Path, target: Path) -> None:
    """COPY puts a file into a folder, and a folder's content into a folder."""
    if source.is_file():
        shutil.copy(source, target)
    else:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


def test_its_steps_install_the_code_in_a_clean_root(tmp_path: Path) -> None:
    if any(version(name).partition("+")[0] != PINS[name] for name in ("torch", "transformers", "ray", "boto3")):
        pytest.skip("what is installed here is not what constraints.txt says")
    # The needed packages are found here, at the versions of constraints.txt; nothing is fetched.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    follow(tmp_path, first={**offline, "PIP_DRY_RUN": "1"}, then={**offline, "PIP_TARGET": str(tmp_path / "s")})
    show = (
        "import qa_ray, sys; from qa_ray.cli.console import main; print(qa_ray.__file__); sys.exit(main(['--version']))"
    )
    environment = {"PYTHONPATH": str(tmp_path / "s"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", show], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{tmp_path}/s/qa_ray/__init__.py", f"qa_ray {PROJECT['version']}"]
    held = {str(path.relative_to(tmp_path / "s")) for path in (tmp_path / "s" / "qa_ray").rglob("*") if path.is_file()}
    files = [path for path in (ROOT / "qa_ray").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(ROOT)) for path in files} <= held


@pytest.mark.long
def test_image_is_built_and_holds_what_nodes_need() -> None:
    builder = next((name for name in ("docker", "podman") if shutil.which(name) and answers(name)), None)
    if builder is None:
        pytest.skip("neither docker nor podman answers")
    subprocess.run([builder, "build", "--tag", "qa_ray:test", "."], cwd=ROOT, check=True)
    script = "id -u; qa-ray --version; ray --version; command -v rsync ssh wget bash g++; touch ~/qa_ray/spill"
    done = subprocess.run(
        [builder, "run", "--rm", "qa_ray:test", "bash", "--login", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[:3] == ["1000", f"qa_ray {PROJECT['version']}", f"ray, version {PINS['ray']}"]
    assert [Path(line).name for line in done.stdout.splitlines()[3:]] == ["rsync", "ssh", "wget", "bash", "g++"]


def answers(builder: str) -> bool:
    return subprocess.run([builder, "info"], capture_output=True, check=False).returncode == 0
