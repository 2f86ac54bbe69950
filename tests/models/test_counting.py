"""How many boxes an image gave to learn from, counted by hand."""

import numpy as np
import pytest
from keras import ops

from libra_keras.layers import MultilevelROIAlign
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    GroundTruth,
    RetinaHead,
    RetinaHeadSettings,
    RPNHead,
    RPNSettings,
)
from libra_keras.models.counting import mean_per_image
from libra_keras.models.proposals import Proposals

pytestmark = pytest.mark.portable
SIZES = np.array([[64, 64], [64, 64]], "int32")
PYRAMID = [np.ones((2, 8, 8, 4), "float32")]  # stride 8
# The anchors of 32 pixels are centred on 0, 8, .. 56: this is one of them.
OBJECTS = {"boxes": [[[8.0, 8.0, 40.0, 40.0]], [[0.0] * 4]], "labels": [[1], [-1]]}


def keys(num):
    return np.random.default_rng(0).random((2, num), "float32")


def counted(head):
    return float(ops.convert_to_numpy(head.positives.result()))


def test_blank_images_do_not_count():
    chosen, present = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], "float32"), [1.0, 1.0, 0.0]
    assert float(mean_per_image(chosen, ops.convert_to_tensor(present))) == 1.5
    assert float(mean_per_image(chosen[2:], ops.convert_to_tensor([0.0]))) == 0


def test_first_stage():
    settings = RPNSettings(channels=4, strides=(8,), scales=(4.0,), ratios=(1.0,))
    head = RPNHead(settings)
    outputs = head([ops.convert_to_tensor(level) for level in PYRAMID])
    head.compute_losses(outputs, GroundTruth.of(OBJECTS), SIZES, keys)
    # Its neighbours overlap the object by 24 * 32 / (2 * 1024 - 24 * 32) = 0.6, less than 0.7.
    assert counted(head) == 1 / 2


def test_second_stage():
    head = BoxHead(3, BoxHeadSettings(channels=4), roi_align=MultilevelROIAlign(strides=(8,)))
    near, far = [8.0, 8.0, 40.0, 32.0], [40.0, 40.0, 60.0, 60.0]
    proposals = Proposals(
        np.array([[near, far, near], [near, far, near]], "float32"),
        np.ones((2, 3), "float32"),
        np.array([[True, True, False], [True, True, False]]),
    )
    pyramid = [ops.convert_to_tensor(level) for level in PYRAMID]
    head.compute_losses(pyramid, proposals, GroundTruth.of(OBJECTS), keys)
    assert counted(head) == 2 / 2  # the object itself, and the proposal near it


def test_second_stage_without_proposals():
    head = BoxHead(3, BoxHeadSettings(channels=4), roi_align=MultilevelROIAlign(strides=(8,)))
    mask = np.array([[True, True], [False, False]])  # nothing in the second image
    boxes = np.array([[[8.0, 8.0, 40.0, 32.0], [40.0, 40.0, 60.0, 60.0]]] * 2, "float32")
    proposals = Proposals(boxes, np.ones((2, 2), "float32"), mask)
    pyramid = [ops.convert_to_tensor(level) for level in PYRAMID]
    head.compute_losses(pyramid, proposals, GroundTruth.of(OBJECTS), keys)
    assert counted(head) == 2


def test_one_stage():
    settings = RetinaHeadSettings(
        channels=4, num_convs=1, strides=(8,), base_scale=4.0, scales_per_octave=1, ratios=(1.0,)
    )
    head = RetinaHead(3, settings)
    outputs = head([ops.convert_to_tensor(level) for level in PYRAMID])
    head.compute_losses(outputs, GroundTruth.of(OBJECTS), SIZES)
    # The four neighbours by edges count here, from 0.5; those by corners have 24^2 shared, 0.39.
    assert counted(head) == 5 / 2
