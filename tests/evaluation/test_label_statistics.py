import dataclasses
import json

import numpy as np
import pytest
from conftest import random_boxes
from keras import ops

from libra_keras import data as readers
from libra_keras.data import DetectionData, Example, InputPolicy
from libra_keras.evaluation import Anchors, label_statistics
from libra_keras.evaluation.anchor_fit import best_anchors
from libra_keras.functional.anchors import pyramid_anchors
from libra_keras.functional.roi_align import roi_levels

ANCHORS = Anchors(strides=(4, 8, 16, 32, 64), scales=(8,), ratios=(0.5, 1, 2))


def drawn(*images, size=(100, 200), names=("a", "b")):
    """`images`: lists of (label, x1, y1, x2, y2), or of five and whether it is ignored."""
    examples = []
    for i, rows in enumerate(images, 1):
        boxes = np.array([row[1:5] for row in rows], "float32").reshape(-1, 4)
        labels = np.array([row[0] for row in rows], "int32")
        ignore = np.array([len(row) > 5 for row in rows], bool)
        examples.append(Example(i, f"{i}.jpg", *size, boxes, labels, ignore))
    return DetectionData("drawn", names, (1, 2)[: len(names)], examples, {})


def test_statistics_by_hand():
    # Images of 100 x 200 pixels, which the model sees at 2 times their size.
    first = [(0, 0, 0, 40, 10), (0, 190, 90, 200, 100), (1, 50, 0, 150, 100, "ignored")]
    data = drawn(first, [], [(0, 0, 0, 100, 100)])
    statistics = label_statistics(data, InputPolicy(200, 400), roi_levels=4)
    counts = {name: statistics[name] for name in ("images", "objects", "ignored", "empty_images")}
    assert counts == {"images": 3, "objects": 3, "ignored": 1, "empty_images": 1}
    assert statistics["classes"] == [
        {"name": "a", "objects": 3, "images": 2},
        {"name": "b", "objects": 0, "images": 0},
    ]
    assert statistics["an_image"]["counts"][:3] == [1, 1, 1]  # 0, 1, 2 to 4
    # Sides 10 (of the second), 20 (root of 40 x 10) and 100; in the input twice that.
    for name, factor in (("sides", 1), ("input_sides", 2)):
        percentiles = statistics[name]["percentiles"]
        values = [percentiles[at] for at in ("0", "50", "100")]
        assert values == pytest.approx([10 * factor, 20 * factor, 100 * factor])
        assert sum(statistics[name]["counts"]) == 3
    assert statistics["ratios"]["percentiles"]["0"] == pytest.approx(10 / 40)
    # Centres (20, 5), (195, 95), (50, 50): shares of 200 and 100, in 16 parts.
    centres = np.array(statistics["centres"])
    cells = {(0, 1): 1 / 3, (15, 15): 1 / 3, (8, 4): 1 / 3}
    assert centres.sum() == pytest.approx(1) and all(centres[c] == s for c, s in cells.items())
    # Sides of 20, 40 and 200 pixels: below 112 the finest level, below 224 the next.
    assert statistics["roi_levels"] == [2, 1, 0, 0]
    assert (statistics["anchors"], statistics["advice"]) == (None, [])


def test_levels_are_those_that_a_second_stage_pools_from(rng):
    boxes = random_boxes(rng, 1, 300, height=1000.0, width=1000.0)
    data = drawn([(0, *box) for box in boxes[0].tolist()], size=(1000, 1000))
    levels = ops.convert_to_numpy(roi_levels(boxes, num_levels=4))[0]
    statistics = label_statistics(data, InputPolicy(1000, 1000), roi_levels=4)
    assert statistics["roi_levels"] == np.bincount(levels, minlength=4).tolist()


