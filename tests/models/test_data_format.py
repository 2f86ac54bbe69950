"""Detectors are the same under Keras' setting `channels_first`: their images have channels last."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.backbones import ResNet
from libra_keras.data import InputPolicy
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid, NonLocalBlock
from libra_keras.models import (
    BoxHead,
    RetinaHead,
    RetinaHeadSettings,
    RetinaNet,
    RPNHead,
    libra_faster_rcnn_small,
    retinanet_small,
)


def of_parts(num_classes, **options):
    """A detector of layers that nobody told anything."""
    settings = RetinaHeadSettings(channels=8, num_convs=1, strides=(4, 8, 16, 32, 64))
    neck = [FeaturePyramid(8), BalancedFeaturePyramid(2, NonLocalBlock(reduction=1))]
    return RetinaNet(ResNet(18, width=8), neck, RetinaHead(num_classes, settings), **options)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    yield lambda: keras.config.set_image_data_format("channels_first")
    keras.config.set_image_data_format(before)


@pytest.mark.parametrize("make", [retinanet_small, libra_faster_rcnn_small, of_parts])
@pytest.mark.slow
def test_detectors_keep_channels_last(channels_first, rng, tmp_path, make):
    x = {
        "images": rng.integers(0, 255, (1, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96]], "int32"),
    }
    y = {"boxes": np.float32([[[8, 8, 40, 40]]]), "labels": np.array([[1]], "int32")}
    found = []
    for setting in (lambda: None, channels_first):
        setting()
        keras.utils.set_random_seed(3)
        model = make(num_classes=2, input_policy=InputPolicy(64, 96))
        outputs = model(x)
        loss = model.compute_loss(x, y, outputs)
        found.append([*map(ops.convert_to_numpy, (loss, outputs["boxes"]))])
    for default, other in zip(*found, strict=True):
        np.testing.assert_array_equal(default, other)

    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.train_on_batch(x, y)[0])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = ops.convert_to_numpy(model(x)["boxes"])
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)["boxes"]), expected)


@pytest.mark.parametrize(
    "make", [RPNHead, lambda **k: RetinaHead(2, **k), lambda **k: BoxHead(2, **k)]
)
def test_heads_that_stand_alone_are_told(channels_first, make):
    channels_first()
    level = [(1, 8, 8, 16)] * 5
    with pytest.raises(ValueError, match="was 'channels_first' when it was made"):
        make().build(level)
    head = make(data_format="channels_last")
    head.build(level)
    again = type(head).from_config(head.get_config())
    assert again.data_format == "channels_last"
    old = head.get_config()
    del old["data_format"]  # as files have it that are older than the argument
    assert type(head).from_config(old).data_format == "channels_last"
