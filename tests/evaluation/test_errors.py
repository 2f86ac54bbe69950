"""Errors by kind: by hand, and against the definition written out one box at a time."""

import json

import numpy as np
import pytest
from evaluation.cases import found, make_data, perturbed

from libra_keras import data as readers
from libra_keras.evaluation import detections_to_coco, errors_by_kind, evaluate_detections, overlaps
from libra_keras.evaluation.errors import FALSE_POSITIVES, KINDS

BOX = (0, 0, 40, 40)
QUARTER = (0, 0, 40, 10)  # IoU 0.25 with it
HALF = (0, 0, 40, 20)
ELSEWHERE = (100, 100, 140, 140)


def errors_of(data, *detections):
    return errors_by_kind(overlaps(data, detections_to_coco(detections, data.category_ids)))


def kinds_of(data, *detections):
    """The kinds of the false positives, best score first, and the number of missed objects."""
    errors = errors_of(data, *detections)
    kinds = [FALSE_POSITIVES[kind] for kind in errors.false_positives["kind"]]
    return kinds, errors.costs["missed"]["count"]


def every_kind():
    """Images 1 to 4 have an object of class a each, image 5 one of b."""
    data = make_data({**{i: [(0, *BOX)] for i in (1, 2, 3, 4)}, 5: [(1, *BOX)]})
    detections = [
        found(1, (0, 0.95, *BOX), (0, 0.9, *BOX), (0, 0.85, *ELSEWHERE)),  # right, again, nothing
        found(2, (0, 0.8, *QUARTER)),
        found(3, (0, 0.65, *BOX)),  # right
        found(5, (0, 0.75, *BOX), (0, 0.7, *QUARTER)),  # its class is b
    ]
    return data, *detections


def test_what_mending_each_kind_gives_by_hand():
    errors = errors_of(*every_kind())
    # Class a, best first: right, duplicate, background, location, class, both, right. Of 4 objects
    # 1/4 are found at precision 1, 2/4 at 2/7: 26 of the 101 recall points have 1, the next 25 2/7.
    # Class b is not found: AP 0. All kinds are counted once; image 4 is missed, image 2 and 5 have
    # an error that would find them.
    a = (26 + 25 * 2 / 7) / 101
    mended = {
        # One false positive less before the second hit: 2/6.
        "duplicate": (26 + 25 * 2 / 6) / 101 / 2,
        "background": (26 + 25 * 2 / 6) / 101 / 2,
        "both": (26 + 25 * 2 / 6) / 101 / 2,
        # Right at rank 4: precision 1, 2/4, 3/7 at recall 1/4, 2/4, 3/4.
        "location": (26 + 25 * 2 / 4 + 25 * 3 / 7) / 101 / 2,
        # 2/6 in class a, and all of class b is found.
        "class": ((26 + 25 * 2 / 6) / 101 + 1) / 2,
        # 2 of 3 objects: recall 1/3 (34 points) and 2/3 (33).
        "missed": (34 + 33 * 2 / 7) / 101 / 2,
        # Recall 2/4 at precision 1, in one class.
        "false_positives": 51 / 101 / 2,
        # 2 of 2 objects in a; in b nothing is left to find, and nothing is wrong.
        "false_negatives": ((51 + 50 * 2 / 7) / 101 + 1) / 2,
    }
    assert errors.ap50 == pytest.approx(a / 2)
    costs = {name: cost["delta_ap50"] for name, cost in errors.costs.items()}
    assert costs == pytest.approx({name: ap - a / 2 for name, ap in mended.items()})
    counts = {name: cost["count"] for name, cost in errors.costs.items()}
    expected = dict.fromkeys(KINDS, 1) | {"false_positives": 5, "false_negatives": 3}
    assert counts == expected


def test_rows_of_the_errors():
    worst = errors_of(*every_kind()).worst()
    assert list(worst) == list(KINDS) and json.dumps(worst, allow_nan=False)
    rows = {name: [(r["image_id"], r["iou"], r["class"]) for r in w] for name, w in worst.items()}
    assert rows == {
        "class": [(5, 1.0, "a")],
        "location": [(2, 0.25, "a")],
        "both": [(5, 0.25, "a")],
        "duplicate": [(1, 1.0, "a")],
        "background": [(1, 0.0, "a")],
        "missed": [(4, 0.0, "a")],
    }
    (row,) = worst["location"]
    assert (row["score"], row["box"], row["object"]) == (0.8, [0, 0, 40, 10], 1)
    (row,) = worst["background"]
    assert row["object"] == -1


