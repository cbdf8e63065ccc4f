"""Which sources something was made of: the commit where git knows, and a digest of them everywhere."""

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("csrc", "geokernels", "setup.py")
TREE = (*LIBRARY, "benchmarks", "scripts", "tests")
KINDS = {".py", ".h", ".cpp", ".cu", ".sh"}


def digest(*parts: str, root: Path = ROOT) -> str:
    """Of the names and contents of all source files under ``parts``."""
    read = hashlib.sha256()
    for part in parts:
        top = root / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.suffix in KINDS:
                contents = hashlib.sha256(path.read_bytes()).hexdigest()
                read.update(f"{path.relative_to(root)} {contents}\n".encode())
    return read.hexdigest()[:16]


def commit() -> str | None:
    """What git says, with a word where files differ from it; None where there is no git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    found = git("rev-parse", "HEAD")
    changed = found and git("status", "--porcelain", "-uno")
    return f"{found} with changes" if changed else found
