"""The graph of a detector: which operations and weights it holds, and its numbers."""

import numpy as np
import pytest
from untrained import make

from libra_keras.backbones import ConvBatchNorm
from libra_keras.models.fast_rcnn import given_proposals

tf = pytest.importorskip("tensorflow")
traced = pytest.importorskip("libra_keras.export.network")
options = pytest.importorskip("libra_keras.export.options")

# What every runtime of neural networks has: arithmetic, shapes, gathering, sorting, loops.
PORTABLE = set(
    """Abs AddV2 All Any AvgPool BatchMatMulV2 BiasAdd BroadcastTo Cast Ceil ConcatV2 Const
    Conv2D Cumsum Equal Exp ExpandDims Fill Floor FloorDiv FloorMod GatherV2 Greater
    GreaterEqual Identity IdentityN Less LessEqual Log LogicalAnd LogicalNot LogicalOr MatMul
    Max MaxPool Maximum Min Minimum Mul Neg NoOp NotEqual Pack Pad PadV2 Placeholder Range
    ReadVariableOp RealDiv Relu Reshape Round Rsqrt SelectV2 Shape Sigmoid Size Softmax Split
    Sqrt Square Squeeze StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum
    TensorScatterUpdate Tile TopKV2 Transpose Unpack Where ZerosLike""".split()
)
NAMES = ["libra_faster_rcnn_small", "fast_rcnn_small", "retinanet_small", "rpn_small"]


def batch(model):
    rng = np.random.default_rng(0)
    x = {
        "images": rng.integers(0, 255, (2, 64, 96, 3)).astype("uint8"),
        "image_sizes": np.array([[64, 96], [50, 96]], "int32"),
    }
    if "proposals" in model.INPUTS:
        boxes = [[[4, 4, 40, 30], [50, 10, 90, 60]], [[8, 8, 60, 40], [0, 0, 0, 0]]]
        x["proposals"] = np.array(boxes, "float32")
    return x


def all_nodes(graph):
    """The nodes of a graph and of all functions that it calls."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    return [*definition.node, *(node for function in functions for node in function.node_def)]


@pytest.mark.parametrize(
    ("name", "sampling_ratio"), [("fast_rcnn_small", 0), *((name, 2) for name in NAMES)]
)
@pytest.mark.slow
def test_numbers_operations_and_weights(name, sampling_ratio):
    model = make(name, eager=True)
    if hasattr(model, "box_head"):
        model.box_head.roi_align.sampling_ratio = sampling_ratio
    before = [np.array(weight) for weight in model.weights]
    run = traced.network(model)
    x = batch(model)
    found = run(**{key: tf.constant(value) for key, value in x.items()})
    expected = model.predict_on_batch(x)
    assert set(found) == set(expected) == set(model.OUTPUTS)
    assert expected["boxes"].any()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-2, err_msg=key)

    [graph] = [function.graph for function in run._list_all_concrete_functions()]
    assert {node.op for node in all_nodes(graph)} <= PORTABLE
    assert not any("_XlaMustCompile" in node.attr for node in all_nodes(graph))

    folded = [layer for layer in model._flatten_layers() if isinstance(layer, ConvBatchNorm)]
    statistics = sum(3 * layer.filters for layer in folded)  # gamma, mean and variance
    stored = sum(np.prod(variable.shape) for variable in graph.variables)
    others = sum(np.prod(v.shape) for v in model.non_trainable_weights if v.dtype != "float32")
    assert folded and stored == sum(value.size for value in before) - statistics - others
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_model_is_free_afterwards():
    """It computes with its own weights again, and the graph keeps the values that it had."""
    model = make("rpn_small", eager=True)
    run, x = traced.network(model).get_concrete_function(), batch(model)
    conv = next(layer for layer in model._flatten_layers() if isinstance(layer, ConvBatchNorm))
    given = {key: tf.constant(value) for key, value in x.items()}
    before = run(**given)["scores"].numpy()
    conv.beta.assign(conv.beta + 5.0)
    assert np.abs(model.predict_on_batch(x)["scores"] - before).max() > 1e-3
    np.testing.assert_array_equal(run(**given)["scores"], before)


def test_a_batch_without_proposals():
    """Their number is unknown in the graph."""
    given = tf.TensorSpec(*traced.SPECS["proposals"])
    run = tf.function(lambda boxes: given_proposals({"proposals": boxes}), input_signature=[given])
    none, some = (run(np.ones((2, num, 4), "float32")) for num in (0, 3))
    assert none.boxes.shape == (2, 1, 4) and none.scores.shape == (2, 1) and not np.any(none.mask)
    assert some.boxes.shape == (2, 3, 4)  # as many as before: their number decides what is sampled


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name):
    """Weights are stored in half the size; scores are near, boxes and scores float32."""
    model = make(name, eager=True)
    half = options.with_options(model, options.ExportOptions("bfloat16"))
    half.run_eagerly = True
    run, x = traced.network(half), batch(model)
    variables = run.get_concrete_function().variables
    kernels = [variable for variable in variables if len(variable.shape) > 1]
    assert {variable.dtype for variable in kernels} == {tf.bfloat16}
    found = run(**{key: tf.constant(value) for key, value in x.items()})
    expected = half.predict_on_batch(x)
    exact = model.predict_on_batch(x)
    assert found["boxes"].dtype == found["scores"].dtype == tf.float32
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-2)
    best = exact["scores"].max(axis=1)
    np.testing.assert_allclose(np.max(found["scores"], axis=1), best, atol=0.05)