def test_the_worst_come_first_and_are_few():
    data = make_data({1: [(0, *BOX), (0, 0, 100, 10, 110), (0, 100, 0, 190, 90)]})
    errors = errors_of(data, found(1, (1, 0.1, *ELSEWHERE), (1, 0.9, *ELSEWHERE)))
    worst = errors.worst(most=1)
    assert [row["score"] for row in worst["background"]] == [0.9]
    assert [row["box"] for row in worst["missed"]] == [[100, 0, 90, 90]]


def test_thresholds_belong_to_the_kind_above_them():
    data = make_data({1: [(0, *BOX)]})
    right = (0, 0.9, *BOX)
    tenth = (0, 0.8, 0, 0, 40, 4)  # IoU 160 / 1600
    less = (0, 0.8, 0, 0, 40, 3.9)
    cases = {HALF: "duplicate", QUARTER: "location", tenth[2:]: "location", less[2:]: "background"}
    for box, kind in cases.items():
        assert kinds_of(data, found(1, right, (0, 0.8, *box))) == ([kind], 0)
    cases = {HALF: "class", QUARTER: "both", tenth[2:]: "both", less[2:]: "background"}
    for box, kind in cases.items():
        # An error of class covers the object that it would find; the others leave it missed.
        assert kinds_of(data, found(1, (1, 0.8, *box))) == ([kind], int(kind != "class"))


def test_of_two_reasons_the_location_comes_before_the_class_and_this_before_the_duplicate():
    data = make_data({1: [(0, *BOX), (1, *QUARTER)]})
    # IoU 0.25 with the object of class b, 1 with that of class a.
    assert kinds_of(data, found(1, (1, 0.9, *BOX)))[0] == ["location"]
    data = make_data({1: [(0, *BOX), (1, *BOX)]})
    both = found(1, (0, 0.9, *BOX), (0, 0.8, *BOX))
    assert kinds_of(data, both) == (["class"], 0)


def test_one_error_on_an_object_becomes_its_detection():
    # A second object keeps the AP below 1. Two errors of location on the first: mended, one is
    # right, the other goes away: recall 1/2 at precision 1. The first of equal scores is taken.
    data = make_data({1: [(0, *BOX), (0, *ELSEWHERE)]})
    rows = (0, 0.9, *QUARTER), (0, 0.9, 0, 0, 40, 12)
    errors = errors_of(data, found(1, *rows))
    assert errors.costs["location"] == {"count": 2, "delta_ap50": pytest.approx(51 / 101)}
    # Two kinds on one object: the one with the higher score would find it. The other kind, mended
    # alone, does not.
    errors = errors_of(data, found(1, (1, 0.9, *BOX), (0, 0.8, *QUARTER)))
    gains = [errors.costs[kind]["delta_ap50"] for kind in ("class", "location")]
    assert gains == pytest.approx([51 / 101, 0])


def test_crowds_and_ignored_objects_are_no_part_of_it():
    inside = (0, 0.9, 110, 110, 130, 130)
    data = make_data({1: [(0, *BOX), (0, *ELSEWHERE)]}, crowds=[1])
    assert kinds_of(data, found(1, (0, 0.5, *BOX), inside)) == ([], 0)
    # The crowd is of class a: to a detection of class b it is background.
    other = (1, *inside[1:])
    assert kinds_of(data, found(1, (0, 0.5, *BOX), other)) == (["background"], 0)
    data = make_data({1: [(0, *BOX), (0, *ELSEWHERE)]})
    data.annotations["annotations"][1]["ignore"] = 1
    assert kinds_of(data, found(1, (0, 0.9, *ELSEWHERE), (0, 0.8, *ELSEWHERE))) == ([], 1)
    assert kinds_of(data, found(1, inside)) == (["background"], 1)  # IoU 0.25 with what is ignored
    only = make_data({1: [(0, *BOX)]}, crowds=[0])
    assert errors_of(only, found(1, (0, 0.9, *ELSEWHERE))).ap50 is None


def test_nothing_found_and_nothing_to_find():
    for data in (make_data({1: [(0, *BOX)], 2: []}), make_data({1: [(0, *BOX), (1, *BOX)]})):
        errors = errors_of(data)
        num = len(data.annotations["annotations"])
        assert (errors.ap50, errors.costs["missed"]) == (0, {"count": num, "delta_ap50": 1.0})
        assert all(errors.costs[kind]["delta_ap50"] == 0 for kind in FALSE_POSITIVES)
    empty = make_data({1: []})
    for detections in ([], [found(1, (0, 0.9, *BOX))]):
        errors = errors_of(empty, *detections)
        assert errors.ap50 is None
        assert {cost["delta_ap50"] for cost in errors.costs.values()} == {None}
        assert errors.costs["background"]["count"] == len(detections)
        json.dumps([errors.costs, errors.worst()], allow_nan=False)


