"""The pieces of a report page are what their docstrings say, and need nothing but text and bytes."""

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import geokernels
from geokernels.report import page as pieces
from geokernels.report.page import badge, chart, details, figure, film, page, section, table

PNG, GIF = b"\x89PNG\r\n\x1a\n" + bytes(8), b"GIF89a" + bytes(8)

ALONE = """
import importlib, pkgutil, sys, types

package = types.ModuleType("geokernels")  # without what its __init__ imports
package.__path__ = [sys.argv[1]]
sys.modules["geokernels"] = package
pages = importlib.import_module("geokernels.report")
names = [module.name for module in pkgutil.iter_modules(pages.__path__)]
for name in names:
    importlib.import_module(f"geokernels.report.{name}")
print(len(names), *sorted({"torch", "numpy", "PIL"} & set(sys.modules)))
"""


def test_pages_load_without_torch_numpy_and_pillow():
    folder = Path(geokernels.__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [str(len(list((folder / "report").glob("[!_]*.py"))))]


class Tags(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, document):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize(
    "piece",
    [
        lambda evil: page(evil, "", []),
        lambda evil: section(evil, note=evil),
        lambda evil: figure(PNG, evil),
        lambda evil: film([PNG], evil, labels=[evil]),
        lambda evil: table([evil], []),
        lambda evil: details(evil, {evil: evil}),
        lambda evil: chart([[1.0], [2.0]], [evil], what="a"),
        lambda evil: badge(evil, None),
    ],
)
def test_what_is_text_stays_text(piece):
    evil = "\"><b>a</b> & '"
    plain, tags = Tags(piece("plain")), Tags(piece(evil))
    assert [tag for tag, _ in tags.tags] == [tag for tag, _ in plain.tags]
    said = " ".join(tags.texts) + " ".join(str(v) for _, attributes in tags.tags for v in attributes.values())
    assert evil in said


@pytest.mark.parametrize(("data", "kind"), [(PNG, "png"), (GIF, "gif")])
def test_a_figure_holds_its_file(data, kind):
    (image,) = Tags(figure(data, "a picture", "below")).of("img")
    start, _, content = image["src"].partition(",")
    assert start == f"data:image/{kind};base64"
    assert base64.b64decode(content) == data
    assert image["alt"] == "a picture"


@pytest.mark.parametrize("count", [1, 2, 10, 11, 33])
def test_a_film_shows_a_few_frames_with_the_first_and_the_last(count):
    frames = [PNG + bytes([i]) for i in range(count)]
    shown = Tags(film(frames, "x", labels=[f"step {i}" for i in range(count)]))
    numbers = [base64.b64decode(image["src"].partition(",")[2])[-1] for image in shown.of("img")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(count, pieces.SHOWN)
    assert (numbers[0], numbers[-1]) == (0, count - 1)
    assert [text for text in shown.texts if text.startswith("step")] == [f"step {i}" for i in numbers]


def points_of(drawing):
    """The curves of a chart, each a list of points with y upwards, in [0, 1] between its margins."""
    span = pieces.HEIGHT - 2 * pieces.MARGIN
    curves = re.findall(r'points="([^"]+)"', drawing)
    pairs = [[tuple(map(float, pair.split(","))) for pair in curve.split()] for curve in curves]
    return [
        [(x / pieces.WIDTH, (pieces.HEIGHT - pieces.MARGIN - y) / span) for x, y in curve] for curve in pairs
    ]


def test_every_curve_has_its_own_scale_and_goes_from_edge_to_edge():
    curves = points_of(chart([[0.0, 7.0], [1.0, 7.5], [4.0, 7.25]], ["a", "b"]))
    expected = [[(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)], [(0.0, 0.0), (0.5, 1.0), (1.0, 0.5)]]
    for curve, points in zip(curves, expected, strict=True):
        for point, wanted in zip(curve, points, strict=True):
            assert point == pytest.approx(wanted, abs=1e-3)


def test_curves_may_share_one_scale_from_zero():
    first, second = points_of(chart([[1.0, 2.0], [2.0, 4.0]], ["a", "b"], one_scale=True))
    assert [y for _, y in first] == pytest.approx([0.25, 0.5], abs=1e-3)
    assert [y for _, y in second] == pytest.approx([0.5, 1.0], abs=1e-3)


def test_a_curve_that_never_changes_is_said_and_not_drawn_and_no_steps_are_no_fault():
    drawing = chart([[1.0, 3.0], [2.0, 3.0]], ["a", "flat"])
    assert len(points_of(drawing)) == 1
    assert "flat 3 throughout" in "".join(Tags(drawing).texts)
    assert points_of(chart([], ["a"])) == points_of(chart([[1.0]], ["a"])) == []
