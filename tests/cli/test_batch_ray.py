"""A batch on a Ray cluster leaves what one process leaves, to the bit, whatever is killed meanwhile."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from geokernels import world
from geokernels.cli import app
from geokernels.cli import batch as command
from geokernels.cli.console import BAD_INPUT, INTERRUPTED
from geokernels.cli.typed import with_values
from geokernels.media.pictures import write_picture
from geokernels.runs import ray_crew
from geokernels.runs.post import Post

pytest.importorskip("open_clip")
if find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)
ray_crew.prepare()  # before it is imported
import ray  # noqa: E402

# Ray leaves processes and files to be cleaned up when Python ends, and looks into sockets that are gone
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]
PATIENCE = 600.0  # seconds, of a slow machine, after which a test gives up
OVER = threading.Event()  # what would be waited for does not come any more
STORE = 80 * 2**20
TIMES = ("seconds", "steps_per_second", "peak_memory_mib")  # that differ from run to run


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head, on which nothing runs, and two nodes."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, object_store_memory=STORE)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of jobs, and the folder in which one process ran them."""
    folder = tmp_path_factory.mktemp("serial")
    scenes = world.sample_scenes(1, generator=torch.Generator().manual_seed(1))
    write_picture(folder / "p.png", world.render(scenes)[0])
    morph = {"command": "morph", "picture": str(folder / "p.png"), "from": "a red circle", "steps": 2}
    morph |= {"to": "a blue circle", "start": False, "set": ["views=2"]}
    jobs = [{"name": f"stars{i}", "command": "world sample", "kind": "scenes", "seed": i} for i in range(3)]
    jobs = [
        *(job | {"count": 3} for job in jobs),
        morph | {"name": "blue"},
        morph | {"name": "blue-1", "seed": 1},
    ]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        assert run(folder / "jobs.jsonl").exit_code == 0
    return folder


@pytest.fixture
def gates(made, tmp_path, monkeypatch):
    """Closes gates for jobs; a batch that is called begins in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "WORKER", (str(tmp_path / "gated.py"),))
    monkeypatch.setattr(ray_crew, "SILENT", float("inf"))  # a slow machine is no cluster without room
    shutil.copy(Path(__file__).with_name("gated.py"), tmp_path)

    def close(*names):
        for name in names:
            (tmp_path / f"gate-{name}").touch()

    return close


def run(jobs, *arguments):
    return CliRunner().invoke(app, ["batch", str(jobs), "--out", "out", *map(str, arguments)])


def waiting(name):
    """The processes that wait at a gate, as soon as they do: who asked for the job, and who runs it."""
    begun = time.monotonic()
    while not (place := Path(f"at-{name}")).exists():
        assert not OVER.is_set(), f"{name} never came to its gate"
        assert time.monotonic() - begun < PATIENCE, f"{name} has not come to its gate"
        time.sleep(0.02)
    parent, child, gpus = place.read_text().split()
    return int(parent), int(child), gpus


@contextmanager
def meanwhile(do):
    """Does something beside what is done here; its error is raised in the end."""
    wrong = []
    OVER.clear()

    def beside():
        try:
            do()
        except BaseException as error:
            wrong.append(error)
            os.kill(os.getpid(), signal.SIGINT)  # what waits for it would wait for ever

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        yield
    finally:
        OVER.set()
        thread.join()
        OVER.clear()
        if wrong:
            raise wrong[0]


def contents(folder):
    """What is in the files of a batch, without times; what jobs printed is theirs alone."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith("logs/"):
            continue
        found[name] = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            found[name] = [timeless(json.loads(line)) for line in whole(path)]
        elif path.suffix in (".html", ".csv"):
            found[name] = re.sub(r"\d+(?= MiB| a second)|\d+\.\d+", "#", path.read_text())
    return found


def whole(path):
    return path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]


def timeless(value):
    """A value without what tells the time, and without seals and checksums of what does."""
    if isinstance(value, list):
        return [timeless(one) for one in value]
    if not isinstance(value, dict):
        return value
    left_out = (*TIMES, "seal", "report.html", "jobs.csv", "batch.jsonl", "batch.json")
    return {key: timeless(one) for key, one in value.items() if key not in left_out}


