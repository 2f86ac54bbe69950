"""Detectors and data whose classes have the same names in another order, or not all of them."""

import numpy as np
import pytest
from evaluation.cases import found, make_data

from libra_keras.evaluation import evaluate_detections
from libra_keras.evaluation.class_matching import check_classes, relabelled

TRUTH = {1: [(0, 0, 0, 40, 40), (1, 100, 100, 140, 140)], 2: []}
A, B = (0, 0, 40, 40), (100, 100, 140, 140)


def test_equal_names_change_nothing():
    data = make_data(TRUTH)
    detections = [found(1, (0, 0.9, *A))]
    check_classes(["a", "b"], 2, data)
    assert relabelled(detections, ["a", "b"], data) is detections
    assert relabelled(detections, None, data) is detections


def test_another_order():
    data = make_data(TRUTH)
    detections = [found(1, (1, 0.9, *A), (0, 0.8, *B)), found(2)]
    check_classes(["b", "a"], 2, data)
    metrics = evaluate_detections(data, relabelled(detections, ["b", "a"], data))
    assert metrics["AP"] == pytest.approx(1)
    assert evaluate_detections(data, detections)["AP"] == 0  # what the labels alone would say


def test_detections_of_classes_that_the_data_have_not_do_not_count():
    data = make_data(TRUTH)
    # The surest detection is of a third class, on an object; it is no false alarm of another.
    detections = [found(1, (2, 0.99, *A), (3, 0.9, *A), (1, 0.8, *B))]
    names = ["x", "b", "y", "a"]
    check_classes(names, 4, data)
    image = relabelled(detections, names, data)[0]
    assert image["labels"].tolist() == [0, 1] and image["scores"].tolist() == [0.9, 0.8]
    np.testing.assert_array_equal(image["boxes"], [A, B])
    assert evaluate_detections(data, [image])["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("names", "number", "message"),
    [
        (["a", "c"], 2, "does not know 1 of the 2 classes of test: b. It finds a, c$"),
        (list("acdefgh"), 7, r"It finds a, c, d, e, f, ... \(7 in total\)$"),
        (None, 3, "finds 3 classes without names, but test has 2"),
    ],
)
def test_classes_that_the_detector_does_not_know(names, number, message):
    with pytest.raises(ValueError, match=message):
        check_classes(names, number, make_data(TRUTH))
