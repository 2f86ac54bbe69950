"""Sections of a report, from numbers that are written by hand."""

import math
import re
from html.parser import HTMLParser

import pytest

from libra_keras.visualization import plots
from libra_keras.visualization.page import labels, mistakes, quality, training
from libra_keras.visualization.page.elements import Markup, element, facts, markup, table
from libra_keras.visualization.page.frame import Section, document, is_own

EVIL = '<script>alert("&")</script>'
COSTS = {kind: {"count": 3, "delta_ap50": 0.01} for kind in (*mistakes.KINDS, *mistakes.WHOLE)} | {
    "missed": {"count": 7, "delta_ap50": 0.25}
}


class Tags(HTMLParser):
    """Checks that what is opened is closed, and collects the names of the elements."""

    VOID = {"meta", "link", "img", "path", "use", "rect", "image"}

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def undrawn(monkeypatch):
    """Without matplotlib, which takes most of the time."""
    monkeypatch.setattr(plots, "missing", lambda: 'pip install "libra-keras[viz]"')


def test_whatever_is_text_is_escaped_and_short():
    cells = [EVIL, Markup("<b>ours</b>"), 3, "x" * 500]
    for made in (
        table([EVIL], [cells]),
        facts({EVIL: EVIL}),
        element("p", EVIL, title=EVIL),
        document(EVIL, markup(EVIL), [Section("a", EVIL, markup(EVIL))]),
    ):
        assert "script" not in Tags(made).seen
    assert "<b>ours</b>" in table(["a"], [cells]) and "x" * 99 not in table(["a"], [cells])


def test_a_page_knows_its_own(tmp_path):
    page, other = tmp_path / "report.html", tmp_path / "thesis.html"
    page.write_text(document("mine", markup(""), []))
    other.write_text("<html>years of work</html>")
    assert is_own(page) and not is_own(other)


def test_metrics_without_a_value_are_dashes():
    body = quality.summary({"AP": 0.5, "AP_small": math.nan, "AP/cat": 0.5}, ["Mind this."]).body
    assert "0.500" in body and "<dd>–</dd>" in body and "Mind this." in body
    assert "AP/cat" not in body  # it has a row below


def curve(best):
    return {"precision": [0.5] * 2, "recall": [1.0, 0.5], "f1": [0.6, None], "best": best}


def test_classes_with_their_thresholds(undrawn):
    best = {"threshold": 0.62, "f1": 0.8, "precision": 0.75, "recall": 0.86}
    curves = {"recall": [0, 1], "precision": [[1.0, 0.5], [None, None]], "mean": [1.0, 0.5]}
    f1 = {"thresholds": [0, 0.5], "classes": [curve(best), curve(None)], "all": curve(best)}
    body = quality.by_class([EVIL, "dog"], [9, 0], {f"AP/{EVIL}": 0.4}, curves, f1).body
    assert "a score of at least 0.62: 75% of them are right, and they find 86%" in body
    assert ">0.400<" in body and ">0.750<" in body  # AP; AP50, the mean of the curve
    assert "script" not in Tags(body).seen and "pip install" in body
    f1 |= {"classes": [curve(None)] * 2, "all": curve(None)}
    assert "no threshold to recommend" in quality.by_class(["a", "b"], [0, 0], {}, curves, f1).body


def test_classes_called_mean_and_all_hide_no_curve(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "lines", lambda lines, *_: drawn.append(len(lines)) or "")
    curves = {"recall": [0, 1], "precision": [[1.0, 0.5]] * 2, "mean": [1.0, 0.5]}
    f1 = {"thresholds": [0, 0.5], "classes": [curve(None)] * 2, "all": curve(None)}
    quality.by_class(["mean", "all"], [1, 1], {}, curves, f1)
    assert drawn == [3, 3]


