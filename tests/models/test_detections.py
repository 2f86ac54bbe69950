"""Detections of a second stage, and those of a one-stage detector, which are called dense."""

import keras
import numpy as np
import pytest
from conftest import random_boxes
from keras import ops

from libra_keras.functional import native
from libra_keras.models import BoxHeadSettings, RetinaHeadSettings
from libra_keras.models.detections import select_dense_detections, select_detections
from libra_keras.models.proposals import Proposals

SIZES = np.array([[64, 64]], "int32")


def select(scores, boxes, deltas=None, mask=None, **settings):
    """Detections for class scores `(N, K)` of one image; the background gets the rest."""
    scores, boxes = np.asarray(scores, "float32"), np.asarray(boxes, "float32")
    logits = np.log(np.concatenate([scores, 1 - scores.sum(1, keepdims=True)], 1))[None]
    if deltas is None:
        deltas = np.zeros((1, *scores.shape, 4), "float32")
    mask = np.ones((1, len(boxes)), bool) if mask is None else np.array([mask])
    proposals = Proposals(boxes[None], np.ones((1, len(boxes)), "float32"), mask)
    found = select_detections(logits, deltas, proposals, SIZES, BoxHeadSettings(**settings))
    return {key: ops.convert_to_numpy(value)[0] for key, value in found.items()}


def test_by_hand():
    boxes = [[0, 0, 10, 10], [0, 1, 10, 11], [30, 30, 70, 50]]
    scores = [[0.6, 0.3], [0.7, 0.02], [0.04, 0.9]]
    found = select(scores, boxes, max_detections=5)
    # class 0: box 1 beats box 0 (IoU 9/11); class 1: box 2, clipped to the image, and box 0;
    # 0.02 and 0.04 do not pass the threshold of 0.05
    assert found["num_detections"] == 3
    assert found["labels"].tolist() == [1, 0, 1, -1, -1]
    np.testing.assert_allclose(found["scores"], [0.9, 0.7, 0.3, 0, 0], atol=1e-6)
    expected = [[30, 30, 64, 50], [0, 1, 10, 11], [0, 0, 10, 10]]
    np.testing.assert_allclose(found["boxes"][:3], expected, atol=1e-4)
    assert not found["boxes"][3:].any()


def test_each_class_moves_its_own_box():
    deltas = np.zeros((1, 1, 2, 4), "float32")
    deltas[0, 0, 1, 0] = 5.0  # times std 0.1 times width 10: class 1 moves right by 5 pixels
    found = select([[0.5, 0.4]], [[0, 0, 10, 10]], deltas)
    np.testing.assert_allclose(found["boxes"][:2, 0], [0, 5], atol=1e-4)


def test_padded_proposals_detect_nothing():
    found = select([[0.9], [0.8]], [[0, 0, 9, 9], [20, 20, 30, 30]], mask=[False, True])
    assert found["num_detections"] == 1 and found["boxes"][0, 0] == 20


def test_nothing_above_the_threshold():
    found = select([[0.01]], [[0, 0, 9, 9]], max_detections=3)
    assert found["num_detections"] == 0 and found["labels"].tolist() == [-1] * 3


def test_best_detections_of_many():
    boxes = [[6 * i, 0, 6 * i + 5, 5] for i in range(10)]
    scores = np.linspace(0.1, 0.9, 10)[:, None]
    found = select(scores, boxes, max_detections=4, max_candidates=6)
    assert found["boxes"][:, 0].round().tolist() == [54, 48, 42, 36]


def select_dense(levels, deltas=None, sizes=SIZES, **settings):
    """Detections of levels given as pairs of scores `(N, K)` and anchors `(N, 4)`."""
    scores = [np.asarray(scores, "float64") for scores, _ in levels]
    anchors = [np.asarray(anchors, "float32") for _, anchors in levels]
    logits = [np.log(p / (1 - p)).astype("float32")[None] for p in scores]
    deltas = deltas or [np.zeros((1, len(a), 4), "float32") for a in anchors]
    settings = RetinaHeadSettings(**{"pre_nms": 20, "max_detections": 10, **settings})
    with native.portable():  # compilation would take a second for every new shape
        found = select_dense_detections(logits, deltas, anchors, sizes, settings)
    return {key: ops.convert_to_numpy(value)[0] for key, value in found.items()}


