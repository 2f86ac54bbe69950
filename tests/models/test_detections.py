import numpy as np
from keras import ops

from libra_keras.models import BoxHeadSettings
from libra_keras.models.detections import select_detections
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
