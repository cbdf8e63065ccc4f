"""Folders of edits: ours say the truth, and PIE-Bench's own layout is read as its authors read it."""

import json
import tracemalloc
from array import array

import numpy as np
import pytest
import torch

from geokernels import _files
from geokernels._files import read_json_entries, write_json
from geokernels.world import ATTRIBUTES, edits, judge, read_edit_folder, write_edit_folder
from geokernels.world.edits import KINDS, decode_runs, encode_runs

Image = pytest.importorskip("PIL.Image")

N = 10
PIE = {
    "image_path": "0_random_140/000000000000.jpg",
    "original_prompt": "a slanted mountain bicycle on the road",
    "editing_prompt": "a slanted [rusty] mountain bicycle on the road",
    "editing_instruction": "Make the frame of the bike rusty",
    "editing_type_id": "0",
    "blended_word": "bicycle bicycle",
    "mask": [0, 3, 1024, 5, 512 * 512 - 2, 9],
}


def pixels(path) -> torch.Tensor:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    write_edit_folder(folder, N, seed=3)
    return folder


def pie_folder(root, **changes):
    """A folder as PIE-Bench lays it out, with one entry; None leaves a key out."""
    entry = {k: v for k, v in (PIE | changes).items() if v is not None}
    picture = root / "annotation_images" / PIE["image_path"]
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (512, 512)).save(picture)
    (root / "mapping_file.json").write_text(json.dumps({"000000000000": entry}))
    return root


def test_the_judge_sees_the_edit_and_nothing_else(folder):
    cases = read_edit_folder(folder)
    assert {case.attribute for case in cases} == set(ATTRIBUTES)
    pictures = torch.stack([pixels(p) for case in cases for p in (case.picture, case.edited)]) / 255
    seen = judge(pictures).names()
    for case, before, after in zip(cases, seen[::2], seen[1::2]):
        assert [a for a in ATTRIBUTES if before[a] != after[a]] == [case.attribute]
        words = set(case.source.split()), set(case.target.split())
        assert all(before[a] in words[0] and after[a] in words[1] for a in ATTRIBUTES)
        assert after[case.attribute] in case.instruction.removesuffix(".").split()


def test_nothing_changes_outside_the_mask(folder):
    for case in read_edit_folder(folder):
        before, after, mask = pixels(case.picture), pixels(case.edited), case.mask(64)
        changed = (before != after).any(0, keepdim=True)
        assert not (changed & ~mask).any()
        # the mask is no larger than the object needs, or the ground
        assert changed.sum() > (0.2 if case.attribute in ("texture", "size", "shape") else 0.8) * mask.sum()


def test_the_mapping_file_is_as_published(folder):
    entries = json.loads((folder / "mapping_file.json").read_text())
    assert len(entries) == N
    for key, entry in entries.items():
        assert set(PIE) <= set(entry)
        assert len(key) == 12
        assert key.isdigit()
        assert entry["image_path"].startswith(
            f"{entry['editing_type_id']}_{KINDS[int(entry['editing_type_id'])]}/"
        )
        for prompt in (entry["original_prompt"], entry["editing_prompt"]):
            assert prompt.count("[") == prompt.count("]") == 1
        assert len(entry["blended_word"].split()) == 2
        # their reader, from its description: runs of ones in a flat 512 x 512
        flat = np.zeros(512 * 512, dtype=bool)
        for start, length in zip(entry["mask"][::2], entry["mask"][1::2]):
            flat[start : start + length] = True
        case = next(case for case in read_edit_folder(folder) if case.key == key)
        assert torch.equal(case.mask()[0], torch.from_numpy(flat.reshape(512, 512)))


