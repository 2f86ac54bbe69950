"""Without branches and loops the numbers are the same, or what is left is reported."""

import keras
import numpy as np
import pytest
from conftest import random_boxes
from keras import ops

from libra_keras.functional import control_flow, native
from libra_keras.functional.nms import BLOCK, nms
from libra_keras.functional.resize import adaptive_max_pool, resize_nearest


def search(boxes, scores, groups, rounds, most=60):
    with native.portable(), control_flow.straight_line(rounds) as line:
        found = nms(boxes, scores, 0.5, most, groups)
    left = [ops.convert_to_numpy(count) for count in line.undecided]
    return *(ops.convert_to_numpy(x) for x in found), left


@pytest.mark.portable
@pytest.mark.parametrize("num_boxes", [5, BLOCK, 2 * BLOCK + 30])
def test_rounds_give_what_loops_give(rng, num_boxes):
    boxes = random_boxes(rng, 2, num_boxes, height=30.0, width=40.0)
    scores = rng.uniform(size=(2, num_boxes)).astype("float32")
    groups = rng.integers(0, 2, (2, num_boxes))
    indices, kept, none = search(boxes, scores, groups, rounds=None)
    assert none == []
    *found, left = search(boxes, scores, groups, rounds=20)
    assert len(left) == -(-num_boxes // BLOCK) and not np.any(left)
    np.testing.assert_array_equal(found[0], indices)
    np.testing.assert_array_equal(found[1], kept)


def test_what_is_left_is_counted_by_image():
    # Each box overlaps the next alone: the rounds find the first, the third, the fifth...
    chain = np.arange(12, dtype="float32")[:, None] * (0, 2.5, 0, 2.5) + (0, 0, 9, 9)
    boxes = np.stack([chain, chain + np.arange(12)[:, None] * 100]).astype("float32")
    scores = np.tile(np.linspace(1, 0.5, 12, dtype="float32"), (2, 1))
    *_, (left,) = search(boxes, scores, None, rounds=3)
    assert left.shape == (2,) and left[0] > 0 and left[1] == 0  # apart: the second has no overlaps
    _, kept, (left,) = search(boxes, scores, None, rounds=13)
    assert left.tolist() == [0, 0] and kept.sum(axis=1).tolist() == [6, 12]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs sizes that are unknown")
@pytest.mark.parametrize("size", [(4, 6), (8, 12), (3, 5), (16, 24)])
def test_resizing_needs_no_branch(rng, size):
    import tensorflow as tf

    x = rng.normal(size=(1, 8, 12, 2)).astype("float32")
    for function in (resize_nearest, adaptive_max_pool):

        @tf.function(
            input_signature=[tf.TensorSpec((1, None, None, 2)), tf.TensorSpec((2,), "int32")]
        )
        def resized(x, size, function=function):
            return function(x, (size[0], size[1]))

        with control_flow.straight_line():
            graph = resized.get_concrete_function().graph
        kinds = {node.op for node in graph.as_graph_def().node}
        assert not kinds & {"If", "StatelessIf", "While", "StatelessWhile"}
        np.testing.assert_array_equal(resized(x, np.int32(size)), function(x, size))


def test_refusal():
    with pytest.raises(ValueError, match="positive"), control_flow.straight_line(0):
        pass
    assert control_flow.active() is None