def slow_errors(data, detections):
    """TIDE's definition, one box at a time: (AP50, {kind: (count, gain)})."""
    objects, listed = {}, []
    for row in data.annotations["annotations"]:
        label = data.category_ids.index(row["category_id"])
        flags = {"ignored": bool(row.get("iscrowd") or row.get("ignore")), "owner": None}
        thing = {"label": label, "box": corners(row["bbox"]), "covered": False, **flags}
        objects.setdefault(row["image_id"], []).append(thing)
    for image in sorted(detections, key=lambda image: image["image_id"]):
        columns = zip(image["scores"], image["labels"], image["boxes"], strict=True)
        for score, label, box in columns:
            things = objects.get(image["image_id"], [])
            listed.append({"score": score, "label": label, "box": box, "things": things})
    listed.sort(key=lambda each: -each["score"])
    for each in listed:
        each["ious"] = [iou(each["box"], thing["box"]) for thing in each["things"]]
        each["state"], each["repair"] = find(each), None
    to_find = [t for things in objects.values() for t in things if not t["ignored"]]
    for each in listed:
        if each["state"] != "wrong":
            continue
        each["state"], thing = kind_and_thing(each)
        if each["state"] in ("class", "location") and thing["owner"] is None:
            if not thing["covered"]:
                each["repair"] = thing
            thing["covered"] = True
    numbers = [sum(t["label"] == k for t in to_find) for k in range(data.num_classes)]
    missed = [t for t in to_find if t["owner"] is None and not t["covered"]]
    base = mean_ap(listed, None, numbers)
    result = {}
    for kind in FALSE_POSITIVES:
        count = sum(each["state"] == kind for each in listed)
        result[kind] = count, mean_ap(listed, kind, numbers) - base
    fewer = [n - sum(t["label"] == k for t in missed) for k, n in enumerate(numbers)]
    return base, {**result, "missed": (len(missed), mean_ap(listed, None, fewer) - base)}


def corners(box):
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def iou(box, other):
    w = max(0, min(box[2], other[2]) - max(box[0], other[0]))
    h = max(0, min(box[3], other[3]) - max(box[1], other[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return w * h / (sum(areas) - w * h)


def find(each):
    """Takes the free object of its class that a detection overlaps most, if that is enough."""
    best = None
    for overlap, thing in zip(each["ious"], each["things"], strict=True):
        if thing["label"] == each["label"] and overlap >= 0.5 and thing["owner"] is None:
            key = not thing["ignored"], overlap
            best = max(best or (key, thing), (key, thing), key=lambda pair: pair[0])
    if best is None:
        return "wrong"
    if best[1]["ignored"]:
        return "ignored"
    best[1]["owner"] = each
    return "right"


def kind_and_thing(each):
    pairs = [pair for pair in zip(each["ious"], each["things"], strict=True)]
    pairs = [(overlap, thing) for overlap, thing in pairs if not thing["ignored"]]
    own = [pair for pair in pairs if pair[1]["label"] == each["label"]]
    other = [pair for pair in pairs if pair[1]["label"] != each["label"]]
    own, other = (max(group, key=lambda p: p[0], default=(0, None)) for group in (own, other))
    if 0.1 <= own[0] < 0.5:
        return "location", own[1]
    if other[0] >= 0.5:
        return "class", other[1]
    if own[0] >= 0.5:
        return "duplicate", own[1]
    return "background" if max(own[0], other[0]) < 0.1 else "both", None


def mean_ap(listed, mended, numbers):
    """Mean over the classes of the AP at 101 points, with one kind of errors mended."""
    columns = {k: [] for k in range(len(numbers))}
    for each in listed:
        if each["state"] == "right":
            columns[each["label"]].append(True)
        elif each["state"] == mended and each["repair"] is not None:
            columns[each["repair"]["label"]].append(True)
        elif each["state"] not in (mended, "ignored"):
            columns[each["label"]].append(False)
    values = []
    for k, number in enumerate(numbers):
        recall = np.cumsum(columns[k]) / number
        precision = np.cumsum(columns[k]) / np.arange(1, len(recall) + 1)
        points = np.linspace(0, 1, 101)
        values.append(np.mean([max(precision[recall >= point], default=0) for point in points]))
    return np.mean(values)


def test_the_definition_on_photographs_one_box_at_a_time(photographs):
    cells = readers.voc(photographs("bccd"), "test")
    detections = perturbed(cells)
    errors = errors_of(cells, *detections)
    ap50, expected = slow_errors(cells, detections)
    assert errors.ap50 == pytest.approx(ap50, abs=1e-12)
    assert errors.ap50 == pytest.approx(evaluate_detections(cells, detections)["AP50"], abs=1e-12)
    for kind, (count, gain) in expected.items():
        assert count > 3 and gain > 1e-3  # each occurs
        cost = errors.costs[kind]
        assert cost == {"count": count, "delta_ap50": pytest.approx(gain, abs=1e-12)}
