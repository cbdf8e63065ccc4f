"""``geokernels doctor``."""

from rich.table import Table

from .console import console, say, sentences


def doctor() -> None:
    """Say what can run on this machine, and why the rest cannot."""
    with sentences(doctor):
        from ..environment import backends, choices, facts, missing_extras, proofs

        about = Table("what", "value", title="geokernels")
        for name, value in facts().items():
            about.add_row(name, value)
        table = Table("backend", "runs here", "why not", title="backends")
        for name, reason in backends().items():
            table.add_row(name, "no" if reason else "yes", reason or "")
        chosen = Table("device", "asked in this order", "evidence", title="backend=None")
        for row in choices():
            chosen.add_row(*row)
        console().print(about, table, chosen)
        for line in proofs():
            say(line)
        for extra, (commands, missing) in missing_extras().items():
            say(f'{commands} also need {", ".join(missing)}: pip install "geokernels[{extra}]"')
