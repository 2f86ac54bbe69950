"""Our two-stage detector in training beside the reference's: targets, losses, gradients."""

import keras
import numpy as np
import pytest
from keras import ops
from parity import different, partners, pixel_error, relative_error, scaled_error
from reference_detector import load_reference_weights, small_libra_faster_rcnn, training_batch
from reference_training import (
    DenseTargets,
    check_dense_targets,
    check_gradients,
    empty_pyramid,
)

from libra_keras.functional.boxes import encode
from libra_keras.models import GroundTruth
from libra_keras.models.proposals import Proposals
from libra_keras.models.targets import match_anchors, match_proposals, sample_targets
from libra_keras.samplers import RandomSampler

ROI_ARRAYS = (
    "rois",
    "cls_score",
    "roi_labels",
    "roi_label_weights",
    "roi_bbox_targets",
    "roi_bbox_weights",
)
CASES = ("a", "b", "c")
STDS = (0.1, 0.1, 0.2, 0.2)


@pytest.fixture(scope="module")
def model(reference):
    """The reference's losses were taken with samplers so large that they draw every candidate."""
    model = small_libra_faster_rcnn(
        50,
        8,
        rpn_settings={"pre_nms_train": 200, "post_nms": 100},
        rpn_sampler=RandomSampler(num=12000, positive_fraction=0.5),
        box_sampler=RandomSampler(num=400, positive_fraction=0.5),
    )
    load_reference_weights(model, reference("libra_frcnn_r50b8_weights.npz"))
    return model


@pytest.fixture(scope="module")
def golden(reference):
    return reference("libra_frcnn_r50b8_train.npz")


def test_training_input_equals_the_reference(golden, model, record_error):
    x, _ = training_batch(golden, "a")
    found = model.normalization(x["images"], x["image_sizes"])
    error = relative_error(found, golden["a/input"], floor=0.1)
    record_error("stage: pixels to input", error, 1e-5)
    for case in CASES:
        np.testing.assert_array_equal(golden[f"{case}/img_shape"], x["image_sizes"])
        np.testing.assert_array_equal(golden[f"{case}/pad_shape"], [x["images"].shape[1:3]] * 2)


@pytest.mark.parametrize("case", CASES)
def test_anchor_targets_equal_the_reference(golden, model, record_error, case):
    x, y = training_batch(golden, case)
    truth, head = GroundTruth.of(y), model.rpn
    level_anchors = head(empty_pyramid((4, 8, 16, 32, 64)))["anchors"]
    anchors = ops.concatenate(level_anchors, axis=0)
    found = match_anchors(anchors, truth.boxes, truth.mask, x["image_sizes"], head.settings)
    boxes = ops.take_along_axis(truth.boxes, found.matched_gt[..., None], axis=1)
    trained = ops.logical_or(found.is_positive, found.is_negative)
    ours = DenseTargets.of(
        labels=ops.where(found.is_positive, 0, 1),  # one class, and the background
        is_trained=trained,
        is_positive=found.is_positive,
        deltas=encode(boxes, anchors),
    )
    check_dense_targets(record_error, ours, golden, case, [len(level) for level in level_anchors])
    keys = np.zeros(trained.shape, "float32")
    _, targets = sample_targets(found, truth, head.sampler, keys)
    # What the losses are divided by; that ours are, the comparison of losses shows.
    positives = np.sum(ops.convert_to_numpy(targets.is_positive), axis=1)
    negatives = np.sum(ops.convert_to_numpy(targets.weights), axis=1) - positives
    count = np.maximum(positives, 1).sum() + np.maximum(negatives, 1).sum()
    assert count == golden[f"{case}/dense_avg_factor"]


@pytest.mark.parametrize("case", CASES)
def test_training_proposals_equal_the_reference(golden, model, record_error, case):
    x, _ = training_batch(golden, case)
    outputs = model(x, training=True)["rpn"]
    proposals = model.rpn.propose(outputs, x["image_sizes"], training=True)
    for i, boxes in enumerate(ops.convert_to_numpy(proposals.boxes)):
        expected = golden[f"{case}/proposals{i}"]
        error = pixel_error(boxes[partners(boxes, expected)], expected)
        record_error("training: proposals, pixels", error, 0.01)


