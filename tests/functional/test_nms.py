import contextlib

import keras
import numpy as np
import pytest
from conftest import random_boxes
from keras import ops
from parity import different

from libra_keras.functional import boxes as box_ops
from libra_keras.functional import native
from libra_keras.functional.nms import BLOCK, nms


def kept_indices(*arguments, **named):
    """The kept indices of the first image, as a list; without compiling, which takes longest."""
    with native.portable():
        return first_kept(nms(*arguments, **named))


def first_kept(result):
    indices, kept = (ops.convert_to_numpy(x) for x in result)
    return indices[0][kept[0]].tolist()


def greedy(boxes, scores, threshold, groups):
    """The definition, box by box; equal scores by index."""
    iou = ops.convert_to_numpy(box_ops.iou(boxes, boxes))
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if not any(iou[k, i] > threshold and groups[k] == groups[i] for k in kept):
            kept.append(i)
    return [int(i) for i in kept]


@pytest.mark.parametrize(
    ("case", "way"),
    [
        pytest.param("small", native.portable, marks=pytest.mark.portable),
        ("mid", native.portable),
        ("dense", contextlib.nullcontext),  # compiled
        ("exact", native.portable),
    ],
)
def test_equals_the_reference_in_order(reference, record_error, case, way):
    arrays = reference("nms.npz")
    boxes, scores = arrays[f"{case}/boxes"][None], arrays[f"{case}/scores"][None]
    # mmdetection has two ways to keep classes apart, which agree; "split" is the other one.
    for key in [key for key in arrays if key.startswith(f"{case}/keep_split")]:
        np.testing.assert_array_equal(arrays[key], arrays[key.replace("split_", "")])
    keys = [key for key in arrays if key.startswith(f"{case}/keep") and "split" not in key]
    assert keys
    for key in keys:
        alone = case == "exact" or "agn" in key
        groups = None if alone else arrays[f"{case}/idxs"][None]
        threshold = float(key.rpartition("_")[-1])
        with way():
            found = first_kept(nms(boxes, scores, threshold, scores.shape[1], groups))
        record_error("NMS: differing", different(found, arrays[key]), 0)
        if (dets := arrays.get(key.replace("keep", "dets"))) is not None:
            np.testing.assert_array_equal(dets, np.c_[boxes[0], scores[0]][found])


@pytest.mark.parametrize("threshold", ["0.5", "0.7"])
def test_equal_scores_are_visited_by_index(reference, record_error, threshold):
    arrays = reference("nms.npz")
    boxes, scores, groups = (arrays[f"ties/{name}"] for name in ("boxes", "scores", "idxs"))
    found = kept_indices(boxes[None], scores[None], float(threshold), len(scores), groups[None])
    assert found == greedy(boxes, scores, float(threshold), groups)
    # Which of tied boxes survive depends on their order, and the reference's is whatever its sort
    # left. If those that it kept come first among their ties, we keep the same set.
    theirs = arrays[f"ties/keep_{threshold}"]
    order = np.lexsort([~np.isin(np.arange(len(scores)), theirs), -scores])
    inputs = boxes[order][None], scores[order][None], float(threshold), len(scores)
    found = np.sort(order[kept_indices(*inputs, groups[order][None])])
    record_error("NMS: differing", different(found, np.sort(theirs)), 0)


@pytest.mark.portable
@pytest.mark.parametrize(
    "case", ["multi_0.05_0.5_100", "multi_0.3_0.7_-1", "multi_0.99999_0.5_100"]
)
def test_every_class_alone_equals_the_reference(reference, record_error, case):
    arrays = reference("nms.npz")
    least, threshold, most = map(float, case.split("_")[1:])
    scores = arrays["multi/scores"][:, :-1].reshape(-1)  # without the background
    boxes, labels = arrays["multi/boxes"].reshape(-1, 4), np.tile(np.arange(12), 200)
    best = np.argsort(-scores, kind="stable")[: 6 * BLOCK]  # all that score more than 0.05
    assert scores[best[-1]] < 0.05
    inputs = boxes[best][None], scores[best][None], threshold, int(most) if most > 0 else 600
    with native.portable():
        found = nms(*inputs, groups=labels[best][None], mask=scores[best][None] > least)
    found = best[first_kept(found)]
    record_error("NMS: differing", different(found, arrays[f"{case}/inds"]), 0)
    np.testing.assert_array_equal(labels[found], arrays[f"{case}/labels"])
    np.testing.assert_array_equal(np.c_[boxes, scores][found], arrays[f"{case}/dets"])


@pytest.mark.portable
@pytest.mark.parametrize("number", [BLOCK, 2 * BLOCK + 3])
def test_equals_the_definition_across_blocks(rng, number):
    boxes = random_boxes(rng, 2, number, smallest=20.0)
    scores = rng.uniform(size=(2, number)).round(1).astype("float32")  # many ties
    groups = rng.integers(0, 2, (2, number)).astype("int32")
    with native.portable():
        indices, kept = (ops.convert_to_numpy(x) for x in nms(boxes, scores, 0.4, number, groups))
    for i in range(2):
        assert indices[i][kept[i]].tolist() == greedy(boxes[i], scores[i], 0.4, groups[i])
        assert (kept[i] == np.sort(kept[i])[::-1]).all()  # a prefix


