"""Files that a hosting site reads: workflow, forms and citation are whole, and agree with the package."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted(p for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: str | Path) -> dict:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_something(path):
    form = read(path)
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "body"}
    assert form["name"]
    assert form["description"]
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in asked]
    assert len(names) == len(set(names))
    assert all(part["attributes"]["label"] for part in asked)
    assert any(part.get("validations", {}).get("required") for part in asked)
    assert {part["type"] for part in asked} <= {"textarea", "input", "dropdown", "checkboxes"}


def test_there_are_forms_for_bugs_features_and_questions():
    assert [path.stem for path in FORMS] == ["bug", "feature", "question"]
    doctor = next(part for part in read(FORMS[0])["body"] if part["id"] == "doctor")
    assert "geokernels doctor" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"]


def test_the_workflow_runs_targets_that_the_makefile_has():
    workflow = read(".github/workflows/ci.yml")
    assert {"push", "pull_request"} <= set(workflow[True])  # YAML 1.1 reads the key "on" as true
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    asked = set(re.findall(r"make ([\w-]+)", " ".join(step.get("run", "") for step in steps)))
    assert asked >= {"lint", "test", "docs", "wheel"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert asked <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    cached = [
        step["with"]["cache"] for step in steps if step.get("uses", "").startswith("actions/setup-python")
    ]
    assert cached == ["pip"] * len(workflow["jobs"])


def test_the_workflow_covers_the_pythons_that_are_said_to_be_supported():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    matrix = jobs["operators"]["strategy"]["matrix"]["python"]
    versions = {"3.11", *matrix}
    assert PROJECT["requires-python"] == f">={min(versions)}"
    assert versions == {"3.11", "3.12", "3.13"}
    folders = re.findall(r"tests/\w+", jobs["operators"]["steps"][-1]["run"])
    assert folders
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_the_citation_is_that_of_this_version():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "The geokernels developers"}]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    for paper in citation["references"]:
        assert {"type", "title", "authors"} <= set(paper)


def test_no_address_is_invented():
    others = r"https://(download\.pytorch\.org/whl|developer\.download\.nvidia\.com/compute/cuda/repos)/"
    for path in [ROOT / "CITATION.cff", *ROOT.glob(".github/**/*.*"), ROOT / "mkdocs.yml"]:
        assert not re.search(r"https?://", re.sub(others, "", path.read_text(encoding="utf-8"))), path
