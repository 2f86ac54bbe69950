"""Pascal VOC's AP, by hand and against a plain transcription of the rule, one box at a time."""

import numpy as np
import pytest
from evaluation.cases import found, make_data, random_case

from libra_keras.evaluation import evaluate_detections, voc_ap
from libra_keras.evaluation.voc_metrics import average_precision

A, B, C = (0, 0, 40, 40), (60, 0, 100, 40), (120, 0, 160, 40)
NOWHERE = (0, 150, 40, 190)


def both(metrics, name=""):
    return [metrics[f"VOC_AP50_{form}{name}"] for form in ("07", "area")]


def difficult(data, *positions):
    for position in positions:
        data.annotations["annotations"][position]["ignore"] = 1
    return data


def test_11_points_and_area_by_hand():
    # Of 4 objects 2 are found: right, wrong, right. Precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2.
    # The best at this recall or above: 1 up to 0.25, 2/3 up to 0.5, then 0.
    # 11 points: 0, 0.1, 0.2 have 1; 0.3, 0.4, 0.5 have 2/3; five have 0.
    # Area: 0.25 * 1 + 0.25 * 2/3.
    truth = [(0, *A), (0, *B), (0, *C), (0, 0, 60, 40, 100)]
    rows = [(0, 0.9, *A), (0, 0.8, *NOWHERE), (0, 0.7, *B)]
    metrics = voc_ap(make_data({1: truth}), [found(1, *rows)])
    assert both(metrics, "/a") == pytest.approx([(3 + 3 * 2 / 3) / 11, 0.25 + 0.25 * 2 / 3])
    assert np.isnan(both(metrics, "/b")).all()  # nothing of class b: not in the mean
    assert both(metrics) == both(metrics, "/a")


def test_recall_of_exactly_a_tenth_reaches_its_point():
    # 3 / 10 >= 0.3, but 0.1 * 3 is a little more. All right: points 0, 0.1, 0.2, 0.3.
    assert average_precision([True] * 3, 10, "VOC_AP50_07") == pytest.approx(4 / 11)
    for right in range(11):
        value = average_precision([True] * right, 10, "VOC_AP50_07")
        assert value == pytest.approx((right + 1 if right else 0) / 11)


def test_a_second_detection_of_an_object_is_wrong():
    data = make_data({1: [(0, *A), (0, *B)]})
    # Right, wrong (again A), right: area 0.5 * 1 + 0.5 * 2/3.
    rows = (0, 0.9, *A), (0, 0.8, *A), (0, 0.7, *B)
    assert both(voc_ap(data, [found(1, *rows)]))[1] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_detection_belongs_to_the_object_that_it_overlaps_most():
    # Two objects that overlap each other by 3/5. Both detections are nearest to the first, and
    # have an IoU of over 0.5 with the second: COCO gives the second one to it, VOC does not.
    data = make_data({1: [(0, 0, 0, 40, 40), (0, 10, 0, 50, 40)]})
    detections = [found(1, (0, 0.9, 0, 0, 40, 40), (0, 0.8, 1, 0, 41, 40))]
    assert both(voc_ap(data, detections))[1] == pytest.approx(0.5)
    assert evaluate_detections(data, detections)["AP50"] == pytest.approx(1)


def test_difficult_objects_are_neither_to_find_nor_an_error():
    data = difficult(make_data({1: [(0, *A), (0, *B)]}), 1)
    for rows in ([], [(0, 0.9, *B)], [(0, 0.9, *B), (0, 0.85, *B)]):
        assert both(voc_ap(data, [found(1, (0, 0.8, *A), *rows)])) == pytest.approx([1, 1])
    # IoU 0.4 with the difficult one: wrong, and the hit comes second.
    beside = (0, 0.9, 60, 0, 100, 16)
    assert both(voc_ap(data, [found(1, (0, 0.8, *A), beside)]))[1] == pytest.approx(0.5)
    only = difficult(make_data({1: [(0, *A)]}), 0)
    assert np.isnan(list(voc_ap(only, [found(1, (0, 0.9, *A))]).values())).all()


