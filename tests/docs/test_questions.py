"""Pages print what they show, each in a Python of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = sorted(page for page in (ROOT / "docs/questions").glob("*.md") if page.name != "index.md")
PAGES = [*QUESTIONS, ROOT / "docs/index.md", ROOT / "docs/world.md"]
RUN = ROOT / "tests/docs/pages.py"
SLOW = {"resume", "prompt-interpolation"}  # they run commands that load models
pytestmark = pytest.mark.cpu


def run(page: Path) -> subprocess.CompletedProcess:
    # Triton's interpreter, which the tests of its kernels ask for, is nothing that a reader has on
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(RUN), str(page)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOW else []) for p in PAGES],
)
def test_a_page_prints_what_it_shows(page):
    if page.stem == "gpu" and torch.cuda.is_available():
        pytest.skip("the page shows a machine without a GPU")
    done = run(page)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page, fault",
    [
        ("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", "and prints\n2"),
        ("```python\nprint(1)\n```\n", "and prints\n1"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "UserWarning: old"),
        ("```console\n$ echo 2\n3\n```\n", "and prints\n2"),
        ("```console\n$ false\n```\n", "RuntimeError: false"),
    ],
)
def test_a_page_that_shows_something_else_is_a_fault(page, fault, tmp_path):
    path = tmp_path / "page.md"
    path.write_text(page)
    done = run(path)
    assert done.returncode == 1
    assert fault in done.stderr


def test_questions_run_something_and_are_listed():
    listed = (ROOT / "docs/questions/index.md").read_text(encoding="utf-8")
    assert len(QUESTIONS) >= 10
    for page in QUESTIONS:
        text = page.read_text(encoding="utf-8")
        assert "```python" in text or "```console" in text, page.name
        assert f"[{text.splitlines()[0].removeprefix('# ')}]({page.name})" in listed, page.name
