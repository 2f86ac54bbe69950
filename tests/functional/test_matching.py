import numpy as np
import pytest
from keras import ops

from libra_keras.functional.boxes import iou
from libra_keras.functional.matching import match

THRESHOLDS = {"rpn": (0.7, 0.3, 0.3), "rcnn": (0.5, 0.5, None), "retina": (0.5, 0.4, 0.0)}


def run(overlaps, gt_mask=None, **options):
    overlaps = np.asarray(overlaps, "float32")[None]
    gt_mask = np.ones((1, overlaps.shape[2]), bool) if gt_mask is None else np.array([gt_mask])
    result = match(overlaps, gt_mask, **options)
    return [ops.convert_to_numpy(part)[0] for part in result]


@pytest.mark.portable
def test_thresholds_positive_inclusive_negative_exclusive():
    matched, best, positive, negative = run(
        [[0.7, 0.2], [0.3, 0.1], [0.29, 0.0], [0.2, 0.9]], positive_iou=0.7, negative_iou=0.3
    )
    assert positive.tolist() == [True, False, False, True]
    assert negative.tolist() == [False, False, True, False]  # 0.3 itself is ignored
    assert matched[positive].tolist() == [0, 1]
    np.testing.assert_allclose(best, [0.7, 0.3, 0.29, 0.9])


@pytest.mark.portable
def test_low_quality_match_takes_all_ties_and_the_last_object_wins():
    # object 0 is best met by candidates 0 and 1 (0.4 each), object 1 by candidate 1 (0.35)
    overlaps = [[0.4, 0.0], [0.4, 0.35], [0.1, 0.2]]
    matched, _, positive, _ = run(
        overlaps, positive_iou=0.7, negative_iou=0.3, min_positive_iou=0.3
    )
    assert positive.tolist() == [True, True, False]
    assert matched[:2].tolist() == [0, 1]


def test_an_object_that_meets_nothing_claims_nothing():
    _, _, positive, negative = run(
        [[0.0, 0.6], [0.0, 0.0]], positive_iou=0.5, negative_iou=0.4, min_positive_iou=0.0
    )
    assert positive.tolist() == [True, False] and negative.tolist() == [False, True]


def test_no_objects_means_all_negative():
    options = {"positive_iou": 0.7, "negative_iou": 0.3, "min_positive_iou": 0.3}
    _, best, positive, negative = run([[0.9], [0.5]], gt_mask=[False], **options)
    assert not positive.any() and negative.all() and not best.any()


@pytest.mark.portable
def test_padded_candidates_are_ignored_and_are_nobodys_best():
    overlaps = np.array([[[0.9], [0.4], [0.0]]], "float32")
    result = match(
        overlaps,
        [[True]],
        0.7,
        0.3,
        min_positive_iou=0.3,
        candidate_mask=[[False, True, True]],
    )
    positive, negative = map(ops.convert_to_numpy, result[2:])
    # without candidate 0, candidate 1 is the best that the object has
    assert positive.tolist() == [[False, True, False]]
    assert negative.tolist() == [[False, False, True]]


def test_crossed_thresholds_are_refused():
    with pytest.raises(ValueError, match="negative_iou=0.6, positive_iou=0.5"):
        match([[[0.1]]], [[True]], positive_iou=0.5, negative_iou=0.6)


@pytest.mark.parametrize("case", ["rpn", "rcnn", "retina", "ties_rpn", "ties_rcnn", "ties_retina"])
def test_matches_equal_the_reference(reference, case):
    golden = {
        key.split("/")[1]: value
        for key, value in reference("assigner.npz").items()
        if key.split("/")[0] == case
    }
    positive_iou, negative_iou, low = THRESHOLDS[case.removeprefix("ties_")]
    overlaps = iou(golden["priors"], golden["gt"])[None]
    mask = np.ones((1, len(golden["gt"])), bool)
    result = match(overlaps, mask, positive_iou, negative_iou, low)
    matched, best, positive, negative = (ops.convert_to_numpy(part)[0] for part in result)
    verdict = np.where(positive, matched + 1, np.where(negative, 0, -1))
    np.testing.assert_allclose(best, golden["max_overlaps"], rtol=1e-5, atol=1e-6)
    overlaps = ops.convert_to_numpy(overlaps)[0]
    base = match(overlaps[None], mask, positive_iou, negative_iou)
    base = np.where(base.is_positive, base.matched_gt + 1, np.where(base.is_negative, 0, -1))[0]
    # The reference lets an object without any overlap claim all that it does not touch; we don't.
    np.testing.assert_array_equal(claimed(base, overlaps, low, above=-1), golden["gt_inds"])
    np.testing.assert_array_equal(claimed(base, overlaps, low, above=0), verdict)


def claimed(verdict, overlaps, low, above):
    """Low-quality matching as a loop over objects; the obvious twin."""
    verdict = verdict.copy()
    for k in range(overlaps.shape[1] if low is not None else 0):
        best = overlaps[:, k].max()
        if best >= low and best > above:
            verdict[overlaps[:, k] == best] = k + 1
    return verdict
