"""Without branches the numbers are the same, and operations of a runtime replace loops."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.functional import control_flow, native
from libra_keras.functional.control_flow import Operations
from libra_keras.functional.nms import nms
from libra_keras.functional.resize import adaptive_max_pool, resize_nearest


@pytest.mark.portable
def test_an_operation_takes_the_place_of_loops(rng):
    """If it can: it asks for the number of groups."""
    seen = []

    def suppress(boxes, groups, valid, iou_threshold, max_output, num_groups):
        seen.append(num_groups)
        return valid

    def count(**given):
        boxes = [[[0.0, 0.0, 9.0, 9.0]] * 3]
        with native.portable(), control_flow.straight_line(Operations(suppress)):
            _, kept = nms(boxes, [[0.9, 0.8, 0.7]], 0.5, max_output=3, **given)
        return ops.convert_to_numpy(kept).sum()

    groups = [[1, 1, 0]]
    assert count() == count(groups=groups, num_groups=2) == 3
    assert count(groups=groups) == 2  # by loops
    assert seen == [None, 2] and control_flow.active() is None


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
