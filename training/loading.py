"""How long a model takes to load, from a fresh process, for its card."""

import statistics
import subprocess
import sys

PROCESSES = 3
CODE = """
import time
import torch
begin = time.perf_counter()
{imports}
ready = time.perf_counter()
{call}
print(ready - begin, time.perf_counter() - ready)
"""


def loading(imports: str, call: str) -> str:
    """One line of a card: seconds that ``call`` takes, and ``imports`` before it, medians over processes.

    Args:
        imports: Statements that bring in the libraries, which a program pays for once.
        call: What loads the model, its checksums verified.
    """
    code = CODE.format(imports=imports, call=call)
    command = [sys.executable, "-W", "ignore", "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(PROCESSES)]
    # libraries may say something of their own first
    times = [map(float, run.stdout.splitlines()[-1].split()) for run in runs]
    libraries, model = map(statistics.median, zip(*times))
    return (
        f"- `{call}` takes {model:.2f} s, after {libraries:.2f} s for its libraries on top of torch "
        f"(medians of {PROCESSES} processes)"
    )
