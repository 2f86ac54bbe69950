import keras
import numpy as np
import pytest
from gradients import layer_gradients, to_numpy
from keras import ops
from parity import norm_error, scaled_error

from libra_keras.layers import BalancedFeaturePyramid, NonLocalBlock

VARIANTS = [
    ("A", "none_r2"),
    pytest.param("A", "conv_r2", marks=pytest.mark.portable),
    pytest.param("A", "non_local_r2", marks=pytest.mark.portable),
    ("B", "non_local_r1"),
    ("B", "non_local_r0"),
    ("B", "non_local_r4"),
    ("B", "none_r3"),
    ("C", "none_r2"),
    ("C", "conv_r2"),
    ("C", "non_local_r2"),
    ("C", "non_local_r1"),
    ("D", "none_r1"),
    ("D", "non_local_r1"),
    ("D", "non_local_r2"),
]


def pyramid(rng, sizes=((10, 14), (5, 7), (3, 4)), channels=4, batch=2):
    return [rng.normal(size=(batch, *size, channels)).astype("float32") for size in sizes]


def refiner_variables(layer, names):
    """The variables of a refiner under the reference's names, `refine.g.conv.weight` and so on."""
    found = {}
    for name in names:
        *path, kind = name.removeprefix("refine.").split(".")
        conv = layer.refiner if path == ["conv"] else getattr(layer.refiner, path[0])
        found[name] = conv.kernel if kind == "weight" else conv.bias
    return found


def from_torch(weight):
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


@pytest.mark.parametrize(("file", "variant"), VARIANTS)
def test_equals_the_reference(reference, record_error, file, variant):
    data = reference(f"bfp_{file}.npz")
    count = sum(key.startswith("in") for key in data)
    inputs = [data[f"in{i}"] for i in range(count)]
    refiner, level = variant.rsplit("_r", 1)
    layer = BalancedFeaturePyramid(int(level), None if refiner == "none" else refiner)
    layer.build([x.shape for x in inputs])
    names = [k.split("/w/")[1] for k in data if k.startswith(f"{variant}/w/")]
    variables = refiner_variables(layer, names)
    assert {v.path for v in variables.values()} == {v.path for v in layer.weights}
    for name, variable in variables.items():
        variable.assign(from_torch(data[f"{variant}/w/{name}"]))

    cotangents = [data[f"cot{i}"] for i in range(count)]
    outputs, of_inputs, of_weights = layer_gradients(layer, inputs, cotangents)
    for i in range(count):
        expected, slope = data[f"{variant}/out{i}"], data[f"{variant}/gin{i}"]
        record_error(f"BFP {refiner}: outputs", scaled_error(outputs[i], expected), 1e-4)
        record_error(f"BFP {refiner}: input gradients", norm_error(of_inputs[i], slope), 1e-3)
    for name, variable in variables.items():
        expected, actual = from_torch(data[f"{variant}/gw/{name}"]), of_weights[variable.path]
        # The bias of phi shifts all logits of a row alike: its gradient is rounding around 0.
        floor = 0.2 if "phi.conv.bias" in name else 0.0
        error = norm_error(actual, expected, floor)
        record_error(f"BFP {refiner}: weight gradients", error, 1e-3)


@pytest.mark.portable
def test_hand_computed_example():
    # Level 0 is 0..3 and 4 (row of 1x4), level 1 is (10, 20), at whose size is averaged.
    fine = np.array([0, 1, 2, 3], "float32").reshape(1, 1, 4, 1)
    coarse = np.array([10, 20], "float32").reshape(1, 1, 2, 1)
    # Pooled fine: (1, 3); mean: (5.5, 11.5).
    outputs = to_numpy(BalancedFeaturePyramid(refine_level=1)([fine, coarse]))
    np.testing.assert_allclose(outputs[0].ravel(), [5.5, 6.5, 13.5, 14.5])
    np.testing.assert_allclose(outputs[1].ravel(), [15.5, 31.5])


