"""Every command of benchmarks and trainings that is written down runs, and has the options it is given."""

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"python -m ((?:benchmarks|training)[\w.]*\w)((?:\\\n|[^\n`])*)")
OPTION = re.compile(r"(?<!\S)\[?(--[a-z][a-z-]*)")
NAMED = re.compile(r"(?<![\w/])((?:benchmarks|training)(?:\.\w+)+)")
FILES = ("gif", "html", "json", "md", "png", "yml")  # endings of files of those names
FOLDERS = "benchmarks|csrc|docs|examples|geokernels|integrations|scripts|tests|training"
PATH = re.compile(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./*<>-]*\w\*?)")
OURS = ("benchmarks/", "training/", "docs/bench")
# the changelog tells of what was; these files have patterns, and commands that are wrong
LEFT_OUT = ("CHANGELOG.md", "tests/benchmarks/test_commands.py", "tests/benchmarks/test_open.py")


def texts() -> dict[str, str]:
    """Documents, and sources with their docstrings, by name."""
    kinds = ("*.md", "*.py", "*.sh", "Makefile", "*.toml", "*.yml")
    done = subprocess.run(["git", "ls-files", *kinds], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = {name: ROOT / name for name in done.stdout.split() if name not in LEFT_OUT}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.exists()}


TEXTS = texts()
COMMANDS = sorted({(match[1], match[2]) for text in TEXTS.values() for match in COMMAND.finditer(text)})
MODULES = sorted({module for module, _ in COMMANDS})
if not TEXTS:
    pytest.skip("what is written down is found in a clone alone", allow_module_level=True)


@pytest.mark.filterwarnings("default", "ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", MODULES)
def test_a_command_that_is_written_down_says_what_it_does(module, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "usage" in said.lower()
    written = [arguments for name, arguments in COMMANDS if name == module]
    unknown = [(words, option) for words in written for option in OPTION.findall(words) if option not in said]
    assert unknown == []


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        if found is not None:
            break
    if count == len(parts):
        return True
    return count > 1 and hasattr(importlib.import_module(".".join(parts[:count])), parts[count])


def test_every_module_that_is_named_is_there():
    # elsewhere "training" is what a variable is called
    prose = {name: text for name, text in TEXTS.items() if name.endswith(".md") or name.startswith(OURS[0])}
    named = {(name, match[1]) for name, text in prose.items() for match in NAMED.finditer(text)}
    modules = {(name, module) for name, module in named if module.split(".")[1] not in FILES}
    assert [(name, module) for name, module in sorted(modules) if not exists(module)] == []


def test_every_file_that_benchmarks_and_trainings_name_is_there():
    ours = {name: text for name, text in TEXTS.items() if name.startswith(OURS)}
    named = {(name, match[1]) for name, text in ours.items() for match in PATH.finditer(text)}
    there = {(name, path) for name, path in named if "<" in path or list(ROOT.glob(path))}
    assert sorted(named - there) == []
