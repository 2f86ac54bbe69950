import keras
import numpy as np
import pytest
from gradients import layer_gradients, to_numpy
from keras import ops
from parity import scaled_error

from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid

SIZES = {"C2": (25, 34), "C3": (13, 17), "C4": (7, 9), "C5": (4, 5)}


def stages(rng, sizes=None, channels=(3, 4, 5, 6)):
    sizes = sizes or SIZES
    return {
        name: rng.normal(size=(2, *size, c)).astype("float32")
        for (name, size), c in zip(sizes.items(), channels, strict=False)
    }


def load_torch(layer, weights, prefix):
    convs = {"lateral_convs": layer.lateral_convs, "fpn_convs": layer.output_convs}
    convs["fpn_convs"] = convs["fpn_convs"] + layer.extra_convs
    count = 0
    for kind, members in convs.items():
        for i, conv in enumerate(members):
            kernel = weights[f"{prefix}{kind}.{i}.conv.weight"].transpose(2, 3, 1, 0)
            conv.kernel.assign(kernel)
            conv.bias.assign(weights[f"{prefix}{kind}.{i}.conv.bias"])
            count += 2
    assert count == len(layer.weights) == sum(key.startswith(prefix) for key in weights)


@pytest.mark.parametrize(
    ("detector", "arguments", "refine_level"),
    [
        pytest.param("libra_frcnn_r50b8", {}, 2, marks=pytest.mark.portable),
        ("libra_retina_r50b8", {"start_level": 1, "extra_levels": "on_input"}, 1),
    ],
)
def test_equals_the_reference(reference, record_error, detector, arguments, refine_level):
    data, weights = reference(f"{detector}_features.npz"), reference(f"{detector}_weights.npz")
    inputs = {f"C{i}": data[f"c{i}"] for i in (2, 3, 4, 5)}
    layer = FeaturePyramid(32, 5, **arguments)
    layer.build({name: x.shape for name, x in inputs.items()})
    load_torch(layer, weights, "neck.0.")
    levels = layer(inputs)
    for i, level in enumerate(levels.values()):
        record_error("FPN of a detector", scaled_error(level, data[f"fpn{i}"]), 1e-4)

    balanced = BalancedFeaturePyramid(refine_level, "non_local")
    balanced.build({name: level.shape for name, level in levels.items()})
    for name in ("g", "theta", "phi", "conv_out"):
        conv = getattr(balanced.refiner, name)
        conv.kernel.assign(weights[f"neck.1.refine.{name}.conv.weight"].transpose(2, 3, 1, 0))
        conv.bias.assign(weights[f"neck.1.refine.{name}.conv.bias"])
    for i, level in enumerate(balanced(levels).values()):
        record_error("BFP of a detector", scaled_error(level, data[f"bfp{i}"]), 1e-4)