def test_a_suppressed_box_does_not_suppress():
    # Neighbours overlap by 3/5 = 0.6; the first and third by 2/6: 0 removes 1, so 2 stays, and
    # 2 removes 3.
    boxes = [[[x, 0.0, x + 4.0, 1.0] for x in (0.0, 1.0, 2.0, 3.0)]]
    assert kept_indices(boxes, [[0.9, 0.8, 0.7, 0.6]], 0.5, 4) == [0, 2]


def test_the_threshold_itself_does_not_suppress():
    boxes = [[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]]]  # IoU 1/2
    assert kept_indices(boxes, [[0.9, 0.8]], 0.5, 2) == [0, 1]
    assert kept_indices(boxes, [[0.9, 0.8]], 0.49, 2) == [0]


def test_groups_are_apart():
    boxes, scores = [[[0.0, 0.0, 2.0, 2.0]] * 3], [[0.7, 0.8, 0.9]]
    assert kept_indices(boxes, scores, 0.5, 3) == [2]
    assert kept_indices(boxes, scores, 0.5, 3, groups=[[0, 1, 0]]) == [2, 1]


@pytest.mark.portable
def test_masked_boxes_neither_suppress_nor_stay():
    boxes, scores = [[[0.0, 0.0, 2.0, 2.0]] * 2], [[0.9, 0.8]]
    assert kept_indices(boxes, scores, 0.5, 2, mask=[[False, True]]) == [1]
    assert kept_indices(boxes, scores, 0.5, 2, mask=[[False, False]]) == []


@pytest.mark.parametrize("where", ["box", "score", "masked"])
def test_nan_is_harmless(where):
    boxes = np.array([[[0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6]]], "float32")
    scores = np.array([[0.9, 0.8, 0.7]], "float32")
    if where != "score":
        boxes[0, 0, 1] = np.nan
    if where != "box":
        scores[0, 0] = np.nan
    mask = [[where != "masked", True, True]]
    assert kept_indices(boxes, scores, 0.5, 3, mask=mask) == [1, 2]


def test_boxes_without_area_are_kept():
    assert kept_indices([[[1.0, 1.0, 1.0, 1.0]] * 2], [[0.9, 0.8]], 0.5, 2) == [0, 1]


def test_output_is_cut_or_filled_to_the_wanted_length(rng):
    boxes = random_boxes(rng, 1, 300, smallest=2.0)
    scores = rng.uniform(size=(1, 300)).astype("float32")
    everything = kept_indices(boxes, scores, 0.7, 300)
    with native.portable():
        assert kept_indices(boxes, scores, 0.7, 5) == everything[:5]
        indices, kept = (ops.convert_to_numpy(x) for x in nms(boxes, scores, 0.7, 1000))
    assert indices.shape == kept.shape == (1, 1000) and indices.dtype == np.int32
    assert kept.sum() == len(everything) and (indices[0, len(everything) :] == 0).all()


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_to_choose_from(shape):
    with native.portable():
        indices, kept = nms(ops.zeros((*shape, 4)), ops.zeros(shape), 0.5, 3)
    assert tuple(indices.shape) == tuple(kept.shape) == (shape[0], 3)
    assert not ops.convert_to_numpy(kept).any()


def test_portable_and_compiled_are_equal(rng):
    boxes = random_boxes(rng, 2, 200)
    arguments = (boxes, rng.uniform(size=(2, 200)).astype("float32"), 0.5, 50)
    compiled = [ops.convert_to_numpy(x) for x in nms(*arguments)]
    with native.portable():
        portable = [ops.convert_to_numpy(x) for x in nms(*arguments)]
    np.testing.assert_array_equal(compiled, portable)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
@pytest.mark.parametrize("portable", [False, True])
def test_traces_with_an_unknown_number_of_images(rng, portable):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, 40, 4)), tf.TensorSpec((None, 40))])
    def traced(boxes, scores):
        return nms(boxes, scores, 0.5, 10)

    for batch in (1, 3):
        boxes = random_boxes(rng, batch, 40)
        scores = rng.uniform(size=(batch, 40)).astype("float32")
        with native.portable():
            expected = nms(boxes, scores, 0.5, 10)
        with native.portable() if portable else contextlib.nullcontext():
            found = traced(boxes, scores)
        for traced_part, part in zip(found, expected, strict=True):
            np.testing.assert_array_equal(traced_part, part)


@pytest.mark.portable
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 4), (3,)), r"\(B, N, 4\)"),
        (((1, 3, 5), (1, 3)), r"\(B, N, 4\)"),
        (((1, 3, 4), (1, 2)), "`scores`.*3"),
    ],
)
def test_wrong_shapes_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        nms(ops.zeros(shapes[0]), ops.zeros(shapes[1]), 0.5, 3)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`mask`"):
        nms(ops.zeros((1, 3, 4)), ops.zeros((1, 3)), 0.5, 3, mask=[[True]])
    with pytest.raises(ValueError, match="max_output=0"):
        nms(ops.zeros((1, 3, 4)), ops.zeros((1, 3)), 0.5, 0)
