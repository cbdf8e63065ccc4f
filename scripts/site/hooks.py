"""Hooks of MkDocs: files that pages link to, formulas as MathML, and a check of the reference.

Pages are written for whoever reads them in the repository, so they link to ``../examples/...`` and the like.
On the site, such a file becomes a page of its own under ``repository/``. Formulas are typeset when the site
is built: browsers draw MathML themselves, so no script is needed and nothing is fetched.
"""

import html
import logging
import posixpath
import re
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|<)([^)\s#]+)(#[^)\s]*)?(?=\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[\(\[](.*?)\\[\)\]]</\1>', re.DOTALL)
# unlike GitHub, the site wants a blank line above a list, and four spaces before what belongs to an item
UNSET = re.compile(r"^(?:[-*] |\d+\. (?=[A-Z<])|\|[ :]*-).*$", re.MULTILINE)
VERBATIM = re.compile(r"<pre\b.*?</pre>", re.DOTALL)
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/NOTES.md")  # chapters of the site
LANGUAGES = {".py": "python", ".sh": "bash", ".json": "json", ".yml": "yaml"}
log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config) -> Files:
    """Add the files of the repository that pages name, and those that these name."""
    waiting = [name for name in ALWAYS if (ROOT / name).exists()]
    for file in files.documentation_pages():
        waiting += outside(Path(file.abs_src_path).read_text(encoding="utf-8"), f"docs/{file.src_uri}")
    added = set()
    while waiting:
        name = waiting.pop()
        if name in added or not (ROOT / name).is_file():
            continue  # what does not exist stays a broken link, which MkDocs reports
        added.add(name)
        files.append(as_site_file(name, config))
        if name.endswith(".md"):
            waiting += outside((ROOT / name).read_text(encoding="utf-8"), name)
    return files


def outside(markdown: str, name: str) -> list[str]:
    """Paths in the repository, outside ``docs/``, that the page ``name`` links to."""
    targets = (in_repository(name, match[1]) for match in LINK.finditer(markdown))
    return [target for target in targets if not target.startswith(("docs/", ".."))]


def in_repository(name: str, link: str) -> str:
    """Path in the repository of ``link`` as written in the file ``name``."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def site_path(path: str) -> str:
    """Where on the site a path in the repository is, in MkDocs' ``src_uri``."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    suffix = posixpath.splitext(path)[1]
    return f"repository/{path}" + (".md" if suffix in LANGUAGES else "")


def as_site_file(name: str, config) -> File:
    """A file of the repository as one of the site: sources as pages that show them."""
    language = LANGUAGES.get(posixpath.splitext(name)[1])
    if language is None:
        return File.generated(config, site_path(name), abs_src_path=str(ROOT / name))
    text = (ROOT / name).read_text(encoding="utf-8").rstrip()
    return File.generated(config, site_path(name), content=f"# {name}\n\n~~~~{language}\n{text}\n~~~~\n")


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    name = here.removeprefix("repository/") if here.startswith("repository/") else f"docs/{here}"

    def moved(match: re.Match) -> str:
        target = site_path(in_repository(name, match[1]))
        return posixpath.relpath(target, posixpath.dirname(here) or ".") + (match[2] or "")

    parts = re.split(r"(^(?:```|~~~~).*?^(?:```|~~~~)$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith(("```", "~~~~")) else LINK.sub(moved, part) for part in parts)


def on_page_content(content: str, page, config, files) -> str:
    """Typeset formulas, and warn of lists and tables that were taken for text."""
    for line in UNSET.findall(VERBATIM.sub("", content)):
        log.warning("%s: a list or table that needs a blank line above: %s", page.file.src_uri, line[:60])
    return FORMULA.sub(typeset, content)


def typeset(match: re.Match) -> str:
    """MathML of one formula."""
    formula = html.unescape(match[2]).strip()
    mathml = convert(formula, display="block" if match[1] == "div" else "inline")
    if re.search(r">\\\w", mathml):
        log.warning("a formula has a command that is not known: %s", formula)
    return f'<{match[1]} class="formula">{mathml}</{match[1]}>'


def on_post_build(config) -> None:
    """Warn, which fails the build, of public names that no page of the reference has."""
    pages = "".join(p.read_text(encoding="utf-8") for p in Path(config.site_dir, "api").glob("*.html"))
    package = griffe.load("geokernels", search_paths=[ROOT])
    names: dict[str, list[str]] = {}  # by where it is defined; a page may show it under any of them
    for module in public_modules():
        for name in public_names(package, module):
            names.setdefault(home(package, module, name), []).append(f"{module}.{name}")
    for defined, public in names.items():
        if not any(f'id="{anchor}"' in pages for anchor in (defined, *public)):
            log.warning("%s is public and stands on no page of the reference", public[0])


def public_modules() -> list[str]:
    """The modules that users import from, as the pages in ``docs/api`` say they have them."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/api").glob("*.md")))
    return re.findall(r"^<!-- module: ([\w.]+) -->$", pages, re.MULTILINE)


def public_names(package: griffe.Module, module: str) -> list[str]:
    """``__all__`` of a module; without one, the functions and classes that it defines and does not hide."""
    held = within(package, module)
    if held.exports is not None:
        return [str(name) for name in held.exports]
    defined = {name: m for name, m in held.members.items() if not m.is_alias and not name.startswith("_")}
    return [name for name, member in defined.items() if member.is_function or member.is_class]


def home(package: griffe.Module, module: str, name: str) -> str:
    """Full name of a public name where it is defined."""
    member = within(package, module)[name]
    if member.is_module:  # a function named as the file it stands in
        member = member[name]
    return member.canonical_path


def within(package: griffe.Module, module: str) -> griffe.Module:
    """A module of the package, by its full name."""
    return package[module.partition(".")[2]] if "." in module else package
