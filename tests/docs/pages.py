"""Run the code of a page and compare what it prints with what the page shows; with --fill, write it there.

    python tests/docs/pages.py docs/questions/nan.md [--fill]

Blocks are run in order, with warnings as errors. Python is run, and a block of ``text`` right below
shows what it prints. One of ``console`` holds lines that begin with ``$``, which a shell runs, and below
each what it prints. ``...`` in what is shown stands for anything, as in doctest; all else must agree,
but for white space.
"""

import argparse
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

BLOCK = re.compile(r"^```(python|text|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def results(text: str):
    """What is shown, what is printed and the code, of every block of a page, run one after the other."""
    blocks = BLOCK.findall(text)
    names = as_module()
    for (kind, code), (below, shown) in zip(blocks, [*blocks[1:], ("", "")]):
        if kind == "python":
            yield (shown if below == "text" else ""), printed_by(code, names), code
        elif kind == "console":
            for command, output in COMMAND.findall(code):
                yield output, in_shell(command), command


def agree(shown: str, printed: str) -> bool:
    """Whether a block prints what the page shows."""
    return doctest.OutputChecker().check_output(shown, printed, LENIENT)


def as_module() -> dict:
    """Names of a new module that code can be run in; torch.compile looks modules up by their names."""
    module = sys.modules["page"] = types.ModuleType("page")
    return vars(module)


def printed_by(code: str, names: dict) -> str:
    """What Python code prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")
        # what torch says of its own code, such as that of torch.func, which calls its deprecated torch.jit
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
        exec(compile(code, "<page>", "exec", dont_inherit=True), names)
    return printed.getvalue()


def in_shell(command: str) -> str:
    """What a command prints, in a shell that finds the commands of this Python."""
    found = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": found, "COLUMNS": "100"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def filled(text: str) -> str:
    """The page with what its Python prints in the blocks below it, but for those with ``...`` that agree."""
    printed = ""
    names = as_module()

    def fill(block: re.Match) -> str:
        nonlocal printed
        if block[1] == "python":
            printed = printed_by(block[2], names)
        if block[1] == "text" and not agree(block[2], printed):
            return f"```text\n{printed}```"
        return block[0]

    return BLOCK.sub(fill, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--fill", action="store_true")
    arguments = parser.parse_args()
    page = arguments.page.resolve()
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if arguments.fill:
            page.write_text(filled(text), encoding="utf-8")
            return
        for shown, printed, code in results(text):
            if not agree(shown, printed):
                sys.exit(f"{page.name}: {code}\nshows\n{shown}\nand prints\n{printed}")


if __name__ == "__main__":
    main()
