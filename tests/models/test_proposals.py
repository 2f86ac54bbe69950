import keras
import numpy as np
import pytest
from conftest import random_boxes
from keras import ops

from libra_keras.models import RPNSettings
from libra_keras.models.proposals import select_proposals

SIZES = np.array([[48, 64], [32, 32]], "int32")


def select(logits, anchors, pre_nms=4, deltas=None, **settings):
    """Runs on levels given as lists of `(B, N)` logits and `(N, 4)` anchors; no shift at all."""
    if deltas is None:
        deltas = [np.zeros((*level.shape, 4), "float32") for level in logits]
    result = select_proposals(logits, deltas, anchors, SIZES, RPNSettings(**settings), pre_nms)
    return [ops.convert_to_numpy(part) for part in result]


def test_two_levels_by_hand():
    fine = np.array([[0, 0, 16, 16], [0, 1, 16, 17], [40, 8, 48, 16]], "float32")
    coarse = np.array([[0, 0, 16, 16]], "float32")
    logits = [np.array([[2.0, 3.0, 0.0]] * 2, "float32"), np.array([[1.0]] * 2, "float32")]
    boxes, scores, mask = select(logits, [fine, coarse], post_nms=6)
    # the second fine box beats the first (IoU 15/17 > 0.7); the coarse one is another level
    assert boxes[0, :3].tolist() == [[0, 1, 16, 17], [0, 0, 16, 16], [40, 8, 48, 16]]
    np.testing.assert_allclose(scores[0, :3], 1 / (1 + np.exp([-3.0, -1.0, 0.0])), rtol=1e-5)
    assert mask[0].tolist() == [True] * 3 + [False] * 3
    # the third fine box lies right of the second image, 32 pixels wide
    assert mask[1].tolist() == [True] * 2 + [False] * 4


def test_only_the_best_enter_and_leave(rng):
    anchors = np.array([[8 * i, 0, 8 * i + 8, 8] for i in range(8)], "float32")  # no overlaps
    logits = np.arange(8, dtype="float32")[None].repeat(2, 0)
    boxes, _, mask = select([logits], [anchors], pre_nms=3, post_nms=2)
    assert mask[0].tolist() == [True, True]
    assert boxes[0, :, 0].tolist() == [56, 48]


def test_padding_is_empty(rng):
    anchors = random_boxes(rng, 5, height=30, width=30)
    boxes, scores, mask = select([rng.normal(size=(2, 5)).astype("float32")], [anchors], post_nms=9)
    assert not boxes[~mask].any() and not scores[~mask].any()
    assert mask.shape == (2, 4)  # pre_nms limits what can leave


def test_without_any_usable_anchor():
    outside = np.array([[-40, -40, -8, -8]], "float32")
    boxes, scores, mask = select([np.ones((2, 1), "float32")], [outside])
    assert not mask.any() and np.isfinite(boxes).all() and not scores.any()


@pytest.mark.slow
def test_result_does_not_depend_on_unknown_sizes(rng):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces sizes that it does not know")
    import tensorflow as tf

    anchors = random_boxes(rng, 40, height=48, width=64)
    logits, deltas = rng.normal(size=(2, 40)), rng.normal(size=(2, 40, 4)) * 0.1
    arrays = [a.astype("float32") for a in (logits, deltas, anchors)]

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None)),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, 4)),
        ]
    )
    def traced(logits, deltas, anchors):
        settings = RPNSettings(post_nms=10)
        result = select_proposals([logits], [deltas], [anchors], SIZES, settings, 50)
        assert result.boxes.shape[1:] == (10, 4)
        return result.boxes

    expected = select([arrays[0]], [arrays[2]], 50, [arrays[1]], post_nms=10)[0]
    np.testing.assert_allclose(traced(*arrays).numpy(), expected, atol=1e-4)
