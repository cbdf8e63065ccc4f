"""What a later run continues from is checked before it is used: any damage is a sentence."""

import json
import random
import re
import resource
import signal
from contextlib import contextmanager
from fractions import Fraction

import pytest
import torch

from geokernels._files import read_json, write_json
from geokernels._sealed import load_sealed, read_sealed_json, save_sealed, seal, unseal, write_sealed_json
from geokernels.media.films import mp4_writer
from geokernels.media.pictures import write_picture
from geokernels.models import LayeredAtlas, save_atlas, save_generator
from geokernels.models.stylegan2 import Generator, GeneratorConfig

HOW = {"kind": "morph", "remedy": "start again"}


def state():
    return {"index": 3, "rows": [torch.arange(6.0).view(2, 3), None], "name": "a", "run": {"eps": 0.1}}


@pytest.fixture
def checkpoint(tmp_path):
    save_sealed(tmp_path / "state.pt", state(), kind="morph")
    return tmp_path / "state.pt"


def test_what_was_saved_comes_back(checkpoint):
    found = load_sealed(checkpoint, **HOW)
    assert torch.equal(found.pop("rows")[0], state()["rows"][0])
    assert found == {"index": 3, "name": "a", "run": {"eps": 0.1}}


def test_equal_states_give_equal_files(checkpoint, tmp_path):
    save_sealed(tmp_path / "another name.pt", state(), kind="morph")
    assert (tmp_path / "another name.pt").read_bytes() == checkpoint.read_bytes()


def test_every_flipped_bit_is_found(checkpoint):
    whole, chance = checkpoint.read_bytes(), random.Random(0)
    # the ending bit by bit, the rest of it at random
    places = [*range(8 * (len(whole) - 100), 8 * len(whole)), *chance.sample(range(8 * len(whole)), 400)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        checkpoint.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"state.pt (is damaged|must be of morph).*; start again"):
            load_sealed(checkpoint, **HOW)


def test_every_truncation_is_found(checkpoint):
    whole, chance = checkpoint.read_bytes(), random.Random(1)
    for length in [0, 1, len(whole) - 1, *chance.sample(range(len(whole)), 50)]:
        checkpoint.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"is damaged \(it does not end with its checksum\); start again"
        ):
            load_sealed(checkpoint, **HOW)


def test_another_kind_is_named(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="must be of video, it is of morph; start again"):
        load_sealed(checkpoint, kind="video", remedy="start again")
    write_sealed_json(tmp_path / "rows.json", {"rows": []}, kind="eval")
    with pytest.raises(ValueError, match="must be of morph, it is of eval; start again"):
        read_sealed_json(tmp_path / "rows.json", **HOW)


CONTENT = {"rows": [{"key": "ä", "seconds": 0.1, "score": None}], "seconds": 1e-9}


def read_or_refusal(path):
    try:
        return read_sealed_json(path, **HOW)
    except ValueError as error:
        return str(error)


class TestJson:
    def test_what_was_written_comes_back(self, tmp_path):
        write_sealed_json(tmp_path / "rows.json", CONTENT, kind="morph")
        assert read_sealed_json(tmp_path / "rows.json", **HOW) == CONTENT
        # laid out in another way, it says the same
        kept = json.loads((tmp_path / "rows.json").read_text())
        (tmp_path / "rows.json").write_text(json.dumps(dict(reversed(kept.items()))))
        assert read_sealed_json(tmp_path / "rows.json", **HOW) == CONTENT

    def test_flipped_bits_are_found_or_change_nothing(self, tmp_path):
        path, chance = tmp_path / "rows.json", random.Random(2)
        write_sealed_json(path, CONTENT, kind="morph")
        whole, found = path.read_bytes(), 0
        for place in chance.sample(range(8 * len(whole)), 600):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            said = read_or_refusal(path)
            if said != CONTENT:
                assert re.search("rows.json .*; start again$", said), said
                found += 1
        assert found > 500

    @pytest.mark.parametrize("content", [[], {}, 3, {"seal": 1}, {"seal": {"kind": 2}}], ids=str)
    def test_what_was_never_sealed(self, content, tmp_path):
        write_json(tmp_path / "rows.json", content)
        with pytest.raises(ValueError, match=r"rows.json is damaged \(it lacks its checksum\)"):
            read_sealed_json(tmp_path / "rows.json", **HOW)

    def test_nothing_can_be_added_or_taken(self):
        sealed = seal({"a": 1, "b": 2}, kind="morph")
        for changed in (sealed | {"c": 3}, {k: v for k, v in sealed.items() if k != "a"}):
            with pytest.raises(ValueError, match="line 7 is damaged"):
                unseal(changed, "line 7", **HOW)

    def test_deep_nesting_is_a_sentence(self, tmp_path):
        (tmp_path / "deep.json").write_text("[" * 200_000)
        with pytest.raises(ValueError, match="must be JSON"):
            read_json(tmp_path / "deep.json")


@contextmanager
def full_disk():
    """No file may grow beyond 4 kB, as on a disk that is full; nor may the one that pytest prints to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_what_was_there(checkpoint):
    said = f"{checkpoint} could not be written: File too large"
    with pytest.raises(OSError, match=said), full_disk():
        save_sealed(checkpoint, {"large": torch.zeros(10_000)}, kind="morph")
    assert load_sealed(checkpoint, **HOW)["index"] == 3
    assert [path.name for path in checkpoint.parent.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".png", ".mp4", ".json", ".atlas"])
def test_every_writer_says_that_the_disk_is_full(ending, tmp_path):
    path = tmp_path / f"result{ending}"
    with pytest.raises(OSError, match=rf"{path} could not be written: "), full_disk():
        WRITERS[ending](path)
    assert not list(tmp_path.iterdir())


def write_film(path):
    with mp4_writer(path) as add:
        for i in range(60):
            add(torch.rand(3, 64, 64), Fraction(i, 10))


WRITERS = {
    ".safetensors": lambda path: save_generator(Generator(GeneratorConfig((8, 8), 16, 1)), path),
    ".pt": lambda path: save_generator(Generator(GeneratorConfig((8, 8), 16, 1)), path),
    ".png": lambda path: write_picture(path, torch.rand(3, 64, 64)),
    ".mp4": write_film,
    ".json": lambda path: write_sealed_json(path, {"rows": ["a" * 10_000]}, kind="eval"),
    ".atlas": lambda path: save_atlas(
        LayeredAtlas(torch.zeros(2, 3, 2, 3), (8, 8), generator=torch.Generator()), path
    ),
}