@pytest.mark.parametrize("refine_level", [0, 1, 2])
def test_a_constant_pyramid_doubles(refine_level):
    levels = [np.full((1, *size, 3), 1.5, "float32") for size in ((11, 14), (6, 7), (3, 4))]
    for refiner in (None, "non_local"):  # a non-local block starts as the identity
        for output in BalancedFeaturePyramid(refine_level, refiner)(levels):
            np.testing.assert_allclose(output, np.full(output.shape, 3.0), rtol=1e-6)


def test_gives_back_the_structure_it_got(rng):
    levels = pyramid(rng)
    layer = BalancedFeaturePyramid(1)
    expected = to_numpy(layer(levels))
    shuffled = {"P10": levels[2], "P8": levels[0], "P9": levels[1]}
    as_dict = layer(shuffled)
    assert list(as_dict) == ["P8", "P9", "P10"]  # by number, not by alphabet
    for i, output in enumerate(as_dict.values()):
        np.testing.assert_array_equal(ops.convert_to_numpy(output), expected[i])
    assert isinstance(BalancedFeaturePyramid(1)(tuple(levels)), tuple)


@pytest.mark.parametrize("refiner", [None, "non_local"])
def test_unknown_sizes(rng, refiner):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only tf.function has unknown sizes")
    import tensorflow as tf

    layer = BalancedFeaturePyramid(1, refiner)
    spec = {f"P{i}": tf.TensorSpec((None, None, None, 4)) for i in (3, 4, 5)}
    layer.build({name: (None, None, None, 4) for name in spec})
    traced = tf.function(layer, input_signature=[spec])
    for sizes in (((8, 12), (4, 6), (2, 3)), ((10, 13), (5, 7), (3, 4))):
        levels = dict(zip(spec, pyramid(rng, sizes), strict=True))
        for name, output in traced(levels).items():
            assert output.shape == levels[name].shape
            np.testing.assert_allclose(output, layer(levels)[name], atol=1e-5)


@pytest.mark.parametrize("refiner", [None, "conv", "non_local"])
def test_mixed_precision(rng, refiner):
    layer = BalancedFeaturePyramid(1, refiner, dtype="mixed_bfloat16")
    for output in layer(pyramid(rng)):
        assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert all(v.dtype == "float32" for v in layer.weights)


def test_the_papers_start(rng):
    refiner = NonLocalBlock(reduction=1, use_scale=False, start="xavier")
    layer = BalancedFeaturePyramid(refiner=refiner, refine_level=1)
    plain = to_numpy(BalancedFeaturePyramid(refine_level=1)(pyramid(rng)))
    assert layer.refiner is refiner
    assert layer.compute_output_shape([(1, 4, 4, 8), (1, 2, 2, 8)])[1] == (1, 2, 2, 8)
    outputs = to_numpy(layer(pyramid(np.random.default_rng(0))))
    assert np.abs(outputs[0] - plain[0]).max() > 1e-3


@pytest.mark.parametrize(
    "refiner",
    [keras.layers.GlobalAveragePooling2D(keepdims=True), keras.layers.Conv2D(8, 3)],
    ids=["mean", "valid"],
)
def test_a_refiner_that_changes_the_size_is_refused(rng, refiner):
    with pytest.raises(ValueError, match="`refiner` must keep the shape of its input"):
        BalancedFeaturePyramid(0, refiner)(pyramid(rng))


def test_number_of_weights_at_full_size():
    layer = BalancedFeaturePyramid(refiner="non_local")
    layer.build([(None, None, None, 256)] * 5)
    assert layer.count_params() == 4 * (256 * 256 + 256)


