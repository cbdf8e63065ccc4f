"""The C++ and CUDA sources: every file that a comment cites exists, every pattern of a build matches."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())
IN_SOURCES = re.compile(r"(?<![\w/.])(?:core|cpu|cuda|host)/\w+\.(?:h|cpp|cu)\b")
IN_PROJECT = re.compile(r"(?<![\w/.])(?:geokernels|tests|scripts|benchmarks|docs|csrc)/[\w/]+\.\w+\b")
# what each build reads its files by
PATTERNS = {
    "setup.py": r'sources\("([^"]+)"\)',
    "CMakeLists.txt": r"(csrc/[\w*/]*\*\.\w+)",
    "Makefile": r"(csrc/[\w*/]*\*\.\w+)",
}


def patterns(build: str) -> list[str]:
    found = re.findall(PATTERNS[build], (ROOT / build).read_text())
    assert found, f"{build} names no sources"
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_cited_file_exists(path):
    text = path.read_text()
    missing = [name for name in IN_SOURCES.findall(text) if not (ROOT / "csrc" / name).exists()]
    missing += [name for name in IN_PROJECT.findall(text) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("build", PATTERNS)
def test_every_pattern_matches(build):
    assert [pattern for pattern in patterns(build) if not any(ROOT.glob(pattern))] == []


def test_make_reads_every_source():
    # what `make lint` formats, and what an environment is built again for
    matched = {path for pattern in patterns("Makefile") for path in ROOT.glob(pattern)}
    assert matched == set(SOURCES)
