"""Every command's page is whole, holds everything it shows, and takes prompts for what they are: text."""

from html.parser import HTMLParser

import pytest

from geokernels.report import demo, evaluate
from geokernels.report.adapt import ShownAdaptation, adapt_page
from geokernels.report.blend import ShownBlend, ShownMatch, blend_page
from geokernels.report.demo import demo_page
from geokernels.report.edit import ShownEdits, edit_page
from geokernels.report.evaluate import evaluation_page
from geokernels.report.interpolate import ShownPath, interpolation_page
from geokernels.report.morph import ShownLayer, ShownMorph, morph_page
from geokernels.report.samples import samples_page
from geokernels.report.video import ShownClip, video_page

EVIL = "<b>a cat & its \"mouse'</b>"
PNG, GIF = b"\x89PNG\r\n\x1a\n" + bytes(8), b"GIF89a" + bytes(8)
VOID = {"meta", "img", "br"}  # elements that have no end
SEEN = {"shape": "star", "colour": None}
WANTED = {"shape": "star", "colour": EVIL}


def record(command, *stages, terms=("loss", "flat"), **more):
    """A record as run.json has it, of stages of three steps each."""
    rows = [[float(i), 1.0] for i in range(3)] if terms else []
    return {
        "schema": 2,
        "command": command,
        "config": {stage: {"loss": EVIL, "layer": "object", "steps": 3, "text": EVIL} for stage in stages},
        "seeds": [7],
        "encoders": [EVIL],
        "seconds": {"prepare": 1.0, **dict.fromkeys(stages, 2.0), "total": 1.0 + 2.0 * len(stages)},
        "steps": dict.fromkeys(stages, 3),
        "steps_per_second": dict.fromkeys(stages, 1.5),
        "terms": {stage: list(terms) for stage in stages},
        "history": dict.fromkeys(stages, rows),
        "peak_memory_mib": 512.0,
        "machine": {"cpu": EVIL, "threads": 2, "device": "cpu", "gpu": None},
        "versions": {"torch": EVIL, "diffusers": None},
        "model": EVIL,
        "from": EVIL,
        "to": [EVIL],
        **more,
    }


def morph():
    layer = ShownLayer(PNG, PNG, 0.25)
    shown = ShownMorph(PNG, PNG, GIF, [PNG] * 3, ["source", EVIL, "step 2"], (64, 48), layer)
    return morph_page(record("morph", "morph"), shown)


def adapt():
    judged = {"shape": {"asked": EVIL, "before": 0.0, "after": 0.5, "kept": 1.0}}
    start = {"cosine": 0.5, "score": 1.0, "taken": True}
    of = record("adapt", "invert", "adapt", judged=judged, start=start)
    return adapt_page(of, ShownAdaptation(PNG, PNG, GIF, PNG, ["before", EVIL], [PNG] * 3))


def edit():
    of = record("edit", "edit", picture=EVIL, dtype="float32", to=[EVIL, "a dog"])
    of["history"] = {"edit": [[[None, None]] * 2, [[0.5, 1.0]] * 2, [[0.25, 1.0]] * 2]}
    shown = ShownEdits(PNG, PNG, [PNG] * 2, [[PNG] * 3] * 2, [EVIL] * 3, GIF, (64, 48))
    return edit_page(of, shown)


def interpolate():
    score = {"length": 1.0, "smoothness": 0.5, "worst_step": 2.0, "fidelity": 1.0}
    paths = {name: {"distances": [0.5, 0.25], "score": score} for name in ("ot", "row")}
    invariance = {"permuted": 1e-7, "repeated": 0.01}
    of = record("interpolate", "ot", "row", terms=(), prompts=[EVIL, "b"], distance=EVIL)
    of |= {"paths": paths, "invariance": invariance, "encoders": []}
    return interpolation_page(of, {name: ShownPath(GIF, [PNG] * 3, [EVIL] * 3) for name in paths})


def blend():
    score = {"length": 1.0, "smoothness": 0.5, "worst_step": 2.0, "fidelity": 1.0}
    path = {"distances": [0.5, 0.25], "score": score}
    matches = {"fixed": [[1.0, 2.0, 3.0, 4.0]], "missed": 0.1, "confidence": [0.5, 0.25], "folded": 0.0}
    of = record(
        "blend", "blend", terms=(), first=EVIL, second=EVIL, size=[64, 48], path=path, matches=matches
    )
    drawn = {"model": EVIL, "pipeline": "FluxPipeline", "dtype": "float32", "prompts": [EVIL, ""]}
    of |= {"masked": [EVIL, "b.png"], "diffusion": drawn}
    of["config"] = {"blend": {**of["config"]["blend"], "level": 0.5, "steps": 30}}
    found = [ShownMatch((1.0, 2.0), (3.0, 4.0), 0.5), ShownMatch((1.0, 2.0), (3.0, 4.0), None)]
    shown = ShownBlend(PNG, PNG, PNG, PNG, GIF, [PNG] * 3, [EVIL] * 3, ((64, 48), (48, 64)), found)
    return blend_page(of | {"encoders": []}, shown)


def video():
    of = record("video", "atlas", "edit", frames=3, size=[64, 48], atlas={"psnr": 30.0, "fitted": True})
    return video_page(of, ShownClip(GIF, [PNG] * 3, [0, 1, 2], PNG, PNG, PNG))


