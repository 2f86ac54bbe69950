import contextlib
import io

import numpy as np
import pytest
from evaluation.cases import found, make_data, random_case
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libra_keras.data import shapes as drawn
from libra_keras.evaluation import collect_proposals, detections_to_coco, proposal_recall
from libra_keras.evaluation.proposal_recall import proposal_coverage


def test_recall_by_hand():
    # Objects of two classes. The best proposal finds the first (all 10 thresholds), the third
    # best the second with IoU 0.65 (4 thresholds of 10: 0.5, 0.55, 0.6, 0.65).
    data = make_data({1: [(0, 0, 0, 20, 20), (1, 100, 100, 140, 140)], 2: []})
    rows = (0, 0.9, 0, 0, 20, 20), (0, 0.8, 50, 50, 90, 90), (0, 0.7, 100, 100, 140, 126)
    recall = proposal_recall(data, [found(1, *rows), found(2, rows[0])], counts=(1, 2, 3))
    expected = {"AR@1": 0.5, "AR@2": 0.5, "AR@3": (1 + 0.4) / 2}
    expected |= {"AR_small@3": 1.0, "AR_medium@3": 0.4}
    assert np.isnan(recall.pop("AR_large@3"))
    assert recall == pytest.approx(expected)


def test_difficult_objects_need_not_be_found():
    data = make_data({1: [(0, 0, 0, 20, 20), (1, 100, 100, 140, 140)]})
    data.annotations["annotations"][1]["ignore"] = 1
    recall = proposal_recall(data, [found(1, (0, 0.9, 0, 0, 20, 20))], counts=(1,))
    assert recall["AR@1"] == 1.0


def test_parity_with_pycocotools(rng):
    data, detections = random_case(rng)
    recall = proposal_recall(data, detections, counts=(2, 5, 10))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data.annotations
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(detections_to_coco(detections, (3, 90))), "bbox")
        run.params.useCats, run.params.maxDets = 0, [2, 5, 10]
        run.evaluate()
        run.accumulate()
    expected = run.eval["recall"][:, 0, 0].mean(0)
    assert 0.05 < expected[0] < expected[2] < 0.95
    np.testing.assert_allclose([recall[f"AR@{n}"] for n in (2, 5, 10)], expected)
    assert recall["AR_small@10"] == pytest.approx(run.eval["recall"][:, 0, 1, 2].mean())


def test_no_proposals():
    recall = proposal_recall(make_data({1: [(0, 0, 0, 20, 20)]}), [found(1)])
    assert (recall["AR@100"], recall["AR@300"], recall["AR@1000"]) == (0, 0, 0)


@pytest.mark.parametrize("counts", [(300, 100), (5, 5), (0, 5)])
def test_errors(counts):
    with pytest.raises(ValueError, match="increasing"):
        proposal_recall(make_data({1: []}), [], counts)


def test_proposals_without_padding_in_original_pixels():
    class Model:
        def propose(self, x):
            boxes = np.float32([[[0, 0, 10, 10], [5, 5, 9, 9]], [[2, 2, 4, 4], [0, 0, 0, 0]]])
            mask = np.array([[True, True], [True, False]])
            return {"boxes": boxes, "scores": np.ones((2, 2)), "mask": mask}

    x = {"image_ids": np.array([4, 5]), "image_sizes": np.array([[16, 16]] * 2)}
    x["original_sizes"] = np.array([[32, 32], [16, 8]])
    first, second = collect_proposals(Model(), [x], verbose=0)
    np.testing.assert_allclose(first["boxes"], [[0, 0, 20, 20], [10, 10, 18, 18]])
    np.testing.assert_allclose(second["boxes"], [[1, 2, 2, 4]])
    assert second["image_id"] == 5 and second["labels"].tolist() == [0]


def test_coverage_counts_objects_of_the_images_that_were_looked_at():
    shapes = drawn(2)
    example, other = shapes.examples
    whole = {"image_id": example.image_id, "boxes": example.boxes}
    assert proposal_coverage(shapes, [whole]) == 1.0
    none = {"image_id": other.image_id, "boxes": np.zeros((0, 4))}
    share = len(example.boxes) / (len(example.boxes) + len(other.boxes))
    assert proposal_coverage(shapes, [whole, none]) == pytest.approx(share)
    example.ignore[1:] = True  # only the first counts; half of it is just enough
    left, top, right, bottom = example.boxes[0]
    half = {**whole, "boxes": [[left, top, right, (top + bottom) / 2]]}
    assert proposal_coverage(shapes, [half]) == 1.0
    assert proposal_coverage(shapes, [half], min_iou=0.51) == 0.0
    assert np.isnan(proposal_coverage(shapes, []))
