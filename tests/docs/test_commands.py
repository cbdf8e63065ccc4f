"""Every command that a page shows has the options that it shows."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from geokernels.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(text: str) -> list[str]:
    """The lines of code blocks that call geokernels, continued lines joined, comments left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        re.split(r"\s(?:2?>|[|&;])", line.strip())[0]  # what a shell does with the output is not ours
        for line in joined.splitlines()
        if re.match(r"(    |\t)?(\$ )?geokernels [a-z]", line)
    ]


def shown() -> list[tuple[str, str]]:
    """Page and command of each."""
    return [(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands_of(page.read_text())]


def test_pages_show_commands():
    assert len(shown()) >= 20


@pytest.mark.parametrize("page, line", shown())
def test_the_options_exist(page, line):
    words = shlex.split(line.removeprefix("$ "), comments=True)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"{page}: there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    if "--" in words:
        words = words[: words.index("--")]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {
        "--help"
    }
    asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert not asked - known - {"--help"}, f"{page}: {line}"