def test_dense_by_hand():
    fine = (
        [[0.6, 0.3], [0.7, 0.02], [0.04, 0.9]],
        [[0, 0, 10, 10], [0, 1, 10, 11], [30, 30, 70, 50]],
    )
    coarse = [[0.5, 0.1]], [[0, 0, 10, 10]]
    found = select_dense([fine, coarse], max_detections=5)
    # class 0: fine box 1 beats fine box 0 and the coarse one (IoU 9/11), for levels do not matter;
    # class 1: box 2, clipped to the image, and box 0, which beats the coarse one;
    # 0.02 and 0.04 do not pass the threshold of 0.05
    assert found["num_detections"] == 3
    assert found["labels"].tolist() == [1, 0, 1, -1, -1]
    np.testing.assert_allclose(found["scores"], [0.9, 0.7, 0.3, 0, 0], atol=1e-6)
    expected = [[30, 30, 64, 50], [0, 1, 10, 11], [0, 0, 10, 10]]
    np.testing.assert_allclose(found["boxes"][:3], expected, atol=1e-4)
    assert not found["boxes"][3:].any()


def test_pairs_of_anchor_and_class_compete_within_their_level():
    fine = [[0.9, 0.8], [0.7, 0.1]], [[0, 0, 9, 9], [20, 0, 29, 9]]
    coarse = [[0.2, 0.1], [0.3, 0.1]], [[0, 30, 9, 39], [40, 40, 60, 60]]
    found = select_dense([fine, coarse], pre_nms=2, max_detections=6)
    # two pairs of each level: both classes of one anchor above, two anchors below
    np.testing.assert_allclose(found["scores"], [0.9, 0.8, 0.3, 0.2, 0, 0], atol=1e-6)
    assert found["labels"].tolist() == [0, 1, 0, 0, -1, -1]


def test_the_best_pairs_are_those_of_all_pairs(rng):
    scores = rng.uniform(0.06, 0.95, (40, 5))
    anchors = np.array([[6 * i, 0, 6 * i + 5, 5] for i in range(40)], "float32")
    found = select_dense(
        [(scores, anchors)], sizes=np.array([[64, 300]]), pre_nms=30, max_detections=40
    )
    best = np.argsort(-scores, axis=None)[:30]
    assert found["num_detections"] == 30
    np.testing.assert_allclose(found["scores"][:30], scores.ravel()[best], atol=1e-6)
    assert found["labels"][:30].tolist() == (best % 5).tolist()
    np.testing.assert_allclose(found["boxes"][:30, 0], 6 * (best // 5), atol=1e-3)


def test_deltas_move_the_anchors():
    deltas = np.zeros((1, 1, 4), "float32")
    deltas[0, 0] = [0.5, 0, np.log(2), 0]  # half a width to the right, and twice as wide
    found = select_dense([([[0.9]], [[20, 20, 30, 40]])], [deltas])
    np.testing.assert_allclose(found["boxes"][0], [20, 20, 40, 40], atol=1e-4)
    deltas = [deltas / np.array([0.1, 0.1, 0.2, 0.2], "float32")]
    found = select_dense([([[0.9]], [[20, 20, 30, 40]])], deltas, stds=(0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(found["boxes"][0], [20, 20, 40, 40], atol=1e-4)


def test_nothing_dense_is_detected_beside_the_image_or_below_the_threshold():
    found = select_dense([([[0.9], [0.05]], [[70, 0, 90, 20], [0, 0, 9, 9]])], max_detections=3)
    assert found["num_detections"] == 0 and found["labels"].tolist() == [-1] * 3
    assert not found["boxes"].any() and not found["scores"].any()


@pytest.mark.slow
def test_result_does_not_depend_on_unknown_sizes(rng):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces sizes that it does not know")
    import tensorflow as tf

    settings = RetinaHeadSettings(pre_nms=50, max_detections=10)
    anchors = random_boxes(rng, 30, height=48, width=64)
    logits, deltas = rng.normal(size=(1, 30, 3)), rng.normal(size=(1, 30, 4)) * 0.1
    arrays = [a.astype("float32") for a in (logits, deltas, anchors)]

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 3)),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, 4)),
        ]
    )
    def traced(logits, deltas, anchors):
        found = select_dense_detections([logits], [deltas], [anchors], SIZES, settings)
        assert found["boxes"].shape[1:] == (10, 4)
        return found

    with native.portable():
        expected = select_dense_detections(*([a] for a in arrays), SIZES, settings)
        found = traced(*arrays)
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4)
