"""Sharded transport under torchrun: what one process finds, the same on every rank, or a sentence there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = Path(__file__).with_name("launched.py")
PAGE = ROOT / "docs/scaling.md"

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo"),
]


def checks() -> list[str]:
    spec = importlib.util.spec_from_file_location("launched", LAUNCHED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.CHECKS)


def torchrun(processes: int, *words, **options) -> subprocess.CompletedProcess:
    """A port is chosen by the system."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [str(word) for word in (*command, *words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        **options,
    )


@pytest.fixture(scope="module", params=[2, 3], ids=["two", "three"])
def told(request, tmp_path_factory):
    """What each rank wrote, check by check."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(request.param, LAUNCHED, folder)
    files = [folder / f"{rank}.json" for rank in range(request.param)]
    if not all(file.exists() for file in files):
        pytest.fail(done.stdout + done.stderr)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


@pytest.mark.parametrize("name", checks())
def test_under_torchrun(told, name):
    # the others of a rank that failed say that it is gone
    said = sorted((one.get(name, "not reached") for one in told), key=lambda text: "RankError" in text)
    assert not any(said), next(filter(None, said))


def test_a_rank_that_dies_is_named_by_all_others(tmp_path):
    torchrun(3, "--monitor-interval", 3, LAUNCHED, tmp_path, "death")
    said = [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in (0, 2)]
    for sentence in said:
        assert re.fullmatch(
            r"ranks? (?:\d and )?\d (?:is|are) gone, or did not answer within 20 s, "
            r"at pair 2 of half-steps of sinkhorn",
            sentence,
        )
        assert "1" in sentence.split("gone")[0]


def test_the_example_of_the_page_runs(tmp_path):
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(code.splitlines()) <= 10
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    done = torchrun(2, "--redirects", 3, "--log-dir", tmp_path / "logs", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = [file.read_text(encoding="utf-8") for file in sorted((tmp_path / "logs").rglob("stdout.log"))]
    assert len(printed) == 2
    assert printed[0].splitlines()[0] == printed[1].splitlines()[0]
