import keras
import numpy as np
import pytest
from keras import ops
from parity import scaled_error

from libra_keras.backbones import ResNet

numpy_of = ops.convert_to_numpy
TORCH_NAMES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
NETWORKS = {
    "r18_b8": {"depth": 18},
    "r50_b8_pytorch": {"depth": 50, "style": "pytorch"},
    "r50_b8_caffe": {"depth": 50, "style": "caffe"},
}


def variable_of(backbone, name):
    """The variable that holds the entry `name` of a state dict of torchvision or mmdetection."""
    *block, module, kind = name.split(".")
    if block and block[-1] == "downsample":  # layer1.0.downsample.0.weight
        block, module = block[:-1], "conv0" if module == "0" else "bn0"
    if block:
        block = backbone.stages[int(block[0][-1]) - 1][int(block[1])]
        number = int(module[-1])
        conv = block.convs[number - 1] if number else block.downsample
    else:
        conv = backbone.stem
    return conv.kernel if module.startswith("conv") else getattr(conv, TORCH_NAMES[kind])


def load_state_dict(backbone, state):
    """Fills every variable of `backbone`, once."""
    backbone.build((None, None, None, 3))
    filled = set()
    for name, value in state.items():
        variable = variable_of(backbone, name)
        variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)
        filled.add(variable.path)
    assert filled == {variable.path for variable in backbone.weights}
    assert len(filled) == len(state)


def assert_close(actual, expected, tolerance):
    error = np.abs(numpy_of(actual) - expected).max() / np.abs(expected).max()
    assert error < tolerance


def small(**arguments):
    backbone = ResNet(**{"depth": 18, "width": 8, **arguments})
    backbone.build((None, None, None, 3))
    return backbone


@pytest.mark.parametrize(
    "name",
    # The two others run on every backend in models/test_reference_stages.py.
    ["r18_b8", "r50_b8_pytorch", pytest.param("r50_b8_caffe", marks=pytest.mark.portable)],
)
def test_equals_mmdetection(reference, record_error, name):
    arrays = reference("backbones.npz")
    state = reference(f"backbone_{name}_weights.npz")
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    backbone = ResNet(width=8, **NETWORKS[name])
    load_state_dict(backbone, state)
    for level, outputs in backbone(arrays["x"]).items():  # odd height and width
        error = scaled_error(outputs, arrays[f"{name}/{level.lower()}"])
        record_error(f"backbone {name}", error, 1e-4)


def test_caffe_and_pytorch_styles_differ(rng):
    x = rng.normal(size=(1, 40, 40, 3)).astype("float32")
    pytorch, caffe = (small(depth=50, style=style) for style in ("pytorch", "caffe"))
    caffe.set_weights(pytorch.get_weights())
    first, second = numpy_of(pytorch(x)["C3"]), numpy_of(caffe(x)["C3"])
    assert np.abs(first - second).max() > 1e-3 * np.abs(first).max()


@pytest.mark.parametrize(
    ("frozen_stages", "trainable"),
    # ResNet-18 has a stem, four stages of 4 convolutions, and 3 shortcuts, in stages 2 to 4.
    [(-1, 20), (0, 19), (1, 15), (2, 10), (4, 0)],
)
def test_frozen_stages_do_not_train(frozen_stages, trainable):
    backbone = small(frozen_stages=frozen_stages)
    assert len(backbone.trainable_variables) == 3 * trainable  # kernel, gamma, beta
    assert len(backbone.weights) == 5 * 20
    names = {f"stage{stage}_" for stage in range(1, frozen_stages + 1)}
    assert not [v.path for v in backbone.trainable_variables for name in names if name in v.path]
    backbone.trainable = True  # does not melt what is frozen
    assert len(backbone.trainable_variables) == 3 * trainable


def test_train_affine_leaves_kernels_only():
    backbone = small(train_affine=False)
    assert {v.name for v in backbone.trainable_variables} == {"kernel"}
    assert len(backbone.trainable_variables) == 15


