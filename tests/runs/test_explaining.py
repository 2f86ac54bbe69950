"""The report as a whole: of detectors that find nothing, of data without objects, within 5 MB."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from libra_keras import data, evaluation
from libra_keras.data import DetectionData, Example, InputPolicy
from libra_keras.data.examples import coco_annotations
from libra_keras.models import RPNSettings
from libra_keras.runs import explaining
from libra_keras.runs.explaining import Origin, check_page, page, place, write_page
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.measuring import Measured
from libra_keras.visualization import plots

ORIGIN = Origin("mine")


class Model:
    """Says of itself what a report asks."""

    input_policy = InputPolicy(64, 64)

    def heads(self):
        return [SimpleNamespace(settings=RPNSettings())]

    def count_params(self):
        return 1234


@pytest.fixture
def undrawn(monkeypatch):
    """Without matplotlib, which takes most of the time."""
    monkeypatch.setattr(plots, "missing", lambda: 'pip install "libra-keras[viz]"')


def found_in(scenes, shift=4.0):
    """Every object, twice: a little beside, and far away under the next class."""
    found = []
    for example in scenes.examples:
        labels = np.concatenate([example.labels, (example.labels + 1) % scenes.num_classes])
        boxes = np.concatenate([example.boxes + shift, 5 + example.boxes * 0.2])
        scores = np.linspace(0.9, 0.1, len(labels)).astype("float32")
        found.append(
            {"image_id": example.image_id, "boxes": boxes, "labels": labels, "scores": scores}
        )
    return found


def test_a_page_is_whole_and_needs_nothing_else():
    scenes = data.shapes(8)
    made = page(Model(), Measured(scenes, found_in(scenes)), ORIGIN)
    parts = re.findall(r'<section id="(\w+)">', made)
    assert parts == ["metrics", "classes", "errors", "confusion", "parts", "calibration", "labels"]
    assert made.count("<svg") == 8 and made.count("data:image/jpeg") > 10
    ids = re.findall(r' id="([^"]*)"', made)
    assert len(ids) == len({*ids})
    links = re.findall(r'(?:src|href)="([^"]{1,5})|url\((.)', made)
    assert {start[:1] or inside for start, inside in links} == {"#", "d"}  # "data:"
    assert "http" not in made and "<script" not in made
    expected = evaluation.evaluate_detections(scenes, found_in(scenes))
    assert f"<dt>AP_medium</dt><dd>{expected['AP_medium']:.3f}</dd>" in made


def test_numbers_that_were_measured_are_not_computed_again(undrawn, monkeypatch):
    monkeypatch.setattr(evaluation, "coco_numbers", None)
    scenes = data.shapes(2)
    made = page(Model(), Measured(scenes, found_in(scenes), {"AP": 0.123, "VOC_AP50": 0.5}), ORIGIN)
    assert "<dt>VOC_AP50</dt><dd>0.500</dd>" in made and "0.123" in made


def test_without_matplotlib_a_sentence_stands_in_the_place_of_plots(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    scenes = data.shapes(2)
    made = page(Model(), Measured(scenes, found_in(scenes)), ORIGIN)
    assert "<svg" not in made
    assert made.count("pip install &quot;libra-keras[viz]&quot;") == 3
    assert "data:image/jpeg" in made and "Confusion of classes" in made


def test_a_detector_that_finds_nothing(undrawn):
    scenes = data.shapes(2)
    none = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    found = [{"image_id": example.image_id, **none} for example in scenes.examples]
    made = page(Model(), Measured(scenes, found), ORIGIN)
    assert "The detector found nothing in these images" in made
    assert "no threshold to recommend" in made and "There is no detection." in made
    assert "missed: 6 of" in made


def emptied(scenes, label=None):
    """The same images without the objects of a class, or of any."""
    examples = []
    for e in scenes.examples:
        kept = e.labels != label if label is not None else np.zeros(len(e.labels), bool)
        examples.append(
            Example(
                e.image_id, e.file, e.height, e.width, e.boxes[kept], e.labels[kept], e.ignore[kept]
            )
        )
    annotations = coco_annotations(examples, scenes.class_names)
    return DetectionData(
        "empty", scenes.class_names, scenes.category_ids, examples, annotations, scenes.reader
    )


def test_data_without_objects_and_a_class_without(undrawn):
    scenes = data.shapes(4)
    made = page(Model(), Measured(emptied(scenes), found_in(scenes)), ORIGIN)
    assert "There are no objects to find in these data" in made and "no box to learn from" in made
    assert "There is nothing to find in these data: every detection is wrong." in made
    made = page(Model(), Measured(emptied(scenes, label=0), found_in(scenes)), ORIGIN)
    assert "1 of 6 classes have no object in these data, so they do not enter the means: " in made
    assert "<dt>AP</dt><dd>–" not in made


def test_images_that_are_gone_are_named(undrawn, tmp_path):
    box, label, known = np.array([[5, 5, 40, 40]], "float32"), np.array([0], "int32"), np.zeros(1)
    file = tmp_path / "gone\udce9.jpg"  # Latin-1 on the disk
    example = Example(1, file, 60, 80, box, label, known.astype(bool))
    annotations = coco_annotations([example], ("cat",))
    alone = DetectionData("one", ("cat",), (1,), [example], annotations)
    to = tmp_path / "page.html"
    write_page(to, Model(), Measured(alone, found_in(alone, shift=40)), ORIGIN)
    made = to.read_text(encoding="utf-8")
    assert r"gone\udce9.jpg: [Errno 2] No such file" in made and "data:image" not in made


def test_a_page_of_noise_and_of_long_names_stays_small(undrawn):
    rng = np.random.default_rng(0)
    names = tuple(f"{k}" + '"' * 300 for k in range(300))
    examples = [
        Example(
            i + 1,
            "&" * 200 + f"{i}.jpg",
            200,
            200,
            np.array([[20, 20, 90, 90], [100, 100, 140, 140], [150, 10, 190, 60]], "float32"),
            np.array([i, i + 1, i + 2], "int32"),
            np.zeros(3, bool),
        )
        for i in range(60)
    ]
    noise = rng.integers(0, 255, (200, 200, 3)).astype("uint8")
    annotations = coco_annotations(examples, names)
    many = DetectionData(
        "noise", names, tuple(range(1, 301)), examples, annotations, reader=lambda _: noise
    )
    found = []
    for example in examples:  # errors of all kinds: doubled, moved, renamed, and one not found
        first, second, _ = example.boxes
        boxes = np.stack(
            [first, first + 1, first + 30, second, second + 18, first * 0 + [0, 150, 40, 190]]
        )
        labels = example.labels[[0, 0, 0, 2, 2, 1]]
        scores = np.linspace(0.9, 0.4, 6)
        found.append(
            {"image_id": example.image_id, "boxes": boxes, "labels": labels, "scores": scores}
        )
    made = page(Model(), Measured(many, found), ORIGIN)
    assert made.count("data:image/jpeg") == 36
    assert 2_000_000 < len(made.encode()) < 4_000_000  # plots take half a megabyte


def test_a_region_proposal_network_has_its_recall(undrawn, monkeypatch):
    monkeypatch.setattr(explaining, "RegionProposalNetwork", Model)
    made = page(Model(), Measured(data.shapes(2), [], {"AR@100": 0.75}), ORIGIN)
    assert "<dt>AR@100</dt><dd>0.750</dd>" in made and "knows no classes" in made
    assert re.findall(r'<section id="(\w+)">', made) == ["metrics", "labels"]


def test_where_pages_go(tmp_path):
    own = Origin("mine", folder=RunFolder(tmp_path))
    best = Origin("mine", "best", RunFolder(tmp_path))
    scenes = data.shapes(1)
    assert place(own) == tmp_path / "report.html"
    assert place(best) == tmp_path / "report-best.html"
    assert place(best, scenes).parent == tmp_path and place(best, scenes).name.endswith(
        "-best.html"
    )
    assert re.fullmatch(r"report-[\w.-]+\.html", place(own, scenes).name)
    with pytest.raises(
        ValueError, match="mine is not a run folder: set the report's file with --to FILE"
    ):
        place(ORIGIN, scenes)
    (tmp_path / "report.html").write_text("years of work")
    with pytest.raises(ValueError, match="report.html is no report of libra-keras, and is not"):
        check_page(tmp_path / "report.html")