def samples():
    of = record("world sample", "samples", terms=(), kind="scenes")
    drawn = [
        {"caption": EVIL, "wanted": WANTED, "seen": SEEN},
        {"caption": None, "wanted": None, "seen": None},
    ]
    return samples_page(of, drawn, [PNG] * 2, [("shape", "100%", EVIL)])


def evaluation():
    of = record("eval", "edits", terms=(), edits=["k"], methods={EVIL: {}}, decoder=None, dtype="float32")
    of["measures"] = {"clip": EVIL, "structure": EVIL, "perceptual": EVIL}
    of["conventions"] = {"fingerprint": EVIL, "departures": [EVIL]}
    rows = [
        {"key": "k", "method": EVIL, "failure": EVIL, "attribute": "shape", "reached": None, "right": None},
        {"key": "l", "method": EVIL, "failure": None, "attribute": "shape", "reached": 1.0, "right": 0.0},
    ]
    head, lines = ["method", "edits", "failed", "clip"], [[EVIL, "2", "1", "0.5 ± 0.1"]]
    edits = [
        evaluate.ShownEdit(key, EVIL, EVIL, "change_object", {"source": PNG, "truth": None}, {EVIL: None})
        for key in ("k", "l")
    ]
    return evaluation_page(of, (head, lines), rows, edits)


def test_the_page_of_thousands_of_failures_opens():
    of = record("eval", "edits", terms=(), edits=["k"], methods={"m": {}}, decoder=None, dtype="float32")
    of["measures"] = {"clip": "c", "structure": "s", "perceptual": "p"}
    of["conventions"] = {"fingerprint": "f", "departures": []}
    row = {"method": "m", "attribute": None, "reached": None, "right": None}
    rows = [{"key": f"k{i}", "failure": None if i % 10 else "it got lost", **row} for i in range(12_000)]
    said = evaluation_page(of, (["method", "edits", "failed"], [["m", "12000", "1200"]]), rows, [])
    assert "1200 of 12000 results failed" in said
    assert said.count("it got lost") == evaluate.FAILURES
    assert 'And 1,100 more, all of them in <a href="results.csv">results.csv</a>' in said
    assert len(said) < 100_000


def demonstration():
    score = {"reached": True, "kept": 1.0, "right": False, "psnr": 30.0, "seconds": 2.0}
    losses = ("geodesic", "directional")
    one = {"attribute": "colour", "from": EVIL, "to": EVIL, "seen_before": SEEN, "wanted": WANTED}
    one["morphs"] = {loss: {"seen": SEEN, **score} for loss in losses}
    walk = {"ends": [EVIL, "b"], "largest_over_mean_step": 1.5, "seen": [SEEN] * 3}
    drawn = [{"prompt": EVIL, "wanted": WANTED, "seen": SEEN}]
    of = record("demo", "demo", terms=(), morphs=[one], walk=walk, drawn=drawn)
    of |= {"between_prompts": {"left_out": EVIL}, "photographs": {"first": EVIL, "second": "b", "fixed": []}}
    edit = demo.ShownEdit(PNG, PNG, {loss: demo.ShownMorph(PNG, GIF, [PNG] * 3) for loss in losses})
    walk = demo.ShownWalk(PNG, PNG, GIF, [PNG] * 3, [EVIL] * 3)
    shown = demo.Shown(walk, [edit], walk, None, [PNG])
    return demo_page(of, shown)


PAGES = [blend, morph, adapt, edit, interpolate, video, samples, evaluation, demonstration]


class Whole(HTMLParser):
    """Opens and ends every element in order, and keeps what a page says and loads."""

    def __init__(self, document):
        super().__init__()
        self.open, self.said, self.loaded, self.figures = [], [], [], []
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "img":
            self.figures.append(attrs["alt"])

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


@pytest.mark.parametrize("made", PAGES)
def test_a_page_is_whole_and_loads_nothing(made):
    document = made()
    whole = Whole(document)
    assert all(address.startswith("data:image/") for address in whole.loaded)
    assert whole.figures
    assert all(whole.figures)
    assert "$" not in document


@pytest.mark.parametrize("made", PAGES)
def test_prompts_are_text_wherever_they_stand(made):
    document = made()
    assert EVIL not in document
    assert "<b>a cat" not in document
    assert EVIL in "".join(Whole(document).said)


@pytest.mark.parametrize("made", PAGES)
def test_every_page_says_what_its_run_took(made):
    said = " ".join(Whole(made()).said)
    assert f"machine {EVIL}, threads: 2" in said
    for fact in ("time in all", "peak memory", "512 MiB", "seed 7", "Versions", "Every setting"):
        assert fact in said
    assert "None None" not in said


def test_settings_stand_by_stage_and_losses_too():
    said = " ".join(Whole(adapt()).said)
    for stage in ("the inversion", "the adaptation"):
        for what in ("Losses", "Every setting", "steps"):
            assert f"{what} of {stage}" in said


def test_pictures_that_cannot_be_read_are_said_to_be_missing():
    said = "".join(Whole(evaluation()).said)
    assert "truth: no picture" in said
    assert f"{EVIL} wrong ✗: no picture" in said


def test_the_page_of_a_blend_says_what_drew_it():
    said = " ".join(Whole(blend()).said)
    for fact in ("FluxPipeline, float32", "noise at 0.5 of 30 steps", f"“{EVIL}” → nothing", "b.png"):
        assert fact in said
