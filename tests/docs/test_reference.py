"""Every public name stands on a page of the reference, and its docstring says what a caller has to know."""

import dataclasses
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import geokernels

ROOT = Path(__file__).resolve().parents[2]
API = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/api").glob("*.md")))
MODULES = re.findall(r"^<!-- module: ([\w.]+) -->$", API, re.MULTILINE)
# read by those who change the package, or by the command line alone
PRIVATE = {"cli", "kernels", "ops", "reference", "report", "runs", "testing"}
DIFFERENTIABLE = ("geokernels.ops", "geokernels.losses")


def names_of(module: str) -> list[str]:
    held = importlib.import_module(module)
    defined = [n for n, v in vars(held).items() if getattr(v, "__module__", "") == module and n[0] != "_"]
    return list(getattr(held, "__all__", None) or defined)


def value_of(name: str):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


PUBLIC = [f"{module}.{name}" for module in MODULES for name in names_of(module)]
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(value_of(name))]
CLASSES = [name for name in PUBLIC if inspect.isclass(value_of(name))]


def has(text: str, section: str) -> bool:
    return re.search(rf"^{section}:$", text, re.MULTILINE) is not None


def test_all_packages_that_export_names_have_a_page():
    packages = {path.parent.name for path in ROOT.glob("geokernels/*/__init__.py")}
    exporting = {name for name in packages - PRIVATE if names_of(f"geokernels.{name}")}
    assert {f"geokernels.{name}" for name in exporting} <= set(MODULES)
    assert set(geokernels.__all__) <= set(names_of("geokernels"))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_stands_on_a_page(name):
    module, _, last = name.rpartition(".")
    pages = set(re.findall(r"^::: ([\w.]+)$", API, re.MULTILINE))
    same = {
        f"{m}.{last}" for m in MODULES if last in names_of(m) and value_of(f"{m}.{last}") is value_of(name)
    }
    assert pages & {module, f"{module}.{last}.{last}", *same}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_refuses(name):
    function = value_of(name)
    text, source = inspect.getdoc(function) or "", inspect.getsource(function)
    assert text.splitlines()[0].endswith((".", "?")), "a sentence comes first"
    signature = inspect.signature(function)
    named = all(f"``{p}``" in text for p in signature.parameters)
    if signature.parameters and not named and not re.search(r"\b[Aa]rguments\b|The rest is as for", text):
        assert has(text, "Args")
    if signature.return_annotation not in (None, "None") and not named and "those of" not in text:
        assert has(text, "Returns")
    if re.search(r"^\s+(raise|require_\w+\()", source, re.MULTILINE):
        assert has(text, "Raises")
    if function.__module__.startswith(DIFFERENTIABLE):
        assert has(text, "Gradients") or re.search("no gradient|gradients are those", text.lower())


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_is_and_holds(name):
    held = value_of(name)
    text = held.__doc__ or ""
    assert text
    assert not text.startswith(f"{held.__name__}("), "that is the one dataclasses make up"
    text = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in held.__mro__ if base is not object)
    fields = [field.name for field in dataclasses.fields(held)] if dataclasses.is_dataclass(held) else []
    fields += getattr(held, "_fields", ())
    listed = re.findall(r"^ {4}(\w+(?:, \w+)*):", text, re.MULTILINE)
    listed = {field for line in listed for field in line.split(", ")}
    missing = [
        field for field in fields if field not in listed and f"``{field}``" not in text and field[0] != "_"
    ]
    assert not missing


@pytest.mark.parametrize("name", FUNCTIONS + CLASSES)
def test_examples_in_docstrings_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = value_of(name)
    module = importlib.import_module(held.__module__)
    examples = doctest.DocTestFinder(recurse=False).find(held, name, module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for example in examples:
        said = []
        runner.run(example, out=said.append)
        assert not runner.failures, "".join(said)