@pytest.mark.long
def test_interrupted_it_leaves_what_is_done_and_its_parts_are_merged(cluster, made, gates):
    gates("stars2", "blue-1")

    def interrupt():
        waiting("stars2"), waiting("blue-1")
        os.kill(os.getpid(), signal.SIGINT)

    part = (made / "jobs.jsonl", "--shard", "0/2")
    with meanwhile(interrupt):
        found = run(*part, "--ray", cluster.address)
    assert found.exit_code == INTERRUPTED, found.output
    assert "Stopped after 1 of 3 jobs; the same command continues in out" in found.stderr
    for name in ("stars2", "blue-1"):
        assert any(Path(f"out/shard-0-of-2/jobs/{name}").glob("*partial*")) or list(
            Path(f"out/shard-0-of-2/jobs/{name}").glob("checkpoint.pt")
        )
    assert run(*part, "--ray", cluster.address).exit_code == 0
    assert run(made / "jobs.jsonl", "--shard", "1/2").exit_code == 0
    found = CliRunner().invoke(app, ["merge", "out", "--out", "merged"])
    assert found.exit_code == 0, found.output
    ours, theirs = contents(Path("merged")), contents(made / "out")
    assert [name for name in theirs if ours[name] != theirs[name]] == ["batch.jsonl"]  # who was stopped
    stopped = [line["name"] for line in ours["batch.jsonl"] if line["state"] == "stopped"]
    assert sorted(stopped) == ["blue-1", "stars2"]


@pytest.mark.long
def test_killed_processes_and_nodes_lose_nothing(cluster, made, gates):
    """The batch itself is killed, then a worker, then a node; nothing is done twice or differs."""
    gates("stars0", "stars1")
    script = f"from geokernels.cli import batch, main; batch.WORKER = {command.WORKER!r}; main()"
    typed = ["batch", made / "jobs.jsonl", "--out", "out", "--ray", cluster.address]
    with subprocess.Popen([sys.executable, "-c", script, *map(str, typed)]) as driver:
        try:
            children = [waiting(name)[1] for name in ("stars0", "stars1")]
            assert waiting("stars0")[2] == "''"  # no GPU, on a cluster that has none
        finally:
            driver.kill()
    Path("at-stars1").unlink()
    gates("stars1", "blue")

    def kill():
        os.kill(waiting("stars1")[0], signal.SIGKILL)
        parent, *_ = waiting("blue")
        lost = next(node for node in cluster.worker_nodes if descends(parent, raylet_of(node)))
        cluster.remove_node(lost, allow_graceful=False)  # one is left, which does all that is left

    with meanwhile(kill), pytest.warns(UserWarning, match="worker was lost|is still written to") as said:
        found = run(made / "jobs.jsonl", "--ray", cluster.address)
    assert found.exit_code == 0, found.output
    lost = [str(one.message) for one in said if "a worker was lost" in str(one.message)]
    assert sorted(re.search(r"job (\S+) is run again", line)[1] for line in lost) == ["blue", "stars1"]
    for child in children:  # of the batch that was killed
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    ours, theirs = contents(Path("out")), contents(made / "out")
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    times = [path.stat().st_mtime_ns for path in sorted(Path("out/jobs").rglob("*"))]
    assert run(made / "jobs.jsonl").exit_code == 0  # which finds nothing to do
    assert times == [path.stat().st_mtime_ns for path in sorted(Path("out/jobs").rglob("*"))]


def raylet_of(node):
    """The process of a node."""
    (process,) = node.all_processes["raylet"]
    return process.process.pid


def descends(pid, ancestor):
    """Whether a process comes of another."""
    while pid > 1 and pid != ancestor:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == ancestor


def refused(*arguments):
    found = run(*arguments)
    assert found.exit_code == BAD_INPUT, found.output
    assert not Path("out").exists()
    (line,) = found.stderr.strip().splitlines()
    return line.removeprefix("Error: ")


@pytest.mark.long
def test_what_a_cluster_cannot_do_is_said(cluster, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_crew, "_require_reached", lambda address: None)  # it was, above
    said = refused(made / "jobs.jsonl", "--ray", cluster.address, "--ray-gpus", "0.5")
    assert said.startswith("--ray must name a cluster with room for a worker, of 1 CPU and 0.5 GPU each;")
    assert cluster.address in said
    # a folder that is another one for every process, as if each node had a drive of its own
    jobs = [
        str(made / "jobs.jsonl"),
        "--ray",
        cluster.address,
        "--out",
        f"/proc/self/cwd/{tmp_path.name}-out",
    ]
    found = CliRunner().invoke(app, ["batch", *jobs])
    assert found.exit_code == BAD_INPUT, found.output
    assert found.stderr.startswith("Error: --out must be on a drive that all nodes share, ")


