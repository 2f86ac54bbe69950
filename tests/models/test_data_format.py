"""Detectors are the same under Keras' setting `channels_first`: their images have channels last."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.data import InputPolicy
from libra_keras.models import libra_faster_rcnn_small, retinanet_small


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    yield lambda: keras.config.set_image_data_format("channels_first")
    keras.config.set_image_data_format(before)


@pytest.mark.parametrize("make", [libra_faster_rcnn_small, retinanet_small])
def test_detectors_keep_channels_last(channels_first, rng, make):
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
