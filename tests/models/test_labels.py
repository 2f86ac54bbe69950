"""What a detector cannot be trained with: labels of other classes, no labels, Keras' own losses."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras import models
from libra_keras.models import GroundTruth
from libra_keras.models.ground_truth import check_labels


@pytest.mark.slow
def test_labels_of_classes_that_the_model_has_not_are_no_background():
    """Labels that start at 1 would otherwise train, and look well."""
    model = models.retinanet_small(num_classes=2)
    x = {"images": np.zeros((1, 64, 64, 3), "uint8"), "image_sizes": np.array([[64, 64]], "int32")}
    boxes = np.array([[[4.0, 4.0, 40.0, 40.0], [0.0, 0.0, 20.0, 30.0]]], "float32")
    model.compile("sgd")
    good = {"boxes": boxes, "labels": np.array([[0, 1]], "int32")}
    assert np.isfinite(model.train_on_batch(x, good)[0])
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    y = {"boxes": boxes, "labels": np.array([[1, 2]], "int32")}
    y = {key: ops.convert_to_tensor(value) for key, value in y.items()}  # arrays never come so far
    if keras.backend.backend() == "tensorflow":
        words = r"^Labels must be in 0\.\.1, or -1 for padding. Received: 2$"
        with pytest.raises(ValueError, match=words):
            model.train_on_batch(x, y)
        for one, other in zip(model.trainable_variables, before, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(one), other)
    elif keras.backend.backend() == "torch":
        with pytest.raises(ValueError, match=r"Labels must be in 0\.\.1, .*Received: 2"):
            model.train_on_batch(x, y)
    else:
        assert np.isnan(model.train_on_batch(x, y)[0])


def test_a_region_proposal_network_takes_any_class():
    labels = ops.convert_to_tensor([[7, 2]])
    assert not check_labels(labels, models.rpn_small())


@pytest.mark.parametrize("y", [None, (1, 2), np.zeros((1, 2))])
def test_what_is_no_dict_is_named(y):
    with pytest.raises(ValueError, match=rf"must be a dict.*Received: {type(y).__name__}"):
        GroundTruth.of(y)


def test_losses_and_metrics_of_keras_are_refused():
    model = models.rpn_small()
    with pytest.raises(ValueError, match="COCOEvaluation.*Received: loss, metrics"):
        model.compile("sgd", loss="mse", metrics=["accuracy"])