def test_batch_norm_of_frozen_stages_stays_frozen(rng):
    backbone = small(batch_norm="trainable")
    before = {v.path: numpy_of(v) for v in backbone.non_trainable_variables}
    backbone(rng.normal(size=(1, 64, 64, 3)).astype("float32"), training=True)
    changed = [
        v.path
        for v in backbone.non_trainable_variables
        if not np.array_equal(numpy_of(v), before[v.path])
    ]
    assert len(changed) == 2 * 15  # mean and variance, outside the stem and stage 1
    assert not [path for path in changed if "stem" in path or "stage1_" in path]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs tf.function")
def test_unknown_sizes_and_gradients_in_a_graph(rng):
    import tensorflow as tf

    backbone = small(frozen_stages=2)
    variables = [variable.value for variable in backbone.trainable_variables]
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def step(images):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(images)
            features = backbone(images, training=True)
            total = tf.add_n([tf.reduce_sum(level**2) for level in features.values()])
        return features, tape.gradient(total, [images, *variables])

    for shape in ((1, 75, 101, 3), (2, 32, 64, 3)):
        images = tf.constant(rng.normal(size=shape), "float32")
        features, (of_images, *of_variables) = step(images)
        expected = backbone(images)
        for level, outputs in features.items():
            assert outputs.shape == backbone.compute_output_shape(shape)[level]
            assert_close(outputs, numpy_of(expected[level]), 1e-4)
        assert all(np.isfinite(g).all() and np.any(g) for g in of_variables)
        # C2 and C3 come from frozen stages, C4 and C5 from behind the cut.
        assert of_images is not None
    assert len(traces) == 1


def test_config_and_model_survive_saving(tmp_path, rng):
    backbone = ResNet(
        34, 8, "caffe", batch_norm="trainable", train_affine=False, frozen_stages=2, name="body"
    )
    config = backbone.get_config()
    assert ResNet.from_config(config).get_config() == config
    assert [config[k] for k in ("depth", "width", "style", "batch_norm")] == [
        34,
        8,
        "caffe",
        "trainable",
    ]
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, backbone(inputs))
    for variable in model.weights:
        variable.assign(rng.uniform(0.1, 0.3, variable.shape))
    model.save(tmp_path / "model.keras")
    x = rng.normal(size=(1, 40, 50, 3)).astype("float32")
    expected, actual = model(x), keras.saving.load_model(tmp_path / "model.keras")(x)
    for level in ("C2", "C3", "C4", "C5"):
        np.testing.assert_array_equal(numpy_of(actual[level]), numpy_of(expected[level]))


def test_epsilon_reaches_every_convolution(rng):
    exact, usual = small(epsilon=0.0), small()
    images = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    exact(images), usual(images)
    exact.set_weights(usual.get_weights())
    convs = [layer for layer in exact._flatten_layers() if hasattr(layer, "moving_variance")]
    assert len(convs) == 20 and {conv.epsilon for conv in convs} == {0.0}
    for conv in convs:  # the same scale by another way
        conv.moving_variance.assign(ops.convert_to_tensor(conv.moving_variance) + 1e-5)
    for level, outputs in usual(images).items():
        assert_close(exact(images)[level], numpy_of(outputs), 1e-5)
    assert ResNet.from_config(exact.get_config()).epsilon == 0.0
    config = usual.get_config()
    assert config.pop("epsilon") == 1e-5
    assert ResNet.from_config(config).epsilon == 1e-5  # saved before there was a choice
    with pytest.raises(ValueError, match="`epsilon` must be .* Received: -1"):
        small(epsilon=-1.0)


def test_mixed_precision():
    features = small(dtype="mixed_bfloat16")(np.ones((1, 40, 50, 3), "float32"))
    assert {keras.backend.standardize_dtype(f.dtype) for f in features.values()} == {"bfloat16"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 26},
        {"style": "tensorflow"},
        {"batch_norm": None},
        {"frozen_stages": 5},
    ],
)
def test_unknown_choices(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=f"`{name}` must be one of .* Received: {name}="):
        ResNet(**wrong)


def test_wrong_rank_of_images():
    with pytest.raises(ValueError, match=r"must be \(B, H, W, C\)"):
        ResNet(18, 8).build((None, None, 3))
