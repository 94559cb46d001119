"""Files about the project that say the same thing twice say the same."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_every_room_has_its_place_among_the_layers():
    contract = next(one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    named = {name for layer in contract["layers"] for name in layer.split(" | ")}
    rooms = {f"qa_ray.{path.stem}" for path in (ROOT / "qa_ray").iterdir() if (path / "__init__.py").is_file()}
    modules = {f"qa_ray.{path.stem}" for path in (ROOT / "qa_ray").glob("*.py") if path.stem != "__init__"}
    assert named == {"jobs"} | rooms | modules


def test_guide_for_contributors_tells_of_every_room():
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    rooms = {path.parent.name for path in (ROOT / "qa_ray").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"`(\w+)`", table))


def test_hooks_before_a_commit_are_those_of_make_check():
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old", ".venv/installed", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (repo,) = loaded(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repo["hooks"]] == shown.stdout.splitlines()


def test_citation_has_the_projects_name_version_and_licence():
    citation, project = loaded("CITATION.cff"), PROJECT["project"]
    assert [citation[key] for key in ("title", "version", "license")] == [
        project[key] for key in ("name", "version", "license")
    ]
    assert citation["abstract"] == project["description"]


def test_lowest_versions_are_tried_on_the_lowest_python():
    jobs = loaded(".github/workflows/ci.yml")["jobs"]
    (lowest,) = (step["with"]["python-version"] for step in jobs["lowest"]["steps"] if "cache" in step.get("with", {}))
    assert PROJECT["project"]["requires-python"] == f">={lowest}"
    assert lowest == jobs["all"]["strategy"]["matrix"]["python"][0]
