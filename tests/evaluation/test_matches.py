import json

import numpy as np
import pytest
from evaluation.cases import found, make_data, perturbed, random_case

from libra_keras import data as readers
from libra_keras.evaluation import (
    ap_by_crowding,
    ap_by_size,
    coco_numbers,
    detections_to_coco,
    evaluate_detections,
    overlaps,
)
from libra_keras.evaluation import matches as matching

BOX = (0, 0, 40, 40)
ROW = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 4, 4], "score": 0.5}


def compared(data, detections):
    return overlaps(data, detections_to_coco(detections, data.category_ids))


def check_against_pycocotools(data, detections):
    given = compared(data, detections)
    parts = ap_by_size(given)
    numbers, expected = coco_numbers(given, parts), evaluate_detections(data, detections)
    assert list(numbers) == list(expected)
    assert numbers == pytest.approx(expected, abs=1e-12, nan_ok=True)
    return parts


def test_all_numbers_are_those_of_pycocotools(photographs):
    for seed in range(3):
        data, detections = random_case(np.random.default_rng(seed))  # with crowds
        for row in data.annotations["annotations"][::9]:
            row["ignore"] = 1
        check_against_pycocotools(data, detections)
    cells = readers.voc(photographs("bccd"), "test").subset(range(30))
    parts = check_against_pycocotools(cells, perturbed(cells))
    assert (
        sum(parts[size]["objects"] for size in ("small", "medium", "large"))
        == (parts["all"]["objects"])
    )


def test_photographs_with_crowds(photographs):
    folder = photographs("coco_mini")
    some = readers.load(folder, "val2017").subset(range(25))
    assert any(row["iscrowd"] for row in some.annotations["annotations"])
    check_against_pycocotools(some, perturbed(some))


def test_scores_that_tie_and_many_detections_of_a_class():
    # Two right and two wrong ones of a score, in two images: the order decides the precision.
    data = make_data({2: [(0, *BOX)], 1: [(0, *BOX)]})
    wrong, right = (0, 0.5, 100, 100, 140, 140), (0, 0.5, *BOX)
    check_against_pycocotools(data, [found(2, right, wrong), found(1, wrong, right)])
    # Of 101 of a class in an image the last does not count, but that of another class does.
    rows = [(0, 0.9, 100, 100, 140, 140)] * 100 + [(0, 0.5, *BOX), (1, 0.4, *BOX)]
    data = make_data({1: [(0, *BOX), (1, *BOX)]})
    assert check_against_pycocotools(data, [found(1, *rows)])["all"]["AP50"] == 0.5


def test_two_objects_of_one_place():
    # Of equal overlaps the last object is taken: the second detection fits the first alone.
    data = make_data({1: [(0, *BOX), (0, *BOX), (0, 0, 0, 40, 60)]})
    rows = (0, 0.9, *BOX), (0, 0.8, 0, 0, 40, 50), (0, 0.7, *BOX)
    check_against_pycocotools(data, [found(1, *rows)])
    assert matching.match(compared(data, [found(1, *rows)])).object.tolist() == [1, 2, 0]


def test_blocks_of_pairs_change_nothing(monkeypatch):
    data, detections = random_case(np.random.default_rng(3))
    whole = compared(data, detections).pairs
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 7)
    for name, column in compared(data, detections).pairs.items():
        assert len(column) and np.array_equal(column, whole[name])


def test_boxes_without_area_overlap_nothing():
    data = make_data({1: [(0, 10, 10, 10, 10), (0, *BOX)]})
    assert not len(compared(data, [found(1, (0, 0.9, 10, 10, 10, 10))]).pairs["iou"])


@pytest.mark.parametrize(
    "change",
    [{"image_id": 9}, {"category_id": 9}, {"score": np.nan}, {"bbox": [0, 0, np.inf, 1]}],
)
def test_rows_that_cannot_be_used(change):
    data = make_data({1: [(0, *BOX)]})
    with pytest.raises(ValueError, match=r"Received: rows\[1\] = "):
        overlaps(data, [ROW, {**ROW, **change}])


def test_categories_that_are_no_class_are_left_out():
    data = make_data({1: [(0, *BOX)]})
    other = {**data.annotations["annotations"][0], "category_id": 7}
    data.annotations["annotations"].append(other)
    assert compared(data, []).num_objects().tolist() == [1, 0]


def test_crowding_by_hand():
    # One object, found; two, of which one is found after an error; none, and an error.
    truth = {1: [(0, *BOX)], 2: [(0, *BOX), (0, 50, 50, 90, 90)], 3: [], 4: [(1, *BOX)]}
    nowhere = (0, 0.9, 100, 100, 140, 140)
    detections = [
        found(1, (0, 0.5, *BOX)), found(2, nowhere, (0, 0.8, *BOX)), found(3, nowhere),
    ]  # fmt: skip
    parts = ap_by_crowding(compared(make_data(truth, crowds=[3]), detections))
    # The crowd of image 4 is nothing to find.
    images = {name: (part["images"], part["objects"], part["AP50"]) for name, part in parts.items()}
    half = pytest.approx(51 * 0.5 / 101)  # recall 1/2 at precision 1/2
    expected = {"0": (2, 0, None), "1": (1, 1, 1), "2-4": (1, 2, half)}
    assert images == expected | dict.fromkeys(("5-9", "10-19", "20+"), (0, 0, None))
    json.dumps(parts, allow_nan=False)
