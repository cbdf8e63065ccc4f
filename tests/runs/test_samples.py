"""Samples are drawn once each, judged as written, counted right, and a stopped run ends as a whole one."""

import json

import pytest
import torch

from geokernels import world
from geokernels._files import sha256
from geokernels._sealed import read_sealed_json, write_sealed_json
from geokernels.media.pictures import grid, read_picture
from geokernels.runs.loop import drive
from geokernels.runs.sample_sources import Renders
from geokernels.runs.samples import Sample, SampleFolder, SampleJob, judged


def draw(folder, source, *, resume=False, overwrite=False, **how):
    with SampleFolder(folder).claim(resume=resume, overwrite=overwrite) as claimed:
        job = SampleJob(source, claimed, facts={"seeds": [0], "encoders": []})
        return drive(job, resume=resume, **how)


def contents(folder):
    return {
        str(p.relative_to(folder)): sha256(p)
        for p in folder.rglob("*")
        if p.is_file() and p.name not in ("run.json", "report.html")
    }


class Slow(Renders):
    batch = 2


def stopped(folder, after):
    """Draw until ``after`` samples are there."""

    def press(job, name, samples, seconds):
        if samples.index >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(folder, Slow(7, 1), on_step=press)


def test_renders_are_what_their_captions_say(tmp_path):
    record = draw(tmp_path, Renders(5, 1))
    listed = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert len(listed) == 5
    pictures = torch.stack([read_picture(tmp_path / f"pictures/{i:04d}.png").rgb for i in range(5)])
    verdict = world.judge(pictures)
    assert [s["seen"] for s in listed] == verdict.names()
    sure = torch.tensor([[s["confidence"][attribute] for attribute in world.ATTRIBUTES] for s in listed])
    torch.testing.assert_close(sure, verdict.confidence, rtol=0, atol=6e-4)
    assert [s["caption"] for s in listed] == [world.describe(s["wanted"]) for s in listed]
    for attribute, counts in record["judged"].items():
        assert counts["samples"] == counts["asked"] == 5
        assert counts["as_asked"] == sum(s["seen"][attribute] == s["wanted"][attribute] for s in listed)
    written = json.loads((tmp_path / "run.json").read_text())
    for name, digest in {**written["files"], **listed[0]["sha256"]}.items():
        assert sha256(tmp_path / name) == digest
    assert read_picture(tmp_path / "grid.png").rgb.shape == (3, 2 * 66 - 2, 3 * 66 - 2)
    assert (tmp_path / "report.html").read_text().count("<img ") == 5


def test_a_stopped_run_ends_as_a_whole_one(tmp_path):
    draw(tmp_path / "whole", Slow(7, 1))
    stopped(tmp_path / "halves", after=4)
    assert not (tmp_path / "halves" / "run.json").exists()
    first = (tmp_path / "halves" / "pictures" / "0000.png").stat().st_mtime_ns
    draw(tmp_path / "halves", Slow(7, 1), resume=True)
    assert (tmp_path / "halves" / "pictures" / "0000.png").stat().st_mtime_ns == first
    assert contents(tmp_path / "halves") == contents(tmp_path / "whole")


def test_a_stopped_run_is_continued_with_its_own_settings_and_files(tmp_path):
    stopped(tmp_path, after=2)
    with pytest.raises(ValueError, match="made with count = 7, this run has 8"):
        draw(tmp_path, Slow(8, 1), resume=True)
    with pytest.raises(ValueError, match="made with another seed"):
        draw(tmp_path, Slow(7, 2), resume=True)
    (tmp_path / "pictures" / "0001.png").unlink()
    with pytest.raises(ValueError, match=r"pictures/0001.png is not what it was; start again"):
        draw(tmp_path, Slow(7, 1), resume=True)


def test_a_damaged_sample_or_list_is_found(tmp_path):
    stopped(tmp_path, after=2)
    partial = tmp_path / "samples.partial.json"
    whole, picture = partial.read_text(), tmp_path / "pictures" / "0001.png"
    for change in (('"count": 7', '"count": 70'), ('"samples"', '"simples"'), ("world sample", "eval")):
        partial.write_text(whole.replace(*change))
        with pytest.raises(ValueError, match=r"samples.partial.json is damaged .* --overwrite"):
            draw(tmp_path, Slow(7, 1), resume=True)
    partial.write_text(whole)
    content = bytearray(picture.read_bytes())
    content[60] ^= 1
    picture.write_bytes(content)
    with pytest.raises(ValueError, match=r"pictures/0001.png is not what it was"):
        draw(tmp_path, Slow(7, 1), resume=True)


def test_a_sealed_list_of_another_shape_is_refused(tmp_path):
    stopped(tmp_path, after=2)
    partial = tmp_path / "samples.partial.json"
    kept = read_sealed_json(partial, kind="world sample", remedy="")
    lists = ({"stages": {"samples": {"samples": entry}}} for entry in (3, [3]))
    rest = ({"stages": 3}, {"facts": None}, {"config": None}, {"made": "here"}, {"seconds": "long"})
    for change in (*lists, *rest):
        write_sealed_json(partial, kept | change, kind="world sample")
        with pytest.raises(ValueError, match=r"samples.partial.json|could not convert"):
            draw(tmp_path, Slow(7, 1), resume=True)
    for missing in kept.keys() - {"format"}:
        rest = {name: value for name, value in kept.items() if name != missing}
        write_sealed_json(partial, rest, kind="world sample")
        with pytest.raises(ValueError, match="does not hold what this version of geokernels writes"):
            draw(tmp_path, Slow(7, 1), resume=True)


def test_overwriting_leaves_nothing_behind(tmp_path):
    draw(tmp_path, Renders(5, 1))
    (tmp_path / "notes.txt").write_text("keep me")
    draw(tmp_path, Renders(2, 3), overwrite=True)
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["0000.png", "0001.png"]
    assert (tmp_path / "notes.txt").exists()


def test_only_what_is_known_is_counted():
    names = {attribute: values[0] for attribute, values in world.ATTRIBUTES.items()}
    samples = [
        {"wanted": {"shape": "circle"}, "seen": names},
        {"wanted": {"shape": "star"}, "seen": {**names, "colour": None}},
        {"wanted": None, "seen": names},
    ]
    counts = judged(samples)
    assert counts["shape"] == {"samples": 3, "named": 3, "asked": 2, "as_asked": 1}
    assert counts["colour"] == {"samples": 3, "named": 2, "asked": 0, "as_asked": 0}


def test_bytes_are_written_as_they_are(tmp_path):
    folder = SampleFolder(tmp_path)
    entry = folder.write(Sample({"a/b.gif": b"GIF"}, {"caption": None}))
    assert (tmp_path / "a" / "b.gif").read_bytes() == b"GIF"
    assert entry["caption"] is None


def test_a_grid_keeps_every_picture_in_order():
    pictures = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = grid(pictures, columns=2, gap=1)
    assert whole.shape == (3, 3 * 5 - 1, 2 * 5 - 1)
    assert torch.equal(whole[:, 5:9, 5:9], pictures[3])
    assert (whole[:, 10:, 5:] == 1).all()