def test_iou_of_a_half_is_enough_and_images_and_classes_are_apart():
    data = make_data({1: [(0, *A)], 2: [(1, *A)]})
    half = 0, 0, 40, 20
    assert both(voc_ap(data, [found(1, (0, 0.9, *half)), found(2, (1, 0.9, *half))])) == [1, 1]
    less = found(1, (0, 0.9, 0, 0, 40, 19.99))
    other_class, other_image = found(1, (1, 0.9, *A)), found(2, (0, 0.9, *A))
    for detections in ([less], [other_class], [other_image], [], [found(1)]):
        assert both(voc_ap(data, detections)) == [0, 0]


def test_pixels_are_those_of_the_development_kit():
    # Object (1, 1)-(3, 3) in VOC's pixels, 9 of them; detection (1, 1)-(3, 2), 6. With its + 1 the
    # kit has 6 / 9. Half-open: [0, 0, 3, 3] and [0, 0, 3, 2]. Without any + 1, 2 / 4 on its
    # corners; a detection of (1, 1)-(2, 2) is 4 / 9: too little, though not by much.
    data = make_data({1: [(0, 0, 0, 3, 3)]})
    assert both(voc_ap(data, [found(1, (0, 0.9, 0, 0, 3, 2))])) == [1, 1]
    assert both(voc_ap(data, [found(1, (0, 0.9, 0, 0, 2, 2))])) == [0, 0]


def test_more_than_a_hundred_detections_count():
    data = make_data({1: [(0, *A)]})
    rows = [(0, 0.9, *NOWHERE)] * 150 + [(0, 0.1, *A)]
    assert both(voc_ap(data, [found(1, *rows)])) == pytest.approx([1 / 151] * 2)
    assert evaluate_detections(data, [found(1, *rows)])["AP50"] == 0


def test_nothing_at_all():
    assert np.isnan(list(voc_ap(make_data({1: []}), []).values())).all()
    with pytest.raises(ValueError, match="image 1 twice"):
        voc_ap(make_data({1: []}), [found(1), found(1)])


def one_by_one(data, detections, label):
    """The rule as VOC's kit states it, for one class: area AP."""
    objects = {}
    for row in data.annotations["annotations"]:
        if row["category_id"] == data.category_ids[label]:
            x, y, w, h = row["bbox"]
            flags = [bool(row["iscrowd"]), False]
            objects.setdefault(row["image_id"], []).append(((x, y, x + w, y + h), flags))
    num = sum(not flags[0] for rows in objects.values() for _, flags in rows)
    listed = [
        (score, image["image_id"], box)
        for image in detections
        for score, k, box in zip(image["scores"], image["labels"], image["boxes"], strict=True)
        if k == label
    ]
    right = []
    for _, image, box in sorted(listed, key=lambda row: -row[0]):
        best, best_flags = 0, None
        for other, flags in objects.get(image, []):
            w = max(0, min(box[2], other[2]) - max(box[0], other[0]))
            h = max(0, min(box[3], other[3]) - max(box[1], other[1]))
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            if (iou := w * h / (sum(areas) - w * h)) > best:
                best, best_flags = iou, flags
        if best >= 0.5 and best_flags[0]:
            continue
        right.append(best >= 0.5 and not best_flags[1])
        if best >= 0.5:
            best_flags[1] = True
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    steps = [max(precision[i:]) for i in range(len(right)) if right[i]]
    return sum(steps) / num


def test_the_rule_one_box_at_a_time():
    for seed in range(3):
        data, detections = random_case(np.random.default_rng(seed))
        metrics = voc_ap(data, detections)
        for label, name in enumerate(data.class_names):
            expected = one_by_one(data, detections, label)
            assert 0.1 < expected < 1
            assert metrics[f"VOC_AP50_area/{name}"] == pytest.approx(expected)
