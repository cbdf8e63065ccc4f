"""Links in the documentation lead to files and headings that exist, and files that pages name do too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("integrations/*/*.md"),
        ROOT / "benchmarks/NOTES.md",
    ]
)
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)#?([^)\s]*)\)")
NAMED = re.compile(
    r"(?<![\w/.-])((?:geokernels|pipelines|losses|models|media|report|ops|metrics|world|compat|cli|csrc|tests"
    r"|benchmarks|scripts|examples|integrations|training|docs)/[\w./-]*\.(?:py|h|cpp|cu|cuh|sh|md|json|csv|html|png))\b"
)
MODULE = re.compile(r"python -m ((?:benchmarks|training)[\w.]+)")


def without_code(text: str) -> str:
    return re.sub(r"^(```|~~~~).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Names of headings as GitHub makes them, and as mkdocs.yml has the site make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def faults(page: Path) -> list[str]:
    bad = []
    for target, anchor in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if target.startswith("../../actions/"):
            continue  # a page of the hosting site, which has the repository two levels below
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            bad.append(f"{target}: no such file")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            bad.append(f"{target}#{anchor}: no such heading")
    return bad


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert not faults(page)


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading\n\n[a](#a-heading) [b](#another) [c](page.md#a-heading) [d](gone.md)\n")
    assert faults(page) == ["#another: no such heading", "gone.md: no such file"]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_files_and_modules_that_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    named = NAMED.findall(text) + [f"{module.replace('.', '/')}.py" for module in MODULE.findall(text)]
    roots = (ROOT, ROOT / "geokernels", ROOT / "docs")
    assert not [name for name in named if not any((root / name).exists() for root in roots)]