def test_writing_again_changes_nothing_and_more_are_added(folder, tmp_path):
    def state(root):
        return {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*") if p.is_file()}

    write_edit_folder(tmp_path, 4, seed=3)
    few, count = state(tmp_path), []
    victim = next(tmp_path.rglob("edited_images/*/*.png"))
    victim.unlink()  # as an interrupted call would leave it
    write_edit_folder(tmp_path, 4, seed=3)
    assert state(tmp_path) == few
    write_edit_folder(tmp_path, N, seed=3, advance=lambda: count.append(1))
    assert state(tmp_path) == state(folder)
    assert len(count) == N
    with pytest.raises(ValueError, match=r"must be new or hold edits of \{'seed': 4, .* found those of"):
        write_edit_folder(tmp_path, 4, seed=4)


def test_an_interrupted_call_leaves_no_mapping_and_no_half_file(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_edit_folder(tmp_path, 4, advance=stop)
    assert not (tmp_path / "mapping_file.json").exists()
    assert not list(tmp_path.rglob("*partial*"))
    with pytest.raises(FileNotFoundError, match=r"must hold mapping_file\.json, found none in"):
        read_edit_folder(tmp_path)


def test_what_was_cut_or_damaged_is_made_again(tmp_path):
    write_edit_folder(tmp_path / "whole", 2, seed=3)
    write_edit_folder(tmp_path / "damaged", 2, seed=3)
    first, second = sorted((tmp_path / "damaged").rglob("*.png"))[:2]
    first.write_bytes(first.read_bytes()[:-20])
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 4
    second.write_bytes(content)
    write_edit_folder(tmp_path / "damaged", 2, seed=3)
    for path in (tmp_path / "whole").rglob("*.*"):
        assert (tmp_path / "damaged" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_mapping_that_is_a_list_is_refused(tmp_path):
    write_edit_folder(tmp_path, 1, seed=3)
    (tmp_path / "mapping_file.json").write_text("[]")
    with pytest.raises(ValueError, match="must map keys to edits, got a list"):
        write_edit_folder(tmp_path, 1, seed=3)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="found other files"):
        write_edit_folder(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"n": 0}, "n must lie between 1 and"),
        ({"n": 1, "seed": -1}, "seed must lie between 0 and"),
        ({"n": 1, "size": 48}, "size must divide 512 and be at least 16, got 48"),
    ],
)
def test_refused_arguments(tmp_path, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_edit_folder(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


class TestPieBench:
    def test_it_is_read_as_published(self, tmp_path):
        (case,) = read_edit_folder(pie_folder(tmp_path))
        assert case.picture == tmp_path / "annotation_images" / PIE["image_path"]
        assert (case.edited, case.attribute) == (None, None)
        assert case.target == "a slanted rusty mountain bicycle on the road"
        assert (KINDS[case.kind], case.blended) == ("random", ("bicycle", "bicycle"))
        mask = case.mask()
        # rows are 512 long, and a run past the end stops there
        assert mask.nonzero()[:, 1:].tolist() == [
            *([0, i] for i in range(3)),
            *([2, i] for i in range(5)),
            [511, 510],
            [511, 511],
        ]
        assert int(case.mask(border=True).sum()) == 4 * 511 + 4
        assert case.mask(64).nonzero()[:, 1:].tolist() == [[0, 0], [63, 63]]

    def test_an_empty_mask_and_no_blended_words(self, tmp_path):
        (case,) = read_edit_folder(pie_folder(tmp_path, mask=[], blended_word=""))
        assert not case.mask().any()
        assert case.blended == ()

    @pytest.mark.parametrize(
        "changes, sentence",
        [
            ({"original_prompt": None}, "original_prompt must be a text in entry '000000000000', got None"),
            ({"blended_word": 3}, "blended_word must be a text"),
            ({"editing_type_id": "10"}, 'editing_type_id must be one of "0" to "9" .* got \'10\''),
            ({"mask": [1]}, "mask must list start and length of every run"),
            ({"mask": [1, -2]}, "mask must list start and length of every run"),
            ({"mask": [0.5, 2]}, "mask must list start and length of every run"),
            ({"mask": {"size": 3}}, "mask must list start and length of every run"),
            ({"mask": [512 * 512, 1]}, "runs of the mask must start before 262144"),
            ({"image_path": "../mapping_file.json"}, "image_path must lie in annotation_images"),
        ],
    )
    def test_broken_entries(self, tmp_path, changes, sentence):
        with pytest.raises(ValueError, match=sentence):
            read_edit_folder(pie_folder(tmp_path, **changes))

    def test_a_folder_without_any_picture(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="must hold the pictures that"):
            read_edit_folder(pie_folder(tmp_path, image_path="1_change_object_80/1.jpg"))

    @pytest.mark.parametrize(
        "text, sentence",
        [
            ("{", "must be JSON"),
            ("[]", "must map keys to edits, got a list"),
            ('{"1": 2}', "must be an object"),
        ],
    )
    def test_broken_files(self, tmp_path, text, sentence):
        (tmp_path / "mapping_file.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            read_edit_folder(tmp_path)


def test_runs_there_and_back():
    generator = torch.Generator().manual_seed(0)
    for density in (0.0, 0.01, 0.5, 1.0):
        mask = torch.rand(1, 512, 512, generator=generator) < density
        assert torch.equal(decode_runs(encode_runs(mask)), mask)
    assert encode_runs(torch.tensor([[[0, 1, 1], [1, 0, 1]]])) == [1, 3, 5, 1]
    # overlapping runs are one
    assert int(decode_runs([0, 4, 2, 4]).sum()) == 6


def test_masks_of_many_edits_are_held_in_few_bytes(tmp_path):
    """As many runs each as half a picture has rows; as Python's numbers they were 36 bytes a number."""
    folder = tmp_path / "edits"
    write_edit_folder(folder, 1, size=64)
    path = folder / "mapping_file.json"
    entry = next(iter(json.loads(path.read_text()).values()))
    runs = [part for row in range(256) for part in (512 * row + 300, 301)]
    path.write_text(json.dumps({f"{i:012}": {**entry, "mask": [r + i for r in runs]} for i in range(200)}))
    tracemalloc.start()
    cases = read_edit_folder(folder)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(cases[7].runs) == [r + 7 for r in runs]
    assert held < 200 * (4 * len(runs) + 2000)


def test_of_a_mapping_file_one_entry_is_held_as_text(tmp_path, monkeypatch):
    """Read and written a little at a time: what that takes does not grow with the number of edits."""
    monkeypatch.setattr(_files, "AHEAD", 2**12)
    write_edit_folder(tmp_path, 1, size=64)
    entry = next(iter(read_json_entries(tmp_path / "mapping_file.json").values()))
    most = []
    for count in (50, 400):
        entries = {f"{i:012}": {**entry, "mask": array("i", entry["mask"])} for i in range(count)}
        tracemalloc.start()
        edits._write_entries(tmp_path / "many.json", entries)
        with (tmp_path / "many.json").open() as file:
            assert sum(1 for _ in _files._Entries(file, json.JSONDecoder())) == count
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (tmp_path / "many.json").stat().st_size > 1000 * count
    assert most[1] < 1.2 * most[0] + 2**14
    write_json(tmp_path / "whole.json", dict(json.loads((tmp_path / "many.json").read_text())))
    assert (tmp_path / "many.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
