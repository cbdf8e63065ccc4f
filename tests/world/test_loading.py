"""The time to load that a card states is that of the call, in a process of its own."""

import re

from training import loading as module
from training.loading import loading


def test_what_is_timed(monkeypatch):
    monkeypatch.setattr(module, "PROCESSES", 1)
    line = loading("time.sleep(0.3); print('a library speaks')", "time.sleep(0.6)")
    call, libraries = (float(seconds) for seconds in re.findall(r"([\d.]+) s", line))
    assert call >= 0.6
    assert libraries >= 0.3
    assert "`time.sleep(0.6)` takes" in line
    assert "medians of 1 processes" in line
