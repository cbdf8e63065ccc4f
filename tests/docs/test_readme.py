"""The front page is short, and what it shows is what happens."""

import contextlib
import importlib
import io
import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_read_in_one_go():
    assert len(TEXT.splitlines()) <= 150


def test_its_code_prints_what_it_shows():
    code, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.S).groups()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, str(README), "exec"), {})
    assert said.getvalue() == printed


def test_the_replacements_of_other_libraries_can_be_imported():
    lines = re.findall(r"^\+from (\S+) import (\w+)", TEXT, re.M)
    assert len(lines) == 3
    for module, name in lines:
        if module == "geokernels.compat":
            importlib.import_module(f"{module}.{name}")
        else:
            assert hasattr(importlib.import_module(module), name)
