import numpy as np
import pytest
from keras import ops
from parity import different, relative_error

from libra_keras.functional.boxes import iof, iou
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
@pytest.mark.parametrize("low_quality", [None, 0.3])
def test_no_axis_of_objects_means_all_negative(low_quality):
    matched, best, positive, negative = run(
        [[], []], positive_iou=0.7, negative_iou=0.3, min_positive_iou=low_quality
    )
    assert not positive.any() and negative.all() and best.tolist() == [0, 0]
    assert matched.shape == (2,)


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


CASES = [
    *(f"{net}{what}" for net in THRESHOLDS for what in ("", "_nogt", "_ign_thr-1")),
    *(f"{net}_ign_thr.5{way}" for net in THRESHOLDS for way in ("", "_wrtgt")),
    *(f"ties_{net}" for net in THRESHOLDS),
]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.portable if "rcnn" in case else ()) for case in CASES],
)
def test_matches_equal_the_reference(reference, record_error, case):
    golden = case_of(reference, case)
    positive_iou, negative_iou, low = THRESHOLDS[case.removeprefix("ties_").split("_")[0]]
    overlaps, mask = overlaps_of(golden)
    used = not_in_ignored_regions(golden, case)
    arguments = overlaps[None], mask[None], positive_iou, negative_iou
    result = match(*arguments, low, candidate_mask=used[None])
    labels = np.append(golden["gt_labels"], -1)
    best = np.where(used, ops.convert_to_numpy(result.max_iou)[0], -1)  # the reference's mark
    error = relative_error(best, golden["max_overlaps"], floor=0.1)
    record_error("matching: overlaps", error, 1e-5)
    base = verdict(match(*arguments, candidate_mask=used[None]))
    # The reference lets an object without any overlap claim all that it does not touch; we don't.
    count = overlaps.shape[1] * bool(mask.any())
    whole = claimed(base, overlaps[:, :count], used, low, above=-1)
    record_error("matching: differing", different(whole, golden["gt_inds"]), 0)
    assert np.array_equal(labels[np.maximum(whole, 0) - 1], golden["labels"])
    ours = claimed(base, overlaps[:, :count], used, low, above=0)
    record_error("matching: differing", different(verdict(result), ours), 0)


@pytest.mark.parametrize("net", THRESHOLDS)
def test_no_candidates_match_nothing(reference, net):
    golden = case_of(reference, f"{net}_nopriors")
    overlaps, mask = overlaps_of(golden)
    result = match(overlaps[None], mask[None], *THRESHOLDS[net])
    np.testing.assert_array_equal(verdict(result), golden["gt_inds"])
    np.testing.assert_array_equal(result.max_iou[0], golden["max_overlaps"])
    assert len(golden["labels"]) == 0


def case_of(reference, case):
    arrays = reference("assigner.npz").items()
    return {key.split("/")[1]: value for key, value in arrays if key.split("/")[0] == case}


def overlaps_of(golden):
    """Overlaps `(N, M)` with the objects, and which are objects; at least one column."""
    objects = golden["gt"]
    if not len(objects):
        return np.zeros((len(golden["priors"]), 1), "float32"), np.array([False])
    return ops.convert_to_numpy(iou(golden["priors"], objects)), np.ones(len(objects), bool)


def not_in_ignored_regions(golden, case):
    """What the reference leaves out: more than half inside a region, or half of one inside it."""
    if "ign_thr.5" not in case:  # with a threshold of -1 the regions have no effect
        return np.ones(len(golden["priors"]), bool)
    priors, regions = golden["priors"], golden["ignore"]
    if case.endswith("wrtgt"):
        inside = ops.convert_to_numpy(iof(regions, priors)).T
    else:
        inside = ops.convert_to_numpy(iof(priors, regions))
    return ~np.any(inside > 0.5, axis=1)


def verdict(result):
    """As in the reference: 0 for a negative, i + 1 for the object i, -1 for ignored."""
    matched, _, positive, negative = (ops.convert_to_numpy(part)[0] for part in result)
    return np.where(positive, matched + 1, np.where(negative, 0, -1))


def claimed(verdict, overlaps, used, low, above):
    """Low-quality matching as a loop over objects; the obvious twin."""
    verdict = verdict.copy()
    overlaps = np.where(used[:, None], overlaps, -1)
    for k in range(overlaps.shape[1] if low is not None else 0):
        best = overlaps[:, k].max()
        if best >= low and best > above:
            verdict[overlaps[:, k] == best] = k + 1
    return verdict
