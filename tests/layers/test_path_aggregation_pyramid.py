import itertools

import keras
import numpy as np
import pytest
from gradients import layer_gradients, to_numpy
from keras import ops

from libra_keras.layers import BalancedFeaturePyramid, PathAggregationPyramid

SIZES = {"C2": (13, 18), "C3": (7, 9), "C4": (4, 5), "C5": (2, 3)}
CHANNELS = (3, 4, 5, 6)
EXTRA_LEVELS = ["max_pool", "on_input", "on_lateral", "on_output"]


def stages(rng, sizes=None):
    pairs = zip((sizes or SIZES).items(), CHANNELS, strict=True)
    return {name: rng.normal(size=(2, *size, c)).astype("float32") for (name, size), c in pairs}


def convolve(x, layer, stride=1):
    """Convolution of an odd kernel, padded by half of it on every side, pixel by pixel."""
    kernel, bias = (ops.convert_to_numpy(v).astype("float64") for v in (layer.kernel, layer.bias))
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((n - 2 * pad - 1) // stride + 1 for n in x.shape[1:3])
    y = np.empty((len(x), height, width, kernel.shape[-1]))
    for i, j in itertools.product(range(height), range(width)):
        i0, j0 = i * stride, j * stride
        window = x[:, i0 : i0 + kernel.shape[0], j0 : j0 + kernel.shape[1]]
        y[:, i, j] = np.einsum("bhwc,hwcf->bf", window, kernel) + bias
    return y


def enlarge(x, height, width):
    """Nearest neighbour of `floor(i * old / new)`."""
    rows = [i * x.shape[1] // height for i in range(height)]
    columns = [j * x.shape[2] // width for j in range(width)]
    return x[:, rows][:, :, columns]


def expected_levels(layer, inputs):
    """The definition, written once more: laterals, down, up, outputs, extra levels."""
    used = inputs[layer.start_level :]
    laterals = [convolve(x, conv) for x, conv in zip(used, layer.lateral_convs, strict=True)]
    summed = list(laterals)
    for i in reversed(range(len(summed) - 1)):
        summed[i] = summed[i] + enlarge(summed[i + 1], *summed[i].shape[1:3])
    middle = [convolve(x, conv) for x, conv in zip(summed, layer.output_convs, strict=True)]
    for i, conv in enumerate(layer.downsample_convs):
        middle[i + 1] = middle[i + 1] + convolve(middle[i], conv, stride=2)
    outputs = middle[:1]
    for i, conv in enumerate(layer.aggregation_convs):
        outputs.append(convolve(middle[i + 1], conv))
    sources = {"on_input": used, "on_lateral": laterals, "on_output": outputs}
    if layer.extra_levels == "max_pool":
        while len(outputs) < layer.num_levels:
            outputs.append(outputs[-1][:, ::2, ::2])
        return outputs
    level = sources[layer.extra_levels][-1]
    for conv in layer.extra_convs:
        level = convolve(level, conv, stride=2)
        outputs.append(level)
    return outputs


def randomised(layer, rng, inputs):
    layer.build({name: x.shape for name, x in inputs.items()})
    for variable in layer.weights:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return layer


@pytest.mark.portable
@pytest.mark.parametrize("extra_levels", EXTRA_LEVELS)
def test_equals_the_definition(rng, extra_levels):
    start_level = 1 if extra_levels == "on_input" else 0
    inputs = stages(rng)  # odd sizes: 13, 7, 4, 2 and 18, 9, 5, 3
    layer = PathAggregationPyramid(4, 6, start_level, extra_levels)
    outputs = to_numpy(randomised(layer, rng, inputs)(inputs))
    assert list(outputs) == [f"P{2 + start_level + i}" for i in range(6)]
    expected = expected_levels(layer, list(inputs.values()))
    for (name, ours), theirs in zip(outputs.items(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3, err_msg=name)
    promised = layer.compute_output_shape({name: x.shape for name, x in inputs.items()})
    assert {name: x.shape for name, x in outputs.items()} == promised


@pytest.mark.portable
def test_bottom_up_by_hand():
    # One channel; all convolutions copy the centre, so that those of stride 2 take even pixels.
    inputs = [
        np.array([1, 2, 3, 4, 5], "float32").reshape(1, 1, 5, 1),
        np.array([10, 20, 30], "float32").reshape(1, 1, 3, 1),
        np.array([100, 200], "float32").reshape(1, 1, 2, 1),
    ]
    layer = PathAggregationPyramid(1, num_levels=4)
    layer.build([x.shape for x in inputs])
    for variable in layer.weights:
        copy = np.zeros(variable.shape, "float32")
        if copy.ndim == 4:
            copy[copy.shape[0] // 2, copy.shape[1] // 2] = 1
        variable.assign(copy)
    p2, p3, p4, p5 = (output.ravel().tolist() for output in to_numpy(layer(inputs)))
    # Down, as in a FeaturePyramid: 100 200; 110 120 230; 111 112 123 124 235.
    assert p2 == [111, 112, 123, 124, 235]
    assert p3 == [110 + 111, 120 + 123, 230 + 235]
    assert p4 == [100 + 221, 200 + 465]  # of the already summed 221, 243, 465
    assert p5 == [321]


@pytest.mark.portable
def test_every_weight_and_input_gets_a_gradient(rng):
    inputs = stages(rng)
    layer = PathAggregationPyramid(4, extra_levels="on_output")
    layer.build({name: x.shape for name, x in inputs.items()})
    outputs = layer(inputs)
    _, of_inputs, of_weights = layer_gradients(
        layer, inputs, {name: np.ones(y.shape, "float32") for name, y in outputs.items()}
    )
    assert all(np.abs(grad).max() > 0 for grad in of_inputs.values())
    assert len(of_weights) == 2 * (4 + 4 + 3 + 3 + 1)  # kernels and biases
    assert all(np.abs(grad).max() > 0 for grad in of_weights.values())


def test_structure(rng):
    inputs = stages(rng)
    layer = PathAggregationPyramid(4)
    as_dict, as_list = layer(inputs), layer(list(inputs.values()))
    assert isinstance(as_list, list)
    for one, other in zip(as_list, as_dict.values(), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="unknown sizes are TF's")
def test_unknown_sizes(rng):
    import tensorflow as tf

    inputs = stages(rng)
    layer = randomised(PathAggregationPyramid(4, extra_levels="on_output"), rng, inputs)
    spec = {name: tf.TensorSpec((None, None, None, x.shape[-1])) for name, x in inputs.items()}
    traced = tf.function(layer, input_signature=[spec])
    even = stages(rng, {"C2": (16, 24), "C3": (8, 12), "C4": (4, 6), "C5": (2, 3)})
    for batch in (inputs, even):
        expected = expected_levels(layer, list(batch.values()))
        for ours, theirs in zip(traced(batch).values(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_balanced_pafpn_survives_saving(rng, tmp_path):
    values = stages(rng)
    inputs = {n: keras.Input((None, None, x.shape[-1]), name=n) for n, x in values.items()}
    layer = PathAggregationPyramid(4, 6, 1, "on_lateral", name="neck")
    model = keras.Model(inputs, BalancedFeaturePyramid(1, "non_local")(layer(inputs)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    neck = loaded.get_layer("neck")
    assert type(neck) is PathAggregationPyramid and neck.get_config() == layer.get_config()
    keras.tree.map_structure(
        np.testing.assert_array_equal, to_numpy(loaded(values)), to_numpy(model(values))
    )


def test_mixed_precision(rng):
    layer = PathAggregationPyramid(4, dtype="mixed_bfloat16")
    for output in layer(stages(rng)).values():
        assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert all(v.dtype == "float32" for v in layer.weights)


def test_says_what_is_wrong(rng):
    with pytest.raises(ValueError, match="'on_top'"):
        PathAggregationPyramid(extra_levels="on_top")
    with pytest.raises(ValueError, match="num_levels=3"):
        PathAggregationPyramid(num_levels=3)(stages(rng))
