import keras
import numpy as np
import pytest
from gradients import gradient
from keras import ops
from parity import scaled_error

from libra_keras.backbones import ConvBatchNorm, ResNet, conv_batch_norm
from libra_keras.backbones.conv_batch_norm import convolve_each_group, grouped_conv
from libra_keras.convert.canonical import Canonical, backbone_variables, place

numpy_of = ops.convert_to_numpy
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs TensorFlow"
)


@pytest.mark.portable
def test_equals_mmdetection(reference, record_error):
    arrays = reference("backbones.npz")
    state = reference("backbone_x50_b8_4x2d_weights.npz")
    state = {name: value for name, value in state.items() if "num_batches" not in name}
    backbone = ResNet(50, width=8, groups=4, base_width=4)
    backbone.build((None, None, None, 3))
    place(backbone_variables(backbone), Canonical(state, {}, {}, "mmdetection"))
    for level, outputs in backbone(arrays["x"]).items():  # odd height and width
        error = scaled_error(outputs, arrays[f"x50_b8_4x2d/{level.lower()}"])
        record_error("backbone x50_b8_4x2d", error, 1e-4)


def inner_widths(backbone):
    """Channels and kernel of the 3x3 convolution in the first block of each stage."""
    convs = [blocks[0].convs[1] for blocks in backbone.stages]
    return [conv.filters for conv in convs], [conv.groups for conv in convs]


@pytest.mark.parametrize(
    ("groups", "width"),
    # 64x4d: 64 groups of 4, 8, 16, 32 channels; 32x4d: half as many of them.
    [(64, [256, 512, 1024, 2048]), (32, [128, 256, 512, 1024])],
)
def test_widths_of_the_published_networks(groups, width):
    widths, used = inner_widths(ResNet(101, groups=groups, base_width=4))
    assert widths == width and used == [groups] * 4


def test_without_groups_it_is_a_resnet():
    plain, ignored = ResNet(50, 8), ResNet(50, 8, groups=1, base_width=99)
    assert inner_widths(plain) == inner_widths(ignored) == ([8, 16, 32, 64], [1] * 4)


@pytest.mark.portable
@pytest.mark.parametrize("strides", [1, 2])
def test_groups_are_separate_convolutions(rng, strides):
    # Two groups: the same as two convolutions of half the channels, side by side.
    whole = ConvBatchNorm(6, 3, strides, groups=2)
    whole.build((None, None, None, 4))
    x = rng.normal(size=(2, 7, 8, 4)).astype("float32")
    kernel = numpy_of(whole.kernel)
    assert kernel.shape == (3, 3, 2, 6)
    halves = []
    for i in range(2):
        half = ConvBatchNorm(3, 3, strides)
        half.build((None, None, None, 2))
        half.kernel.assign(kernel[..., 3 * i : 3 * i + 3])
        halves.append(numpy_of(half(x[..., 2 * i : 2 * i + 2])))
    np.testing.assert_allclose(numpy_of(whole(x)), np.concatenate(halves, -1), atol=1e-5)
    assert whole.compute_output_shape(x.shape) == whole(x).shape


@pytest.mark.portable
@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "valid")])
def test_both_ways_have_equal_gradients(rng, strides, padding):
    x = rng.normal(size=(2, 7, 8, 6)).astype("float32")
    kernel = rng.normal(size=(3, 3, 2, 12)).astype("float32")
    results = []
    for function in (grouped_conv, convolve_each_group):
        y = function(ops.convert_to_tensor(x), ops.convert_to_tensor(kernel), strides, padding)
        of_x = gradient(lambda x, f=function: ops.square(f(x, kernel, strides, padding)), x)
        of_kernel = gradient(lambda k, f=function: ops.square(f(x, k, strides, padding)), kernel)
        results.append([numpy_of(y), of_x, of_kernel])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@on_tensorflow
@pytest.mark.parametrize("one_operation", [True, False])
def test_unknown_sizes_and_gradients_in_a_graph(rng, monkeypatch, one_operation):
    import tensorflow as tf

    if one_operation and not conv_batch_norm.has_gradient("float32"):
        pytest.skip("this TensorFlow does not differentiate grouped convolutions")
    monkeypatch.setattr(conv_batch_norm, "has_gradient", lambda dtype: one_operation)
    block = ResNet(50, 8, groups=2, frozen_stages=-1).stages[3][0]
    block.build((None, None, None, 128))
    variables = [variable.value for variable in block.trainable_variables]
    assert block.convs[1].kernel.shape == (3, 3, 32, 64)  # 4 channels of a group, times 8

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 128))])
    def step(x):
        with tf.GradientTape() as tape:
            y = block(x, training=True)
            total = tf.reduce_sum(y**2)
        return y, tape.gradient(total, variables)

    for shape in ((1, 7, 10, 128), (2, 4, 4, 128)):
        x = tf.constant(rng.normal(size=shape), "float32")
        y, gradients = step(x)
        assert y.shape == block.compute_output_shape(shape)
        np.testing.assert_allclose(y, block(x), rtol=1e-3, atol=1e-4)
        assert all(np.isfinite(g).all() and np.any(g) for g in gradients)


@on_tensorflow
def test_a_machine_without_the_gradient_is_noticed(monkeypatch):
    import tensorflow as tf

    def refuse(*arguments):
        raise tf.errors.InvalidArgumentError(None, None, "not supported on CPU")

    monkeypatch.setattr(tf.nn, "conv2d", refuse)
    conv_batch_norm.has_gradient.cache_clear()
    assert not conv_batch_norm.has_gradient("float32")
    conv_batch_norm.has_gradient.cache_clear()


def test_mixed_precision():
    layer = ConvBatchNorm(4, 3, groups=2, dtype="mixed_bfloat16")
    outputs = layer(np.ones((1, 5, 6, 4), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert layer.kernel.dtype == "float32"


def test_config_round_trip():
    config = ResNet(101, 8, groups=4, base_width=2).get_config()
    assert (config["groups"], config["base_width"]) == (4, 2)
    assert ResNet.from_config(config).get_config() == config
    config = ConvBatchNorm(6, groups=3).get_config()
    assert config["groups"] == 3 and ConvBatchNorm.from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": 0}, "`groups` must be.*Received: 0"),
        ({"base_width": 0}, "`base_width` must be.*Received: 0"),
        ({"depth": 18, "groups": 2}, "groups=2, depth=18"),
        ({"style": "caffe", "weights": "imagenet", "groups": 32}, "no `groups`.*groups=32"),
    ],
)
def test_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**wrong)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="number of filters. Received: groups=3, filters=4"):
        ConvBatchNorm(4, groups=3)
    with pytest.raises(ValueError, match="number of channels. Received: groups=2, channels=3"):
        ConvBatchNorm(4, groups=2).build((None, None, None, 3))
