"""Detectors on networks of other packages: they learn, and are saved for a fresh process."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from drawn import drawn_batch
from keras import layers, ops

from libra_keras.backbones import BackboneAdapter
from libra_keras.data import InputPolicy
from libra_keras.models import faster_rcnn_small
from libra_keras.training import SGD

numpy_of = ops.convert_to_numpy
ANY_SIZE = (None, None, 3)
FRESH = """
import keras, numpy as np, libra_keras.models, libra_keras.training
loaded = keras.saving.load_model("model.keras")
found = loaded.predict_on_batch(dict(np.load("x.npz")))
np.savez("found.npz", **found)
"""


def package(name):
    return pytest.importorskip(name, reason=f"needs {name}")


def application(name, **options):
    model = getattr(keras.applications, name)
    return model(include_top=False, weights=None, input_shape=ANY_SIZE, **options)


def hub_resnet():
    return package("keras_hub").models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16, 16, 32],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=ANY_SIZE,
    )


def hub_efficientnet():
    """Has layers of KerasHub's own, which a fresh process must import."""
    return package("keras_hub").models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 6,
        stackwise_depth_coefficients=[1.0] * 6,
        stackwise_kernel_sizes=[3] * 6,
        stackwise_num_repeats=[1] * 6,
        stackwise_input_filters=[8] * 6,
        stackwise_output_filters=[8] * 6,
        stackwise_expansion_ratios=[1] + [2] * 5,
        stackwise_squeeze_and_excite_ratios=[0, 0, 0, 0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2, 1, 2],
        stackwise_block_types=["fused"] * 3 + ["unfused"] * 3,
        stem_conv_padding="same",
        include_stem_padding=False,
        num_features=16,
        input_shape=ANY_SIZE,
    )


def cv_resnet():
    return package("keras_cv").models.ResNetBackbone(
        stackwise_filters=[8, 16, 16, 32],
        stackwise_blocks=[1, 1, 1, 1],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=True,
        input_shape=ANY_SIZE,
    )


def cv_efficientnet():
    """Has layers of KerasCV's own."""
    return package("keras_cv").models.EfficientNetV2Backbone(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        stackwise_kernel_sizes=[3] * 6,
        stackwise_num_repeats=[1] * 6,
        stackwise_input_filters=[8] * 6,
        stackwise_output_filters=[8] * 6,
        stackwise_expansion_ratios=[1] + [2] * 5,
        stackwise_squeeze_and_excite_ratios=[0, 0, 0, 0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2, 1, 2],
        stackwise_conv_types=["fused"] * 3 + ["unfused"] * 3,
        include_rescaling=True,
        input_shape=ANY_SIZE,
    )


def detector(network, size=96, **options):
    backbone = BackboneAdapter(network, **options)
    return faster_rcnn_small(6, backbone, input_policy=InputPolicy(size, size))


def first_kernel(model):
    """The kernel of the first convolution of the wrapped network."""
    convs = [layer for layer in model.backbone.model.layers if isinstance(layer, layers.Conv2D)]
    return convs[0].kernel


def train(model, num_steps, num_images=2, **options):
    """Returns the batch and the loss of each step."""
    x, y = drawn_batch(num_images, model.input_policy)
    model.compile(SGD(0.02, global_clipnorm=10.0), **options)
    steps = range(num_steps)
    return x, [float(model.train_on_batch(x, y, return_dict=True)["loss"]) for _ in steps]


def assert_same_in_a_fresh_process(model, x, folder):
    model.save(folder / "model.keras")
    np.savez(folder / "x.npz", **x)
    command = [sys.executable, "-c", FRESH]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(folder / "found.npz")
    expected = model.predict_on_batch(x)
    assert expected["num_detections"].sum() > 0
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], numpy_of(value), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "num_steps"),
    [
        (hub_resnet, 8),
        (cv_resnet, 8),
        (lambda: application("ConvNeXtTiny"), 5),
    ],
    ids=["hub_resnet", "cv_resnet", "convnext"],
)
def test_a_detector_learns_and_survives_saving(make, num_steps, tmp_path):
    keras.utils.set_random_seed(0)
    model = detector(make(), batch_norm="trainable")  # weights are random
    kernel = numpy_of(first_kernel(model))
    x, losses = train(model, num_steps)
    assert losses[-1] < 0.8 * losses[0], losses
    assert np.abs(numpy_of(first_kernel(model)) - kernel).max() > 0
    assert_same_in_a_fresh_process(model, x, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("make", [hub_efficientnet, cv_efficientnet])
def test_layers_of_other_packages_are_imported_when_loading(make, tmp_path):
    model = detector(make(), size=64)
    x, _ = drawn_batch(1, model.input_policy)
    assert_same_in_a_fresh_process(model, x, tmp_path)


@pytest.mark.slow
def test_a_frozen_first_convolution_does_not_move():
    model = detector(application("MobileNetV2", alpha=0.35), size=64, frozen_stages=1)
    kernel = numpy_of(first_kernel(model))
    train(model, 2, num_images=1, run_eagerly=True)
    np.testing.assert_array_equal(numpy_of(first_kernel(model)), kernel)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "levels", "rescales"),
    [
        ("ResNet50", "conv2_block3_out conv3_block4_out conv4_block6_out conv5_block3_out", False),
        ("ResNet50V2", "conv2_block2_out conv3_block3_out conv4_block5_out post_relu", False),
        ("EfficientNetV2B0", "block2b_add block3b_add block5e_add top_activation", True),
        ("MobileNet", "conv_pw_3_relu conv_pw_5_relu conv_pw_11_relu conv_pw_13_relu", False),
        ("VGG16", "block3_conv3 block4_conv3 block5_conv3 block5_pool", False),
    ],
)
def test_levels_of_keras_applications(name, levels, rescales):
    backbone = BackboneAdapter(application(name))
    assert backbone.levels == levels.split()
    assert backbone.rescales == rescales


@pytest.mark.slow
def test_a_network_without_exact_strides_is_refused():
    # Its convolutions without padding make 125 of 256 pixels, not 128.
    with pytest.raises(ValueError, match="'inception_v3' has none for C2 .*, C5"):
        BackboneAdapter(application("InceptionV3"))