@pytest.mark.parametrize("case", CASES)
def test_roi_targets_equal_the_reference(golden, model, record_error, case):
    x, y = training_batch(golden, case)
    truth = GroundTruth.of(y)
    boxes = np.stack([golden[f"{case}/proposals{i}"] for i in (0, 1)])
    proposals = Proposals(boxes, np.ones((2, 100), "float32"), np.ones((2, 100), bool))
    candidates, found = match_proposals(proposals, truth, positive_iou=0.5)
    keys = np.zeros(candidates.shape[:2], "float32")  # equal keys: in the order of candidates
    indices, targets = sample_targets(found, truth, model.box_head.sampler, keys)
    rois = ops.take_along_axis(candidates, indices[..., None], axis=1)
    deltas = encode(targets.boxes, rois, STDS)
    logits, _ = model.box_head(model(x, training=True)["pyramid"], rois)
    rows = np.nonzero(ops.convert_to_numpy(targets.weights))  # by image; positives first in each

    def sampled(values):
        return ops.convert_to_numpy(values)[rows]

    positive = sampled(targets.is_positive)
    theirs = {name: golden[f"{case}/{name}"] for name in ROI_ARRAYS}
    np.testing.assert_array_equal(rows[0], theirs["rois"][:, 0])
    np.testing.assert_array_equal(sampled(rois), theirs["rois"][:, 1:])
    labels = np.where(positive, sampled(targets.labels), 80)
    record_error("training: RoI labels, differing", different(labels, theirs["roi_labels"]), 0)
    np.testing.assert_array_equal(sampled(targets.weights), theirs["roi_label_weights"])
    np.testing.assert_array_equal(positive, theirs["roi_bbox_weights"])
    assert not theirs["roi_bbox_targets"][~positive].any()
    error = relative_error(sampled(deltas)[positive], theirs["roi_bbox_targets"][positive], 1.0)
    record_error("training: RoI deltas", error, 1e-5)
    error = scaled_error(sampled(logits), theirs["cls_score"])
    record_error("training: class logits", error, 1e-4)


@pytest.mark.parametrize("case", CASES)
def test_losses_of_given_proposals_equal_the_reference(golden, model, record_error, case):
    x, y = training_batch(golden, case)
    boxes = np.stack([golden[f"{case}/proposals{i}"] for i in (0, 1)])
    proposals = Proposals(boxes, np.ones((2, 100), "float32"), np.ones((2, 100), bool))
    pyramid = model(x, training=True)["pyramid"]
    losses = model.box_head.compute_losses(
        pyramid, proposals, GroundTruth.of(y), lambda num: np.zeros((2, num), "float32")
    )
    for name, loss in zip(("cls", "bbox"), losses, strict=True):
        expected = golden[f"{case}/loss/loss_{name}"].sum()
        error = relative_error(loss, expected, floor=0.01)
        record_error(f"training: loss_{name} of given proposals", error, 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_losses_equal_the_reference(golden, model, record_error, case):
    model.reset_metrics()
    x, y = training_batch(golden, case)
    total = model.compute_loss(x, y, model(x, training=True), training=True)
    expected = {
        "rpn_class_loss": golden[f"{case}/loss/loss_rpn_cls"].sum(),
        "rpn_box_loss": golden[f"{case}/loss/loss_rpn_bbox"].sum(),
        "class_loss": golden[f"{case}/loss/loss_cls"].sum(),
        "box_loss": golden[f"{case}/loss/loss_bbox"].sum(),
    }
    for metric in model.loss_means:
        error = relative_error(metric.result(), expected[metric.name], floor=0.01)
        record_error(f"Libra Faster R-CNN: {metric.name}", error, 1e-5)
    error = relative_error(total, sum(expected.values()), floor=0.0)
    record_error("Libra Faster R-CNN: sum of losses", error, 1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses TensorFlow's tape")
def test_gradients_equal_the_reference(golden, reference, model, record_error):
    import tensorflow as tf

    expected = reference("libra_frcnn_r50b8_grads.npz")
    x, y = training_batch(golden, "a")
    with tf.GradientTape() as tape:
        total = model.compute_loss(x, y, model(x, training=True), training=True)
    check_gradients(record_error, "Libra Faster R-CNN", model, tape, total, expected)
