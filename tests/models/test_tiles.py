"""Tiles of large images, with a stand-in for the detector that sees what lies in each."""

import types
import warnings

import numpy as np
import pytest

from libra_keras.data import InputPolicy
from libra_keras.models.detect import detect
from libra_keras.models.tiles import Tiling


class Bright:
    """Finds every grey level from 100 on: an object, or the part of one that a tile shows."""

    input_policy, class_names, largest_object = InputPolicy(64, 64), None, None

    def __init__(self):
        self.batches = []

    def heads(self):
        return [types.SimpleNamespace(settings=types.SimpleNamespace(nms_iou=0.5))]

    def predict_on_batch(self, batch):
        self.batches.append(len(batch["images"]))
        found = [
            [(x.min(), y.min(), x.max() + 1, y.max() + 1, level)
             for level in np.unique(image[image >= 100])
             for y, x in [np.nonzero(image[..., 0] == level)]]
            for image in batch["images"]
        ]  # fmt: skip
        rows = np.zeros((len(found), 40, 5), "float32")
        for row, own in zip(rows, found, strict=True):
            row[: len(own)] = np.reshape(own, (-1, 5))
        return {
            "boxes": rows[..., :4],
            "scores": rows[..., 4] / 255,
            "labels": rows[..., 4].astype("int32") % 2,
            "num_detections": np.array([len(own) for own in found]),
        }


@pytest.fixture
def scene(rng):
    """An image of 200 x 300 pixels with 35 objects of up to 11 of them, and their boxes."""
    image, boxes = np.zeros((200, 300, 3), "uint8"), []
    for level, place in enumerate(np.ndindex(5, 7), 120):
        y, x = place[0] * 37 + 5, place[1] * 41 + 3
        height, width = rng.integers(4, 12, 2)
        image[y : y + height, x : x + width] = level
        boxes.append((x, y, x + width, y + height))
    return image, boxes


@pytest.mark.parametrize("length", [10, 64, 65, 200, 1000])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.9])
def test_tiles_cover_an_axis_without_padding(length, overlap):
    starts = [x for x, y in Tiling(64, overlap).corners(1, length)]
    ends = [min(start + 64, length) for start in starts]
    assert starts[0] == 0 and ends[-1] == length
    assert all(end - start == min(64, length) for start, end in zip(starts, ends, strict=True))
    shared = [end - start for end, start in zip(ends, starts[1:], strict=False)]
    assert all(own >= round(64 * overlap) for own in shared)


@pytest.mark.parametrize("overlap", [0.2, 0.5])
def test_objects_on_borders_are_found_once_and_whole(scene, overlap):
    model, (image, boxes) = Bright(), scene
    found = detect(model, image, 0.0, 4, tile=64, overlap=overlap)
    assert sorted(map(tuple, found["boxes"].tolist())) == sorted(boxes)
    assert max(model.batches) == 4 and len(found["names"]) == 35
    assert (np.diff(found["scores"]) <= 0).all()


def test_an_object_longer_than_the_overlap_is_found_in_pieces_and_warned_of():
    image, model = np.zeros((40, 128, 3), "uint8"), Bright()
    image[10:20, 20:110] = 200
    model.largest_object = 90.0
    with pytest.warns(UserWarning, match="has 90 px, and tiles share 13"):
        found = detect(model, image, tile=64)
    assert sorted(found["boxes"][:, [0, 2]].tolist()) == [[20, 64], [51, 110]]
    model.largest_object = 13.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detect(model, image, tile=64)


def test_one_tile_is_the_whole_image(scene):
    image = scene[0][:60, :64]
    whole, tiled = (detect(Bright(), image, 0.0, **own) for own in ({}, {"tile": 64}))
    assert len(whole["boxes"]) > 0
    for key, values in whole.items():
        np.testing.assert_array_equal(values, tiled[key])


def test_an_image_in_which_nothing_is_found():
    assert detect(Bright(), np.zeros((100, 90, 3), "uint8"), tile=32)["boxes"].shape == (0, 4)


@pytest.mark.parametrize("given", [{"tile": 8}, {"tile": 64.5}, {"tile": 64, "overlap": 1}])
def test_tiles_that_cannot_be_are_refused(given):
    with pytest.raises((ValueError, TypeError), match="`(tile|overlap)` must be a "):
        detect(Bright(), np.zeros((100, 90, 3), "uint8"), **given)


def test_scores_below_the_threshold_decide_nothing(monkeypatch):
    """A border cuts the object where it has the higher score."""
    seen = iter([([[40, 0, 64, 20]], [0.95]), ([[4, 0, 28, 20]], [0.3])])

    def found(batch):
        rows = [next(seen) for _ in batch["images"]]
        boxes, scores = (np.array(column, "float32") for column in zip(*rows, strict=True))
        one = np.ones(len(rows), int)
        return {
            "boxes": boxes, "scores": scores, "labels": 0 * one[:, None], "num_detections": one
        }  # fmt: skip

    model = Bright()
    monkeypatch.setattr(model, "predict_on_batch", found, raising=False)
    image = np.zeros((64, 100, 3), "uint8")
    np.testing.assert_allclose(detect(model, image, 0.5, tile=64)["scores"], [0.95])
