import json

import numpy as np
import pytest
from evaluation.cases import found, make_data, random_case

from libra_keras.evaluation import (
    calibration,
    confusion,
    detections_to_coco,
    evaluate_detections,
    f1_by_threshold,
    overlaps,
    precision_recall,
)

A, B = (0, 0, 40, 40), (60, 0, 100, 40)
NOWHERE = (0, 150, 40, 190)


def compared(data, *detections):
    return overlaps(data, detections_to_coco(detections, data.category_ids))


def test_the_mean_height_of_a_curve_is_the_ap():
    data, detections = random_case(np.random.default_rng(0))
    metrics = evaluate_detections(data, detections)
    for min_iou, name in ((0.5, "AP50"), (0.75, "AP75")):
        curves = precision_recall(compared(data, *detections), min_iou)
        assert np.mean(curves["precision"]) == pytest.approx(metrics[name], abs=1e-12)
        assert np.mean(curves["mean"]) == pytest.approx(metrics[name], abs=1e-12)
        assert len(curves["recall"]) == 101


def test_f1_by_hand():
    # Scores 0.9 right, 0.8 wrong and right, 0.3 wrong: 2 of 3 objects. F1 = 2 right / (kept + 3):
    # 2/4 from 0.9 on, 4/6 from 0.8 on, 4/7 with all. The two of score 0.8 stay together.
    data = make_data({1: [(0, *A), (0, *B), (0, 100, 100, 140, 140)]})
    rows = (0, 0.9, *A), (0, 0.8, *NOWHERE), (0, 0.8, *B), (0, 0.3, *NOWHERE)
    curves = f1_by_threshold(compared(data, found(1, *rows)))
    a, b = curves["classes"]
    expected = {"threshold": 0.8, "f1": 4 / 6, "precision": 2 / 3, "recall": 2 / 3}
    assert a["best"] == pytest.approx(expected) and curves["all"] == a
    at = {threshold: i for i, threshold in enumerate(curves["thresholds"])}
    values = [[a[name][at[t]] for t in (0, 0.31, 0.8, 0.81, 0.9)] for name in ("f1", "recall")]
    assert values[0] == pytest.approx([4 / 7, 4 / 6, 4 / 6, 2 / 4, 2 / 4])
    assert values[1] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert a["precision"][at[0.91]] is None and a["f1"][at[0.91]] == 0
    assert b["best"] is None and set(b["f1"] + b["recall"]) == {None}


def test_confusion_by_hand():
    data = make_data({1: [(0, *A), (1, *B), (0, 100, 100, 140, 140)], 2: [(1, *A)]}, crowds=[3])
    rows = [
        (0, 0.9, *A),  # right
        (1, 0.8, *A),  # of another class, but this object has its detection: background
        (0, 0.7, *B),  # a for b
        (0, 0.6, *B),  # and again: background
        (1, 0.4, 100, 100, 140, 140),  # b for a, below the threshold
    ]
    given = compared(data, found(1, *rows), found(2, (1, 0.9, *A)))  # on a crowd: left out
    assert confusion(given, 0.5)["counts"] == [[1, 0, 1], [1, 0, 0], [1, 1, 0]]
    assert confusion(given, 0.4)["counts"] == [[1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert confusion(given, 1)["counts"] == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]


def test_a_detection_of_the_own_class_goes_before_a_better_one_of_another():
    given = compared(make_data({1: [(0, *A)]}), found(1, (1, 0.9, *A), (0, 0.6, *A)))
    assert confusion(given, 0.5)["counts"] == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert confusion(given, 0.7)["counts"] == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_calibration_by_hand():
    data = make_data({1: [(0, *A), (1, *B)]})
    rows = (0, 1.0, *A), (0, 0.9, *NOWHERE), (1, 0.3, *B), (1, 0.05, *NOWHERE)
    result = calibration(compared(data, found(1, *rows)))
    # 0.3 begins a bin, 1 belongs to the last. |0.95 - 1/2| of two, |0.3 - 1|, |0.05 - 0|.
    filled = {i: each for i, each in enumerate(result["bins"]) if each["count"]}
    values = {i: (each["count"], each["score"], each["precision"]) for i, each in filled.items()}
    expected = {0: (1, 0.05, 0), 3: (1, 0.3, 1), 9: (2, pytest.approx(0.95), 0.5)}
    assert values == expected
    assert result["expected_error"] == pytest.approx((2 * 0.45 + 0.7 + 0.05) / 4)
    assert result["bins"][5]["precision"] is None
    with pytest.raises(ValueError, match=r"scores in 0..1. Received: 0.3 to 1.5"):
        calibration(compared(data, found(1, (0, 1.5, *A), (1, 0.3, *B))))


def test_nothing_found_and_nothing_to_find():
    full, empty = make_data({1: [(0, *A)], 2: []}), make_data({1: []})
    row = found(1, (0, 0.9, *A))
    for given in (compared(full), compared(empty), compared(empty, row)):
        curves, f1 = precision_recall(given), f1_by_threshold(given)
        results = [curves, f1, confusion(given, 0.5), calibration(given)]
        json.dumps(results, allow_nan=False)
        assert f1["all"]["best"] is None
    assert precision_recall(compared(full))["mean"] == [0.0] * 101
    assert precision_recall(compared(empty, row))["mean"] == [None] * 101
    assert confusion(compared(empty, row), 0.5)["counts"][2] == [1, 0, 0]
