"""What each stage should answer, and how many boxes an image gave to learn from, by hand."""

import numpy as np
import pytest
from keras import ops

from libra_keras.functional.matching import Match
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
from libra_keras.models.proposals import Proposals
from libra_keras.models.targets import (
    match_anchors,
    match_proposals,
    mean_per_image,
    sample_targets,
)
from libra_keras.samplers import RandomSampler

SIZES = np.array([[64, 64], [64, 64]], "int32")
PYRAMID = [np.ones((2, 8, 8, 4), "float32")]  # stride 8
# The anchors of 32 pixels are centred on 0, 8, .. 56: this is one of them.
OBJECTS = {"boxes": [[[8.0, 8.0, 40.0, 40.0]], [[0.0] * 4]], "labels": [[1], [-1]]}


def truth(boxes, labels):
    return GroundTruth.of({"boxes": np.array(boxes, "float32"), "labels": np.array(labels)})


def numpy(parts):
    return [ops.convert_to_numpy(part) for part in parts]


def test_padding_rows_are_known_by_their_label_alone():
    # an augmentation has moved the padding box; it must not count
    objects = truth([[[0, 0, 8, 8], [97, 0, 98, 1]]], [[4, -1]])
    boxes, labels, mask = numpy(objects)
    assert mask.tolist() == [[True, False]] and labels.tolist() == [[4, 0]]
    assert not boxes[0, 1].any()


def test_keras_cv_names_the_labels_classes():
    objects = GroundTruth.of({"boxes": [[[0.0, 0.0, 8.0, 8.0]]], "classes": [[4.0]]})
    assert ops.convert_to_numpy(objects.labels).tolist() == [[4]]


def test_anchors_in_the_padding_are_not_trained():
    anchors = np.array([[0, 0, 20, 20], [60, 0, 80, 20], [0, 60, 20, 80]], "float32")
    objects = truth([[[0, 0, 0, 0]], [[0, 0, 0, 0]]], [[-1], [-1]])
    # image 0 is 40 x 70 and counts as 64 x 96; image 1 is 96 x 33 and counts as 96 x 64
    sizes = np.array([[40, 70], [96, 33]])
    found = match_anchors(anchors, objects.boxes, objects.mask, sizes, RPNSettings())
    negative = ops.convert_to_numpy(found.is_negative)
    assert negative.tolist() == [[True, True, False], [True, False, True]]


def test_objects_stand_before_proposals_as_their_own_match():
    objects = truth([[[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]]], [[1, 2, -1]])
    proposals = Proposals(
        np.array([[[20, 20, 40, 39], [0, 0, 0, 0], [60, 60, 70, 70]]], "float32"),
        np.ones((1, 3), "float32"),
        np.array([[True, False, True]]),
    )
    candidates, found = match_proposals(proposals, objects, 0.5)
    matched, best, positive, negative = numpy(found)
    assert ops.shape(candidates) == (1, 6, 4)
    assert positive.tolist() == [[True, True, False, True, False, False]]
    assert negative.tolist() == [[False, False, False, False, False, True]]
    assert matched[0, :2].tolist() == [0, 1] and matched[0, 3] == 1
    np.testing.assert_allclose(best[0], [1, 1, 0, 0.95, 0, 0], atol=1e-6)


def test_sampled_targets_belong_to_the_sampled_candidates():
    objects = truth([[[0, 0, 10, 10], [20, 20, 40, 40]]], [[7, 5]])
    found = Match(
        np.array([[0, 1, 0, 1]], "int32"),
        np.array([[0.1, 0.9, 0.2, 0.6]], "float32"),
        np.array([[False, True, False, True]]),
        np.array([[True, False, True, False]]),
    )
    keys = np.array([[0.5, 0.1, 0.2, 0.9]], "float32")
    sampler = RandomSampler(num=3, positive_fraction=0.34)
    indices, targets = sample_targets(found, objects, sampler, keys)
    assert ops.convert_to_numpy(indices)[0, 0] == 1  # the one positive that fits: smallest key
    labels, boxes, positive, weights = numpy(targets)
    assert positive.tolist() == [[True, False, False]] and labels[0, 0] == 5
    assert boxes[0, 0].tolist() == [20, 20, 40, 40] and weights.tolist() == [[1, 1, 1]]


def keys(num):
    return np.random.default_rng(0).random((2, num), "float32")


def counted(head):
    return float(ops.convert_to_numpy(head.positives.result()))


@pytest.mark.portable
def test_blank_images_do_not_count():
    chosen, present = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], "float32"), [1.0, 1.0, 0.0]
    assert float(mean_per_image(chosen, ops.convert_to_tensor(present))) == 1.5
    assert float(mean_per_image(chosen[2:], ops.convert_to_tensor([0.0]))) == 0


@pytest.mark.portable
def test_positives_of_the_first_stage_are_counted():
    settings = RPNSettings(channels=4, strides=(8,), scales=(4.0,), ratios=(1.0,))
    head = RPNHead(settings)
    outputs = head([ops.convert_to_tensor(level) for level in PYRAMID])
    head.compute_losses(outputs, GroundTruth.of(OBJECTS), SIZES, keys)
    # Its neighbours overlap the object by 24 * 32 / (2 * 1024 - 24 * 32) = 0.6, less than 0.7.
    assert counted(head) == 1 / 2


@pytest.mark.portable
def test_positives_of_the_second_stage_are_counted():
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


@pytest.mark.portable
def test_images_without_proposals_are_not_counted():
    head = BoxHead(3, BoxHeadSettings(channels=4), roi_align=MultilevelROIAlign(strides=(8,)))
    mask = np.array([[True, True], [False, False]])  # nothing in the second image
    boxes = np.array([[[8.0, 8.0, 40.0, 32.0], [40.0, 40.0, 60.0, 60.0]]] * 2, "float32")
    proposals = Proposals(boxes, np.ones((2, 2), "float32"), mask)
    pyramid = [ops.convert_to_tensor(level) for level in PYRAMID]
    head.compute_losses(pyramid, proposals, GroundTruth.of(OBJECTS), keys)
    assert counted(head) == 2


@pytest.mark.portable
def test_positives_of_the_one_stage_are_counted():
    settings = RetinaHeadSettings(
        channels=4, num_convs=1, strides=(8,), base_scale=4.0, scales_per_octave=1, ratios=(1.0,)
    )
    head = RetinaHead(3, settings)
    outputs = head([ops.convert_to_tensor(level) for level in PYRAMID])
    head.compute_losses(outputs, GroundTruth.of(OBJECTS), SIZES)
    # The four neighbours by edges count here, from 0.5; those by corners have 24^2 shared, 0.39.
    assert counted(head) == 5 / 2