def test_confusion_of_few_and_of_many_classes():
    found = {"threshold": 0.5, "counts": [[6, 3, 1], [0, 8, 2], [4, 0, 0]]}
    body = quality.confusion(found, [EVIL, "dog"]).body
    assert "3 of 10 objects (30%)" in body and "not found" in body
    assert "script" not in Tags(body).seen
    counts = [[5 * (i == j) for j in range(31)] for i in range(31)]
    counts[2][4] = 3
    many = quality.confusion({"threshold": 0.5, "counts": counts}, [f"c{i}" for i in range(30)])
    assert "taken for" in many.body and many.body.count("<tr>") == 2 and ">38%<" in many.body
    counts[2][4] = 0
    none = quality.confusion({"threshold": 0.5, "counts": counts}, [f"c{i}" for i in range(30)])
    assert "No object was taken for one of another class" in none.body


def test_the_costliest_kind_is_named_and_pictures_stand_by_kind():
    pictures = [
        mistakes.Picture("missed", EVIL, "missed", EVIL, b"\xff\xd8", ""),
        mistakes.Picture("class", "cat", "0.9", "gone.jpg", None, "No such file: <gone>"),
    ]
    body = mistakes.errors(0.5, COSTS, pictures).body
    assert "The most costly kind is “missed”: fixing only these 7 errors would give 0.750" in body
    assert "script" not in Tags(body).seen
    assert "data:image/jpeg;base64,/9g=" in body
    assert "gone.jpg: No such file: &lt;gone&gt;" in body and "missed: 1 of 7" in body
    nothing = {kind: {"count": 0, "delta_ap50": None} for kind in COSTS}
    assert "nothing to find" in mistakes.errors(None, nothing, []).body
    free = {kind: {"count": 0, "delta_ap50": 0.0} for kind in COSTS}
    assert "no kind of error costs" in mistakes.errors(1.0, free, []).body


def test_calibration_says_in_which_direction(undrawn):
    empty = {"low": 0.0, "high": 0.1, "count": 0, "score": None, "precision": None}
    full = {"low": 0.9, "high": 1.0, "count": 4, "score": 0.95, "precision": 0.5}
    body = quality.calibration({"bins": [empty, full], "expected_error": 0.45}).body
    assert "mean score of 0.95, and 50% of them" in body
    assert "promise more than they deliver" in body
    low = {"bins": [{**full, "score": 0.2}], "expected_error": 0.3}
    assert "promise less than they deliver" in quality.calibration(low).body
    assert "no detection" in quality.calibration({"bins": [empty], "expected_error": None}).body


def test_curves_of_a_training(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "lines", lambda lines, axes: drawn.append((lines, axes)) or "<svg/>")
    losses = {"box_loss": [(20, 2.0), (40, 1.0)], "loss": [(step, 3.0) for step in range(900)]}
    body = training.training("step", {"loss": losses}, ["Epoch 1: the loss is odd"]).body
    assert "Epoch 1: the loss is odd" in body and ">Loss<" in body
    lines, axes = drawn[0]
    assert list(lines) == ["loss", "box_loss"] and axes == ("step", "")
    assert lines["box_loss"] == ((20, 40), (2.0, 1.0)) and lines["loss"][0][:2] == (0, 3)
    assert "no log" in training.training("step", {}, []).body


def test_labels_that_are_none():
    statistics = {"images": 3, "empty_images": 3, "objects": 0, "ignored": 2}
    body = labels.labels(statistics).body
    assert "There is no box to learn from." in body and Tags(body).seen


def test_of_many_classes_the_worst_come_first(undrawn):
    names = [f"class {k}" for k in range(30)]
    best = {"threshold": 0.5, "f1": 0.5, "precision": 0.5, "recall": 0.5}
    curves = {"recall": [0, 1], "precision": [[1.0, 0.5]] * 30, "mean": [1.0, 0.5]}
    f1 = {"thresholds": [0, 0.5], "classes": [curve(best)] * 30, "all": curve(best)}
    metrics = {f"AP/{name}": 1 - k / 30 for k, name in enumerate(names)}
    body = quality.by_class(names, [1] * 30, metrics, curves, f1).body
    first, _, others = body.partition("<summary>All classes")
    assert re.findall(r"class \d+", first) == [f"class {k}" for k in range(29, 19, -1)]
    assert re.findall(r"class \d+", others) == names
