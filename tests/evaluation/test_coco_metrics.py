import contextlib
import io
import json

import numpy as np
import pytest
from evaluation.cases import Oracle, found, make_data, random_case
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libra_keras.data import InputPolicy, evaluation_batches, shapes
from libra_keras.evaluation import (
    METRICS,
    collect_detections,
    detections_to_coco,
    evaluate,
    evaluate_detections,
    rescale_detections,
)


def test_perfect_predictions():
    # One object of each COCO size: 20x20 small, 50x50 medium, 150x150 large.
    truth = {1: [(0, 0, 0, 20, 20), (0, 50, 50, 100, 100)], 2: [(1, 10, 10, 160, 160)], 3: []}
    data = make_data(truth)
    rows = [found(i, *[(k, 0.9, *box) for k, *box in boxes]) for i, boxes in truth.items()]
    metrics = evaluate_detections(data, rows)
    assert list(metrics) == [*METRICS, "AP/a", "AP/b"]
    expected = dict.fromkeys(metrics, 1.0)
    expected["AR1"] = 0.75  # one detection per image finds 1 of the 2 objects of class a
    assert metrics == pytest.approx(expected)


def test_average_precision_by_hand():
    # Class a has 2 objects. Detections by score: hit, miss, hit; precision 1, 1/2, 2/3, and
    # interpolated 1 up to recall 0.5 (51 of the 101 recall points), then 2/3 (50 points).
    data = make_data({1: [(0, 0, 0, 40, 40), (0, 100, 100, 140, 140)]})
    hits = (0, 0.9, 0, 0, 40, 40), (0, 0.7, 100, 100, 140, 140)
    metrics = evaluate_detections(data, [found(1, hits[0], (0, 0.8, 0, 100, 40, 140), hits[1])])
    assert metrics["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert metrics["AR100"] == 1.0 and metrics["AR1"] == 0.5
    assert metrics["AP/a"] == metrics["AP"]
    assert np.isnan(metrics["AP/b"]) and np.isnan(metrics["AP_large"])


def test_names_keep_their_ap_whatever_the_order_of_the_ids():
    truth = {1: [(0, 0, 0, 40, 40), (1, 60, 60, 100, 100), (2, 120, 0, 160, 40)]}
    data = make_data(truth, ("a", "b", "c"), category_ids=(90, 3, 30))
    hits = (0, 0.9, 0, 0, 40, 40), (2, 0.9, 120, 0, 160, 40)
    metrics = evaluate_detections(data, [found(1, *hits)])
    assert [metrics[f"AP/{name}"] for name in "abc"] == pytest.approx([1, 0, 1])
    assert metrics["AP"] == pytest.approx(2 / 3)


def test_crowds_are_neither_found_nor_missed():
    data = make_data({1: [(0, 0, 0, 40, 40), (0, 100, 0, 200, 100)]}, crowds=[1])
    hit, inside_crowd = (0, 0.5, 0, 0, 40, 40), (0, 0.9, 120, 20, 150, 50)
    assert evaluate_detections(data, [found(1, hit)])["AP"] == pytest.approx(1)
    assert evaluate_detections(data, [found(1, hit, inside_crowd)])["AP"] == pytest.approx(1)
    wrong = (0, 0.9, 0, 120, 30, 150)
    assert evaluate_detections(data, [found(1, hit, wrong)])["AP"] == pytest.approx(0.5)


def test_difficult_objects_are_ignored_by_iou():
    # One object to find, and a difficult one of 100 x 100 beside it.
    data = make_data({1: [(0, 0, 0, 40, 40), (0, 100, 0, 200, 100)]})
    data.annotations["annotations"][1]["ignore"] = 1
    hit = (0, 0.5, 0, 0, 40, 40)
    # IoU 1 with the difficult object, and a second time: neither right nor wrong, as in VOC.
    on_it = (0, 0.9, 100, 0, 200, 100), (0, 0.8, 100, 0, 200, 100)
    for rows in ([hit], [hit, on_it[0]], [hit, *on_it]):
        assert evaluate_detections(data, [found(1, *rows)])["AP"] == pytest.approx(1)
    assert evaluate_detections(data, [found(1, *on_it)])["AP50"] == 0
    # Inside of it, with an IoU of 0.09: wrong, so the hit, second, has a precision of 1 / 2.
    inside = (0, 0.9, 120, 20, 150, 50)
    assert evaluate_detections(data, [found(1, hit, inside)])["AP"] == pytest.approx(0.5)
    # IoU 0.65: forgiven at 4 of the 10 thresholds, wrong at 6.
    partly = (0, 0.9, 100, 0, 200, 65)
    metrics = evaluate_detections(data, [found(1, hit, partly)])
    assert metrics["AP"] == pytest.approx((4 * 1 + 6 * 0.5) / 10)
    # One that is also a crowd stays a crowd.
    data.annotations["annotations"][1]["iscrowd"] = 1
    assert evaluate_detections(data, [found(1, hit, inside)])["AP"] == pytest.approx(1)


def test_nothing_found_and_nothing_to_find():
    data = make_data({1: [(0, 0, 0, 40, 40)], 2: []})
    for detections in ([], [found(1)], [found(1), found(2)], [found(2, (1, 0.9, 0, 0, 9, 9))]):
        metrics = evaluate_detections(data, detections)
        assert (metrics["AP"], metrics["AR100"], metrics["AP/a"]) == (0, 0, 0)
        assert np.isnan(metrics["AP/b"])
    empty = evaluate_detections(make_data({1: []}), [found(1, (0, 0.9, 0, 0, 9, 9))])
    assert all(np.isnan(value) for value in empty.values())


def test_an_annotation_id_of_zero_counts():
    data = make_data({1: [(0, 0, 0, 40, 40)]}, first_id=0)
    assert evaluate_detections(data, [found(1, (0, 0.9, 0, 0, 40, 40))])["AP"] == pytest.approx(1)


def test_missing_area_and_crowd_flag_are_filled_in():
    data = make_data({1: [(0, 0, 0, 20, 20)]})
    del data.annotations["annotations"][0]["area"], data.annotations["annotations"][0]["iscrowd"]
    before = json.dumps(data.annotations)
    metrics = evaluate_detections(data, [found(1, (0, 0.9, 0, 0, 20, 20))])
    assert metrics["AP_small"] == pytest.approx(1)
    assert json.dumps(data.annotations) == before


def test_parity_with_pycocotools(rng, capsys):
    data, detections = random_case(rng)
    metrics = evaluate_detections(data, detections)
    assert capsys.readouterr().out == ""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data.annotations
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(detections_to_coco(detections, (3, 90))), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert 0.1 < metrics["AP"] < 0.9
    np.testing.assert_allclose([metrics[name] for name in METRICS], run.stats, rtol=1e-12)


@pytest.mark.parametrize(
    "detections, message",
    [
        ([found(5)], "5"),
        ([found(1), found(1)], "image 1 twice"),
        ([found(1, (2, 0.5, 0, 0, 1, 1))], "0..1. Received: 2 in image 1"),
        ([found(1, (-1, 0.5, 0, 0, 1, 1))], "Received: -1"),
    ],
)
def test_errors(detections, message):
    with pytest.raises(ValueError, match=message):
        evaluate_detections(make_data({1: []}), detections)


def test_rescaling_drops_padding_and_clips_to_the_file():
    boxes = np.float32([[[10, 20, 30, 70], [0, 0, 0, 0]], [[0, 0, 8, 8], [4, 4, 8, 8]]])
    batch = {"boxes": boxes, "scores": np.float32([[0.5, 0], [0.9, 0.1]])}
    batch["labels"] = np.array([[1, -1], [0, 0]])
    # Image 1: height 60 -> 30 (halved), width 40 -> 120 (three times); y2 = 35 is clipped to 30.
    first, second = rescale_detections(batch, [[60, 40], [16, 16]], [[30, 120], [16, 16]])
    np.testing.assert_allclose(first["boxes"], [[30, 10, 90, 30]])
    np.testing.assert_allclose(second["boxes"], [[0, 0, 8, 8], [4, 4, 8, 8]])
    assert first["labels"].tolist() == [1] and second["labels"].dtype == np.int32
    assert first["boxes"].dtype == first["scores"].dtype == np.float32


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_oracle_scores_one_through_resizing(replicas, capsys):
    data = shapes(5, seed=1)
    oracle = Oracle(data, InputPolicy(short_side=200, long_side=200), replicas)
    assert evaluate(oracle, data, batch_size=2)["AP"] == pytest.approx(1)
    assert "3/3" in capsys.readouterr().out


def test_batches_of_unknown_number():
    data = shapes(2, seed=1)
    size = np.array([[320, 320]])
    x = {"image_ids": np.array([data.examples[1].image_id])}
    x |= {"image_sizes": size, "original_sizes": size}
    images = collect_detections(Oracle(data, None), iter([x]), verbose=0)
    assert [image["image_id"] for image in images] == [data.examples[1].image_id]
    np.testing.assert_allclose(images[0]["boxes"], data.examples[1].boxes, rtol=1e-6)


def test_smaller_batches_are_filled_up_to_one_shape():
    """XLA and JAX compile for every shape; of 5 scenes in twos the last batch has but one."""
    data, shapes_seen = shapes(5, seed=1), []

    class Watched(Oracle):
        def predict_on_batch(self, x):
            shapes_seen.append({key: value.shape for key, value in x.items()})
            return super().predict_on_batch(x)

    policy = InputPolicy(short_side=200, long_side=200)
    found = collect_detections(Watched(data, policy), evaluation_batches(data, policy, 2), 0)
    assert [len(image["boxes"]) for image in found] == [e.num_boxes for e in data.examples]
    assert len(shapes_seen) == 3 and shapes_seen[2] == shapes_seen[0]


def test_more_detections_than_cocos_count_have_a_name_of_their_own():
    """300 objects of a class in an image, all found: COCO counts the 100 surest."""
    corners = [(x, y) for y in range(0, 150, 10) for x in range(0, 200, 10)]
    data = make_data({1: [(0, x, y, x + 8, y + 8) for x, y in corners]})
    scores = np.linspace(1, 0.5, 300)
    rows = [(0, s, x, y, x + 8, y + 8) for s, (x, y) in zip(scores, corners, strict=True)]
    metrics = evaluate_detections(data, [found(1, *rows)], max_detections=300)
    assert metrics["AP"] == pytest.approx(34 / 101)  # recall up to a third: 34 of 101 points
    assert metrics["AR100"] == pytest.approx(1 / 3)
    assert [metrics[f"{name}@300"] for name in ("AP", "AP50", "AP75", "AR")] == [1.0] * 4
    cocos = evaluate_detections(data, [found(1, *rows)], max_detections=100)
    assert cocos == {n: v for n, v in metrics.items() if "@" not in n} or np.isnan(cocos["AP/b"])
    assert not any("@" in name for name in cocos)
