"""benchmarks.gpu.bring fills a folder that the checklist takes, and says what it could not get."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks.gpu import bring, checklist, sources
from benchmarks.gpu.stages import Place


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Pip that builds and fetches empty files, but for the packages and the builds that are named."""
    called = SimpleNamespace(lacks=(), words=[], settings=[])

    def run(words, env=None):
        called.words.append(words)
        called.settings.append(env)
        name = "geokernels-0.1.0-cp311-cp311-linux_x86_64" if "wheel" in words else words[-1]
        if words[-1] in called.lacks or ("wheel" in words and "wheel" in called.lacks):
            return SimpleNamespace(returncode=1)
        (tmp_path / f"{name}.whl").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(bring, "commit", lambda: "of today")
    return called


def test_the_folder_is_taken_by_the_checklist(tmp_path, pip):
    old = tmp_path / "geokernels-0.0.9-cp311-cp311-linux_x86_64.whl"
    old.touch()
    assert bring.main([str(tmp_path)]) == 0
    place = Place("python", tmp_path / "out", tmp_path / "site", wheels=tmp_path, tag="cp311")
    assert checklist.refuse_wheel(place) is None
    own, others = place.brought()
    assert own.name.startswith("geokernels-0.1.0")
    assert not old.exists()
    assert len(others) == len(bring.OTHERS)
    assert json.loads((tmp_path / "brought.json").read_text())["commit"] == "of today"
    # the kernels are in it, or there is no wheel
    assert pip.settings[0]["FORCE_CUDA"] == "1"


def test_what_cannot_be_had_is_named_and_the_wheel_must_be(tmp_path, pip, capsys):
    pip.lacks = ("pykeops",)
    assert bring.main([str(tmp_path)]) == 0
    assert capsys.readouterr().err == "left out: pykeops\n"
    pip.lacks = ("wheel",)
    assert bring.main([str(tmp_path)]) == 1
    assert not list(tmp_path.glob("geokernels-*.whl"))


def test_a_wheel_of_older_sources_is_told_apart(tmp_path, pip, monkeypatch):
    bring.main([str(tmp_path)])
    monkeypatch.setattr(checklist, "digest", lambda *parts: "of tomorrow")
    place = Place("python", tmp_path / "out", tmp_path / "site", wheels=tmp_path, tag="cp311")
    assert "must be of these sources" in checklist.refuse_wheel(place)
    assert sources.digest(*sources.LIBRARY) != "of tomorrow"


@pytest.mark.parametrize(
    "tag, fits", [("cp310", False), ("cp311", True), ("cp314", True), ("cp314t", False)], ids=lambda x: str(x)
)
def test_one_wheel_is_for_later_versions_of_python(tmp_path, tag, fits):
    wheel = tmp_path / "geokernels-0.1.0-cp311-abi3-linux_x86_64.whl"
    wheel.touch()
    place = Place("python", tmp_path / "out", tmp_path / "site", wheels=tmp_path, tag=tag)
    assert place.brought() == (wheel if fits else None, [])