class TestWithoutACluster:
    @pytest.fixture(autouse=True)
    def place(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def jobs(self, tmp_path):
        (tmp_path / "jobs.csv").write_text("command,KIND\nworld sample,scenes\n")
        return tmp_path / "jobs.csv"

    def test_ray_that_is_not_installed(self, jobs, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        assert refused(jobs, "--ray").endswith('not installed: pip install "geokernels[ray]"')

    def test_what_is_no_address(self, jobs):
        for wrong in ("head", "ray://head:10001", "http://head:6379"):
            said = refused(jobs, "--ray", wrong)
            assert said == f"--ray must be HOST:PORT of a cluster's head, or auto, got '{wrong}'"
        assert refused(jobs, "--ray-cpus", 2) == "--ray-cpus goes with --ray, which is not given"

    def test_a_cluster_that_does_not_answer(self, jobs, monkeypatch):
        import socket

        monkeypatch.setattr(ray_crew, "REACHED", 1.0)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            said = refused(jobs, "--ray", address)
            assert f"{address} cannot be reached: " in said
            silent.listen()
            assert f"{address} did not answer within 1 seconds" in refused(jobs, "--ray", address)

    @pytest.mark.parametrize(
        "nodes, needs, found",
        [
            ([{"CPU": 4}, {"CPU": 3}], {"cpus": 2}, (0.0, 3)),
            ([{"CPU": 4}, {"CPU": 8, "GPU": 2}], {}, (1.0, 2)),
            ([{"CPU": 4}, {"CPU": 8, "GPU": 2}], {"gpus": 0.0}, (0.0, 12)),
            ([{"CPU": 4}, {"CPU": 8, "GPU": 2}], {"gpus": 0.25}, (0.25, 8)),
            ([{"CPU": 1, "GPU": 2}], {"workers": 5}, (1.0, 5)),
            ([{}], {"workers": 2}, (0.0, 2)),
        ],
    )
    def test_workers_are_as_many_as_resources_allow(self, nodes, needs, found, monkeypatch):
        alive = [{"Alive": True, "Resources": node} for node in nodes]
        dead = {"Alive": False, "Resources": {"CPU": 100, "GPU": 100}}
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])
        assert ray_crew._room("auto", ray_crew.Needs(**needs)) == found

    def test_a_node_that_differs_is_refused(self, tmp_path, monkeypatch):
        (tmp_path / "seen").write_text("it")
        asked = (".", ("seen", "it"), {})
        post = Post(["-c", ""], ["RANK"], str(tmp_path), 3, False)
        assert post.refusal(*asked) is None
        assert post._worker.environment["OMP_NUM_THREADS"] == "3"
        assert post._worker.environment["CUDA_VISIBLE_DEVICES"] == ""
        assert "all nodes share" in post.refusal(".", ("seen", "another"), {})
        assert "geokernels 9.9 as this machine has" in post.refusal(*asked[:2], {"geokernels": "9.9"})
        said = Post([], [], str(tmp_path / "none"), 1, True).refusal(*asked)
        assert said.startswith("every node must have the folder that the batch is called in")
        monkeypatch.setattr("geokernels.runs.worker.find_spec", lambda name: None)
        assert "whose nodes have geokernels installed" in post.refusal(*asked)

    def test_the_address_may_be_left_out(self):
        typed = {
            ("jobs.csv", "--ray"): ["jobs.csv", "--ray=local"],
            ("--ray", "jobs.CSV", "--out", "a"): ["--ray=local", "jobs.CSV", "--out", "a"],
            ("--ray", "--out", "a"): ["--ray=local", "--out", "a"],
            ("--ray", "auto"): ["--ray", "auto"],
            ("--ray=a:1",): ["--ray=a:1"],
            ("--", "--ray"): ["--", "--ray"],
        }
        assert {words: with_values(command.batch, words) for words in typed} == typed