def test_the_best_anchor_is_the_best_of_all_cells(rng):
    boxes = np.concatenate([
        random_boxes(rng, 60, height=160.0, width=224.0, smallest=side) for side in (2.0, 90.0)
    ]).astype("float64")  # fmt: skip
    anchors = Anchors(strides=(8, 16, 64), scales=(2, 3), ratios=(0.5, 1, 2))
    cells = [(20, 28), (10, 14), (3, 4)]  # of 160 x 224 pixels
    levels = pyramid_anchors(cells, anchors.strides, anchors.scales, anchors.ratios)
    levels = [np.asarray(ops.convert_to_numpy(level), "float64") for level in levels]
    places = np.concatenate([np.arange(len(level)) % 6 + 6 * i for i, level in enumerate(levels)])
    every = np.concatenate(levels)[None]
    ends = np.minimum(boxes[:, None, 2:], every[..., 2:])
    shared = np.prod(np.maximum(ends - np.maximum(boxes[:, None, :2], every[..., :2]), 0), -1)
    areas = [np.prod(each[..., 2:] - each[..., :2], -1) for each in (boxes[:, None], every)]
    iou = shared / (areas[0] + areas[1] - shared)
    best, overlap = best_anchors(boxes, np.tile([160, 224], (len(boxes), 1)), anchors)
    assert overlap == pytest.approx(iou.max(-1), abs=1e-5)
    of_shape = [iou[i, places == shape].max() for i, shape in enumerate(best)]
    assert of_shape == pytest.approx(iou.max(-1), abs=1e-5)


def test_small_objects_get_advice():
    # 20 x 20 pixels around a cell of the finest level, whose anchor has 32 x 32: IoU 400 / 1024 =
    # 0.39. In an input of 1.5 times the size (from 128 to 192 pixels) it is 900 / 1024.
    data = drawn([(0, 54, 54, 74, 74)] * 9 + [(0, 0, 0, 128, 128)], size=(128, 128))
    statistics = label_statistics(data, InputPolicy(128, 128), ANCHORS)
    fit = statistics["anchors"]
    assert [row["objects"] for row in fit["best"] if (row["stride"], row["ratio"]) == (4, 1)] == [9]
    shares = [(each["short_side"], each["below_0.3"], each["below_0.5"]) for each in fit["inputs"]]
    assert shares == [(128, 0, 0.9), (192, 0, 0), (256, 0, 0)]
    assert statistics["advice"] == [
        "90% of the objects are smaller than the finest anchors (32 pixels) and overlap none by "
        "half: their median side is 20 pixels in the input. The objects that overlap none by half, "
        "now 90%, would be 0% with --short-side 192 --long-side 192 and 0% with --short-side 256 "
        "--long-side 256; or give the anchors a smaller scale"
    ]


def test_large_and_long_objects_get_advice():
    large = drawn([(0, 0, 0, 1000, 1000)], size=(1000, 1000))
    few = dataclasses.replace(ANCHORS, strides=(4, 8))
    (line,) = label_statistics(large, InputPolicy(1000, 1000), few)["advice"]
    assert line.startswith("100% of the objects are larger than the coarsest anchors (64 pixels)")
    long = drawn([(0, 0, 0, 10, 200)], size=(200, 200))
    (line,) = label_statistics(long, InputPolicy(200, 200), ANCHORS)["advice"]
    assert "for nine in ten of them, height over width is 20 to 20" in line


def test_data_without_objects_or_images():
    for data in (drawn([]), drawn([(0, 0, 0, 9, 9, "ignored")]), drawn()):
        statistics = label_statistics(data, InputPolicy(64, 128), ANCHORS, roi_levels=4)
        assert statistics["objects"] == 0 and statistics["sides"]["percentiles"]["50"] is None
        assert (statistics["anchors"], statistics["advice"]) == (None, [])
        json.dumps(statistics, allow_nan=False)


def test_photographs(photographs):
    cells = readers.voc(photographs("bccd"), "test")
    statistics = label_statistics(cells, InputPolicy(480, 640), ANCHORS, roi_levels=4)
    assert statistics["objects"] == 945 == sum(statistics["roi_levels"])
    assert sum(row["objects"] for row in statistics["anchors"]["best"]) == 945
    json.dumps(statistics, allow_nan=False)
