"""What TensorFlow's graph of a training step consists of: it fails when a step begins to cost more.

That the backbone is called once and that both forms of images share a trace, test_faster_rcnn.py
counts; JAX's compilations, backends/test_compilations.py.
"""

import keras
import numpy as np
import pytest

from libra_keras.models import libra_faster_rcnn_small
from libra_keras.training import SGD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="graphs are TensorFlow's"),
]
LOOPS = {"If", "StatelessIf", "Case", "While", "StatelessWhile"}
SIDE, OBJECTS = 320, 64


@pytest.fixture(scope="module")
def model():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = libra_faster_rcnn_small(num_classes=3)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(SGD(0.01))
    return model


def graph_of(model, side):
    import tensorflow as tf

    x = {
        "images": tf.TensorSpec((2, side, side, 3), tf.uint8),
        "image_sizes": tf.TensorSpec((2, 2), tf.int32),
    }
    y = {
        "boxes": tf.TensorSpec((2, OBJECTS, 4), tf.float32),
        "labels": tf.TensorSpec((2, OBJECTS), tf.int32),
    }
    step = tf.function(model.train_step, autograph=False)
    return step.get_concrete_function((x, y)).graph


def test_operations_loops_and_casts(model):
    """With sizes of images that are unknown, as runs train. Limits are what there was (TensorFlow
    2.21, Keras 3.15.1) and 5 %, for other versions."""
    import tensorflow as tf

    floats = {dtype.as_datatype_enum for dtype in (tf.float32, tf.bfloat16, tf.float16)}
    graph = graph_of(model, None).as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    casts = [{n.attr["SrcT"].type, n.attr["DstT"].type} for n in nodes if n.op == "Cast"]
    counts = {
        # TensorFlow starts each on its own. `ops.take_along_axis` in place of one gather per choice
        # of rows made 850 more.
        "operations": (len(nodes), 12_845),
        # Each waits for all of its inputs. 44: resizing between levels has a fast way for whole
        # multiples, 22 times with their gradients. Five more: two loops of NMS, attention in blocks
        # and its gradient, the update's condition that all gradients are finite.
        "conditions and loops": (sum(n.op in LOOPS for n in nodes), 49),
        # Weights to bfloat16 and their gradients back, once each; inputs of losses and RoIAlign.
        "casts of floats": (sum(cast <= floats for cast in casts), 211),
    }
    found = {name: count for name, (count, _) in counts.items()}
    assert all(count <= 1.05 * expected for count, expected in counts.values()), found


def test_the_largest_tensor_is_the_pyramid(model):
    """In float32, in which RoIAlign's gradients are summed; the overlaps of 25,575 anchors with the
    objects, four times as large, are never written. Weights do not count."""
    weights = {tuple(v.shape) for v in model.variables}
    sizes = {
        int(np.prod(x.shape)) * x.dtype.size: x
        for operation in graph_of(model, SIDE).get_operations()
        for x in operation.outputs
        if x.shape.is_fully_defined() and tuple(x.shape) not in weights and x.dtype.size
    }
    cells = sum((SIDE // stride) ** 2 for stride in (4, 8, 16, 32))
    assert max(sizes) == 4 * 2 * cells * 48, sizes[max(sizes)]
