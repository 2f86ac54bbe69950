"""Our whole detector beside the reference's, from pixels to losses, gradients and boxes."""

import keras
import numpy as np
import pytest
from keras import ops
from reference_detector import (
    in_our_layout,
    load_reference_weights,
    named_variables,
    rgb_batch,
    small_libra_faster_rcnn,
    training_batch,
)

from libra_keras.samplers import RandomSampler

CASES = {"libra_frcnn_r50b8": (50, 8), "libra_frcnn_r18b16": (18, 16)}


def detector(reference, name, **parts):
    model = small_libra_faster_rcnn(*CASES[name], **parts)
    load_reference_weights(model, reference(f"{name}_weights.npz"))
    return model


@pytest.mark.parametrize("name", CASES)
def test_inference_equals_the_reference(reference, name):
    features, heads = reference(f"{name}_features.npz"), reference(f"{name}_heads.npz")
    settings = {"pre_nms_test": 300, "post_nms": 150}
    model = detector(reference, name, rpn_settings=settings)
    outputs = model(rgb_batch([features["image_bgr_u8"]], 256, 320))
    for i, level in enumerate(outputs["pyramid"]):
        assert_close(level, features[f"bfp{i}"], 1e-4)
        logits, deltas = outputs["rpn"]["logits"][i], outputs["rpn"]["deltas"][i]
        assert_close(logits, heads[f"rpn_cls{i}"].reshape(1, -1), 1e-4)
        assert_close(deltas, heads[f"rpn_reg{i}"].reshape(1, -1, 4), 1e-4)
    boxes = ops.convert_to_numpy(outputs["proposals"]["boxes"])[0]
    np.testing.assert_allclose(boxes, heads["proposals"], atol=0.01)
    found = {k: ops.convert_to_numpy(outputs[k])[0] for k in ("boxes", "scores", "labels")}
    np.testing.assert_array_equal(found["labels"], heads["det_labels"])
    np.testing.assert_allclose(found["boxes"], heads["det_bboxes"], atol=0.01)
    np.testing.assert_allclose(found["scores"], heads["det_scores"], atol=1e-5)


def trained_detector(reference):
    """The reference's losses were taken with samplers so large that they draw every candidate."""
    return detector(
        reference,
        "libra_frcnn_r50b8",
        rpn_settings={"pre_nms_train": 200, "post_nms": 100},
        rpn_sampler=RandomSampler(num=12000, positive_fraction=0.5),
        box_sampler=RandomSampler(num=400, positive_fraction=0.5),
    )


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_losses_equal_the_reference(reference, case):
    golden = reference("libra_frcnn_r50b8_train.npz")
    model = trained_detector(reference)
    x, y = training_batch(golden, case)
    total = model.compute_loss(x, y, model(x, training=True), training=True)
    expected = {
        "rpn_class_loss": golden[f"{case}/loss/loss_rpn_cls"].sum(),
        "rpn_box_loss": golden[f"{case}/loss/loss_rpn_bbox"].sum(),
        "class_loss": golden[f"{case}/loss/loss_cls"].sum(),
        "box_loss": golden[f"{case}/loss/loss_bbox"].sum(),
    }
    for metric in model.loss_means:
        loss = float(metric.result())
        assert loss == pytest.approx(expected[metric.name], rel=1e-5, abs=1e-7), metric.name
    assert float(total) == pytest.approx(sum(expected.values()), rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses TensorFlow's tape")
def test_gradients_equal_the_reference(reference):
    import tensorflow as tf

    golden = reference("libra_frcnn_r50b8_train.npz")
    expected = reference("libra_frcnn_r50b8_grads.npz")
    model = trained_detector(reference)
    x, y = training_batch(golden, "a")
    with tf.GradientTape() as tape:
        total = model.compute_loss(x, y, model(x, training=True), training=True)
    ours = {v.path: name for name, v in named_variables(model).items()}
    names = [ours[v.path] for v in model.trainable_variables]
    assert set(names) == {name for name in expected if not name.startswith("__")}
    gradients = tape.gradient(total, [v.value for v in model.trainable_variables])
    for name, gradient in zip(names, gradients, strict=True):
        goal = in_our_layout(name, expected[name])
        error = np.linalg.norm(ops.convert_to_numpy(gradient) - goal)
        # 1e-6: phi's bias shifts all logits of a softmax: its gradient is 0 but for rounding
        assert error <= 1e-3 * np.linalg.norm(goal) + 1e-6, (name, error)


def assert_close(ours, expected, tolerance):
    """Largest difference as a part of the largest value."""
    difference = np.abs(ops.convert_to_numpy(ours) - expected).max()
    assert difference <= tolerance * np.abs(expected).max()
