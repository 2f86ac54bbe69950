"""`BoxMatcher` and the label encoders of KerasCV and KerasHub with our samplers."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.data import dialects
from libra_keras.functional.matching import match
from libra_keras.samplers import IoUBalancedSampler, SampledBoxMatcher, from_box_matcher

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PACKAGES = ["keras_cv", "keras_hub"]


@pytest.fixture(params=PACKAGES)
def package(request):
    return request.getfixturevalue(request.param)


def matcher_of(package):
    # New lists: the layers put infinities into those they are given.
    return package.layers.BoxMatcher(thresholds=[0.4, 0.5], match_values=[-1, -2, 1])


def test_same_matches_as_ours(package, rng):
    overlaps = rng.uniform(0, 1, (2, 40, 3)).astype("float32") ** 2
    overlaps[1, :, 2] = 0.0  # a padding column
    columns, values = matcher_of(package)(ops.convert_to_tensor(overlaps))
    theirs = from_box_matcher(overlaps, columns, values)
    ours = match(overlaps, np.array([[1, 1, 1], [1, 1, 0]], bool), 0.5, 0.4)
    theirs, ours = (type(m)(*map(ops.convert_to_numpy, m)) for m in (theirs, ours))
    np.testing.assert_allclose(theirs.max_iou, ours.max_iou)
    assert np.array_equal(theirs.is_positive, ours.is_positive)
    assert np.array_equal(theirs.is_negative, ours.is_negative)
    found = theirs.is_positive
    assert np.array_equal(theirs.matched_gt[found], ours.matched_gt[found])


def test_without_objects_all_boxes_are_background(package):
    overlaps = np.zeros((2, 5, 0), "float32")
    found = from_box_matcher(overlaps, *matcher_of(package)(ops.convert_to_tensor(overlaps)))
    assert np.all(ops.convert_to_numpy(found.is_negative))


def classes_of(name, recipe, sampler=None):
    """The class targets of one scene from the package's own label encoder."""
    detector, scene = recipe(name), recipe("scene")
    encoder = detector.small_retinanet(detector.small_backbone()).label_encoder
    if sampler is not None:
        encoder.box_matcher = SampledBoxMatcher(encoder.box_matcher, sampler)
    key = "classes" if name.startswith("kerascv") else "labels"
    sample = dialects.to_sample(*scene.batch_of(scene.drawn_scene()), detector.FORMAT, key)
    images = ops.cast(sample["images"], "float32")
    boxes = sample["bounding_boxes"]
    if key == "classes":
        return ops.convert_to_numpy(encoder(images, boxes)[1])[0]
    targets = encoder(images=images, gt_boxes=boxes["boxes"], gt_classes=boxes["labels"])
    return ops.convert_to_numpy(targets[1])[0]


@pytest.mark.parametrize("name", ["kerascv_detector", "kerashub_detector"])
def test_label_encoder_learns_from_the_sample_alone(name, recipe):
    keras.utils.set_random_seed(0)
    everything = classes_of(name, recipe)
    positives = np.sum(everything >= 0)
    assert positives > 0 and np.sum(everything == -1) > 1000
    sampler = IoUBalancedSampler.preset("paper_text", num=64, positive_fraction=0.5)
    sampled = classes_of(name, recipe, sampler)
    real = sampled != -2
    assert np.array_equal(sampled[real], everything[real])
    assert np.sum(sampled >= 0) == min(positives, 32) and np.sum(real) == 64
