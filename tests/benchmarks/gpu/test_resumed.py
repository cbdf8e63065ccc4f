"""The checklist goes on where a run ended, with wheels it is given, on the same GPU and sources alone."""

import json

import pytest

from benchmarks.gpu import sources

from .stubs import ORDER, WHEEL, results, wheels


class TestResumed:
    def test_what_passed_is_not_done_again_but_for_the_build(self, machine):
        machine.run(fail_on="geokernels tune")
        first = {name: machine.log(name) for name in ORDER}
        done = machine.run()
        assert done.returncode == 0
        assert results(done) == dict.fromkeys(ORDER, "passed before") | {"build": "passed", "proof": "passed"}
        again = [name for name in ORDER if machine.log(name) != first[name]]
        assert again == ["build", "proof"]

    def test_from_a_folder_of_another_run(self, machine):
        machine.run(fail_on="geokernels tune")
        (machine.out / "gpu.json").write_text("{}")
        second = machine.folder / "second"
        done = machine.run("--earlier", machine.out, out=second)
        assert results(done)["operators"] == "passed before"
        assert machine.record(second)["stages"]["operators"]["result"] == "passed"
        assert not (second / "operators.log").exists()
        # the timings go on with the rows that are there
        assert (second / "gpu.json").exists()

    @pytest.mark.parametrize("other", ["GPU", "sources", "damaged"])
    def test_not_on_another_gpu_nor_from_other_sources(self, machine, other):
        machine.run()
        path = machine.out / "checklist.json"
        if other == "sources":
            record = machine.record()
            record["machine"]["sources"] = "of yesterday"
            path.write_text(json.dumps(record))
        if other == "damaged":
            path.write_text(path.read_text()[:-40])
        done = machine.run(gpu="GPU two" if other == "GPU" else "GPU one")
        assert results(done) == dict.fromkeys(ORDER, "passed")
        said = {"GPU": "of another gpu", "sources": "of another sources", "damaged": "no record"}[other]
        assert said in done.stdout


class TestWheel:
    def test_of_these_sources_is_used(self, machine):
        done = machine.run("--wheels", wheels(machine.folder / "wheels"), "build")
        assert results(done) == {"build": "passed"}
        assert "setup.py" not in machine.log("build")

    def test_of_other_sources_is_refused(self, machine):
        done = machine.run("--wheels", wheels(machine.folder / "wheels", library="of yesterday"))
        assert done.returncode == 2
        assert f"{WHEEL} must be of these sources" in done.stderr
        assert not machine.out.exists()

    def test_for_another_python_is_refused(self, machine):
        folder = wheels(machine.folder / "wheels")
        (folder / WHEEL).rename(folder / WHEEL.replace("cp311", "cp312"))
        done = machine.run("--wheels", folder)
        assert done.returncode == 2
        assert "must be for Python cp311" in done.stderr


def test_sources_are_told_apart_by_their_contents_and_names(tmp_path):
    (tmp_path / "csrc").mkdir()
    file = tmp_path / "csrc" / "one.cu"
    file.write_text("one")
    before = sources.digest("csrc", root=tmp_path)
    (tmp_path / "csrc" / "notes.md").write_text("no source")
    assert sources.digest("csrc", root=tmp_path) == before
    file.write_text("two")
    changed = sources.digest("csrc", root=tmp_path)
    file.rename(file.with_name("two.cu"))
    assert len({before, changed, sources.digest("csrc", root=tmp_path)}) == 3