@pytest.mark.parametrize(
    "refiner",
    [
        None,
        "conv",
        "non_local",
        NonLocalBlock(3, "dot_product", start="xavier"),
        keras.layers.DepthwiseConv2D(3, padding="same"),
    ],
)
def test_save_and_load(rng, tmp_path, refiner):
    if isinstance(refiner, keras.layers.Layer):
        refiner = type(refiner).from_config(refiner.get_config())
    names = ["P3", "P4", "P5"]
    inputs = [keras.Input((None, None, 4), name=name) for name in names]
    layer = BalancedFeaturePyramid(1, refiner, name="balanced")
    structure = dict(zip(names, inputs, strict=True)) if refiner is None else inputs
    model = keras.Model(inputs, layer(structure))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    copy = loaded.get_layer("balanced")
    assert copy.refine_level == 1
    assert type(copy.refiner) is type(layer.refiner)
    if isinstance(refiner, NonLocalBlock):
        assert copy.refiner.get_config() == refiner.get_config()
    else:
        assert copy.get_config()["refiner"] == refiner or isinstance(refiner, keras.layers.Layer)
    levels = pyramid(rng)
    keras.tree.map_structure(
        np.testing.assert_array_equal, to_numpy(loaded(levels)), to_numpy(model(levels))
    )


def test_from_config_takes_live_objects():
    refiner = NonLocalBlock()
    layer = BalancedFeaturePyramid.from_config({"refine_level": 1, "refiner": refiner})
    assert layer.refiner is refiner
    assert BalancedFeaturePyramid.from_config({"refine_level": 1}).refiner is None


def test_says_what_is_wrong(rng):
    with pytest.raises(ValueError, match="'attention'"):
        BalancedFeaturePyramid(refiner="attention")
    with pytest.raises(TypeError, match="3.5"):
        BalancedFeaturePyramid(refiner=3.5)
    with pytest.raises(ValueError, match="refine_level=3"):
        BalancedFeaturePyramid(refine_level=3)(pyramid(rng))
    with pytest.raises(ValueError, match=r"`pyramid\[1\]`.* C being 4 .*Received.*\(1, 2, 2, 5\)"):
        BalancedFeaturePyramid(1).build([(1, 4, 4, 4), (1, 2, 2, 5)])
    with pytest.raises(ValueError, match="keep the shape"):
        BalancedFeaturePyramid(1, keras.layers.Conv2D(5, 1))(pyramid(rng))
    with pytest.raises(ValueError, match="'fine'"):
        BalancedFeaturePyramid(1).build({"fine": (1, 4, 4, 4), "P3": (1, 2, 2, 4)})


@pytest.mark.portable
@pytest.mark.parametrize("refiner", [None, "non_local", "conv"])
def test_an_empty_batch(refiner):
    """Levels whose sizes are no multiples of each other, and some that are."""
    for sizes in (((13, 17), (7, 9), (4, 5)), ((8, 12), (4, 6), (2, 3))):
        levels = [np.zeros((0, *size, 4), "float32") for size in sizes]
        outputs = BalancedFeaturePyramid(1, refiner)(levels)
        assert [tuple(level.shape) for level in outputs] == [(0, *size, 4) for size in sizes]


@pytest.mark.portable
def test_a_refiner_may_compute_in_another_precision(rng):
    refiner = NonLocalBlock(reduction=1, dtype="float32")
    outputs = BalancedFeaturePyramid(1, refiner, dtype="mixed_bfloat16")(pyramid(rng))
    assert {keras.backend.standardize_dtype(level.dtype) for level in outputs} == {"bfloat16"}


def test_one_tensor_is_no_pyramid(rng):
    with pytest.raises(ValueError, match=r"A pyramid must be a dict.*one tensor of shape \(2, 10"):
        BalancedFeaturePyramid(1)(pyramid(rng)[0])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's XLA")
def test_sizes_that_are_not_known_are_compiled_by_none(rng):
    import tensorflow as tf

    inputs = [keras.Input((None, None, 4)) for _ in range(3)]
    model = keras.Model(inputs, BalancedFeaturePyramid(1, "conv")(inputs)[0])
    model.compile("sgd", "mse", jit_compile="auto")
    assert not model.jit_compile
    batch = tuple(pyramid(rng, ((13, 17), (7, 9), (4, 5))))
    spec = tuple(tf.TensorSpec((None, None, None, 4)) for _ in batch)
    data = tf.data.Dataset.from_generator(
        lambda: [(batch, batch[0])] * 2, output_signature=(spec, spec[0])
    )
    assert np.isfinite(
        model.fit(data, steps_per_epoch=1, verbose=0, shuffle=False).history["loss"][0]
    )