@pytest.mark.portable
def test_top_down_by_hand():
    # One channel, lateral and output convolutions that copy: sums of enlarged levels remain.
    inputs = [
        np.array([1, 2, 3, 4, 5], "float32").reshape(1, 1, 5, 1),
        np.array([10, 20, 30], "float32").reshape(1, 1, 3, 1),
        np.array([100, 200], "float32").reshape(1, 1, 2, 1),
    ]
    layer = FeaturePyramid(1, num_levels=4)
    layer.build([x.shape for x in inputs])
    for conv in layer.lateral_convs + layer.output_convs:
        copy = np.zeros(conv.kernel.shape, "float32")
        copy[copy.shape[0] // 2, copy.shape[1] // 2] = 1
        conv.kernel.assign(copy)
    p2, p3, p4, p5 = (output.ravel().tolist() for output in to_numpy(layer(inputs)))
    assert p4 == [100, 200]
    assert p3 == [110, 120, 230]  # positions 0, 0, 1 of two: floor(i * 2 / 3)
    assert p2 == [111, 112, 123, 124, 235]  # positions 0, 0, 1, 1, 2 of three: floor(i * 3 / 5)
    assert p5 == [100]  # every second pixel of the last output, not the maximum


@pytest.mark.parametrize("extra_levels", ["max_pool", "on_input", "on_lateral", "on_output"])
@pytest.mark.parametrize("start_level", [0, 1])
def test_shapes_are_as_promised(rng, extra_levels, start_level):
    layer = FeaturePyramid(8, 6, start_level, extra_levels)
    inputs = stages(rng)
    outputs = layer(inputs)
    assert list(outputs) == [f"P{i + 2 + start_level}" for i in range(6)]
    promised = layer.compute_output_shape({name: x.shape for name, x in inputs.items()})
    assert {name: tuple(x.shape) for name, x in outputs.items()} == promised
    assert promised["P6"] == (2, 2, 3, 8)
    unknown = layer.compute_output_shape([(None, None, 40, 8)] * 4)
    assert unknown[-1] == (None, None, 5 if start_level else 10, 8)


@pytest.mark.parametrize(
    ("extra_levels", "channels"), [("on_input", 6), ("on_lateral", 8), ("on_output", 8)]
)
def test_extra_levels_are_padded_on_every_side(rng, extra_levels, channels):
    layer = FeaturePyramid(8, 6, extra_levels=extra_levels)
    inputs = stages(rng)
    outputs = to_numpy(layer(inputs))
    assert [conv.kernel.shape[2] for conv in layer.extra_convs] == [channels, 8]
    sources = {
        "on_input": inputs["C5"],
        "on_lateral": ops.convert_to_numpy(layer.lateral_convs[-1](inputs["C5"])),
        "on_output": outputs["P5"],
    }
    # Row 0, column 0 of a stride-2 convolution with one pixel of padding: centred on (0, 0).
    corner = np.pad(sources[extra_levels], ((0, 0), (1, 0), (1, 0), (0, 0)))[:, :3, :3]
    conv = layer.extra_convs[0]
    expected = np.tensordot(corner, ops.convert_to_numpy(conv.kernel), 3)
    np.testing.assert_allclose(outputs["P6"][:, 0, 0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.portable
def test_relu_between_extra_levels_by_hand():
    # One cell a level and convolutions that take it times -1, or as it is: a ReLU in between
    # leaves 0 of P6 = -3 for P7, but P6 itself is what comes out.
    outputs = {}
    for relu in (False, True):
        layer = FeaturePyramid(1, num_levels=3, extra_levels="on_output", extra_relu=relu)
        layer.build([(1, 1, 1, 1)])
        convs = [*layer.lateral_convs, *layer.output_convs, *layer.extra_convs]
        for conv, factor in zip(convs, (1, 1, -1, 1), strict=True):
            size = conv.kernel.shape[0]
            kernel = np.zeros(conv.kernel.shape, "float32")
            kernel[size // 2, size // 2] = factor
            conv.kernel.assign(kernel)
            conv.bias.assign([0.5] if conv is convs[-1] else [0.0])
        outputs[relu] = [y.item() for y in to_numpy(layer([np.full((1, 1, 1, 1), 3.0, "float32")]))]
    assert outputs == {False: [3, -3, -2.5], True: [3, -3, 0.5]}


def test_older_configs_have_no_relu():
    config = FeaturePyramid().get_config()
    assert config.pop("extra_relu") is False
    assert FeaturePyramid.from_config(config).extra_relu is False


def test_structure_and_names(rng):
    inputs = stages(rng)
    layer = FeaturePyramid(8)
    as_dict = layer({name: inputs[name] for name in ("C5", "C3", "C2", "C4")})
    assert list(as_dict) == ["P2", "P3", "P4", "P5", "P6"]
    as_list = layer(list(inputs.values()))
    assert isinstance(as_list, list)
    for one, other in zip(as_list, as_dict.values(), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
    renamed = FeaturePyramid(8)({name.replace("C", "P"): x for name, x in inputs.items()})
    assert list(renamed) == list(as_dict)


def test_xavier_start():
    layer = FeaturePyramid(64, num_levels=3, extra_levels="on_input")
    layer.build([(None, None, None, 32), (None, None, None, 48)])
    for conv, fan_in, fan_out in [
        (layer.lateral_convs[0], 32, 64),
        (layer.output_convs[1], 9 * 64, 9 * 64),
        (layer.extra_convs[0], 9 * 48, 9 * 64),
    ]:
        kernel, limit = ops.convert_to_numpy(conv.kernel), np.sqrt(6 / (fan_in + fan_out))
        assert 0.95 * limit < np.abs(kernel).max() <= limit
        assert not np.any(ops.convert_to_numpy(conv.bias))


@pytest.mark.portable
def test_every_weight_and_input_gets_a_gradient(rng):
    inputs = stages(rng)
    layer = FeaturePyramid(4, extra_levels="on_output")
    layer.build({name: x.shape for name, x in inputs.items()})
    outputs = layer(inputs)
    _, of_inputs, of_weights = layer_gradients(
        layer, inputs, {name: np.ones(y.shape, "float32") for name, y in outputs.items()}
    )
    assert all(np.abs(grad).max() > 0 for grad in of_inputs.values())
    assert len(of_weights) == 18
    assert all(np.abs(grad).max() > 0 for grad in of_weights.values())


def test_mixed_precision(rng):
    layer = FeaturePyramid(4, 6, extra_levels="on_input", dtype="mixed_bfloat16")
    for output in layer(stages(rng)).values():
        assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert all(v.dtype == "float32" for v in layer.weights)


@pytest.mark.parametrize("extra_levels", ["max_pool", "on_lateral"])
def test_unknown_sizes(rng, extra_levels):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tf.function has unknown sizes")
    import tensorflow as tf

    layer = FeaturePyramid(4, extra_levels=extra_levels)
    inputs = stages(rng)
    layer.build({name: x.shape for name, x in inputs.items()})
    spec = {name: tf.TensorSpec((None, None, None, x.shape[-1])) for name, x in inputs.items()}
    traced = tf.function(layer, input_signature=[spec])
    even = stages(rng, {"C2": (16, 24), "C3": (8, 12), "C4": (4, 6), "C5": (2, 3)})
    for batch in (inputs, even):
        for name, output in traced(batch).items():
            np.testing.assert_allclose(output, layer(batch)[name], atol=1e-5)


@pytest.mark.parametrize("as_dict", [False, True])
def test_save_and_load(rng, tmp_path, as_dict):
    values = stages(rng)
    inputs = {n: keras.Input((None, None, x.shape[-1]), name=n) for n, x in values.items()}
    layer = FeaturePyramid(4, 5, 1, "on_lateral", name="neck")
    structure = inputs if as_dict else list(inputs.values())
    model = keras.Model(inputs, layer(structure))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("neck").get_config() == layer.get_config()
    keras.tree.map_structure(
        np.testing.assert_array_equal, to_numpy(loaded(values)), to_numpy(model(values))
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"channels": 0}, "`channels` must be.*Received: 0"),
        ({"start_level": -1}, "`start_level` must be.*Received: -1"),
        ({"extra_levels": "on_top"}, "'on_top'"),
    ],
)
def test_says_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=message):
        FeaturePyramid(**bad)


def test_wrong_inputs_are_named(rng):
    with pytest.raises(ValueError, match="num_levels=3"):
        FeaturePyramid(num_levels=3)(stages(rng))
    with pytest.raises(ValueError, match="start_level=4 with 4 stages"):
        FeaturePyramid(start_level=4)(stages(rng))
    with pytest.raises(ValueError, match=r"channels of `pyramid\[1\]` must be known"):
        FeaturePyramid().build([(None, None, None, 8), (None, None, None, None)])
    with pytest.raises(TypeError, match="str"):
        FeaturePyramid().build("C2")
    with pytest.raises(ValueError, match="at least one level"):
        FeaturePyramid().build([])
