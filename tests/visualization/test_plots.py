"""Plots as SVG: in the page's ink, harmless whatever a class is called, with ids of their own."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from libra_keras.visualization import plots

AXES = ("score", "share")
NAMESPACE = '<svg xmlns:xlink="http://www.w3.org/1999/xlink"'


def texts(svg):
    """All text of a plot; raises where it is no XML."""
    root = ElementTree.fromstring(svg.replace("<svg", NAMESPACE, 1))
    return [element.text for element in root.iter("text")]


def test_names_of_classes_stand_as_they_are():
    names = ['<script>"</script>', '"&', "$a$ and $", "_hidden", "猫", "x" * 99]
    said = texts(plots.lines({name: ([0, 1], [0, 1]) for name in names}, AXES, (0, 1), "ideal"))
    assert {'<script>"</script>', '"&', "$a$ and $", "\u200b_hidden", "猫", "ideal"} <= {*said}
    assert "x" * 23 + "…" in said


def test_nothing_is_fetched_and_ids_are_unique():
    line = {"a": ([1, 2, 3], [0.5, None, float("nan")])}
    both = [plots.lines(line, AXES), plots.lines(line, AXES), plots.heat([[1, 0], [0, 0]])]
    ids = [re.findall(r' id="([^"]*)"', svg) for svg in both]
    assert len({*sum(ids, [])}) == len(sum(ids, []))
    for svg, own in zip(both, ids, strict=True):
        used = re.findall(r'(?:url\(#|href="#)([^")]*)', svg)
        assert used and {*used} <= {*own}
        assert "http" not in svg and "<style" not in svg and plots.INK not in svg
        assert "currentColor" in svg and len(svg) < 20_000


def test_bars_stand_at_their_places():
    assert {"2", "8", "objects"} <= {
        *texts(plots.histogram([2.0, 4.0, 8.0], [1, 3], ("side", "objects"), is_log=True))
    }
    assert {"1", "2-4", "images"} <= {*texts(plots.bars(["1", "2-4"], [3, 0], ("n", "images")))}
    assert "<svg" in plots.heat([[0.0, 0.0], [0.0, 0.0]])  # no object


def test_more_lines_than_colours_and_none(monkeypatch):
    many = {str(k): ([0, 1], [0, k]) for k in range(20)}
    assert {"0", "19"} <= {*texts(plots.lines(many, AXES))}
    assert "<svg" in plots.lines({}, AXES)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "libra-keras\[viz\]"'):
        plots.lines(many, AXES)
