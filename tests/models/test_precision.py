"""What stays float32 in mixed precision: boxes, matching, suppression, and the losses.

The last layers of the heads are set to zero. Then no number of the backbone reaches a result:
losses and boxes follow from the geometry alone, and must be those of float32 to its last digits.
bfloat16 would make 1336 of a coordinate of 1333.37, and float16 1333.
"""

import keras
import numpy as np
import pytest
from gradients import to_numpy

from libra_keras import models
from libra_keras.backbones import ResNet

POLICIES = ["mixed_bfloat16", "mixed_float16"]
DETECTORS = [
    "libra_faster_rcnn_small",
    "faster_rcnn_small",
    "libra_retinanet_small",
    "retinanet_small",
    "libra_fast_rcnn_small",
    "libra_rpn_small",
]
LAST = ("logits_conv", "deltas_conv", "class_logits", "box_deltas")
QUICK = ("libra_faster_rcnn_small", "mixed_bfloat16")


def cases():
    for name in DETECTORS:
        for policy in POLICIES:
            marks = [] if (name, policy) == QUICK else [pytest.mark.slow]
            yield pytest.param(name, policy, marks=marks)


def detector(name, policy):
    keras.utils.set_random_seed(3)
    backbone = ResNet(18, width=4, dtype=policy)
    counts = {} if "rpn" in name else {"num_classes": 3}
    model = getattr(models, name)(backbone=backbone, dtype=policy, **counts)
    for head in model.heads():
        for layer in (getattr(head, attribute, None) for attribute in LAST):
            for variable in layer.weights if layer is not None else ():
                variable.assign(np.zeros(variable.shape))
    return model


def batch(name, right=1333.37):
    rng = np.random.default_rng(0)
    x = {
        "images": rng.integers(0, 255, (1, 64, 1344, 3), "uint8"),
        "image_sizes": np.array([[64, 1340]], "int32"),
    }
    boxes = np.float32([[[1290.21, 7.77, right, 51.13], [700.3, 3.1, 733.9, 30.7]]])
    if name == "libra_fast_rcnn_small":
        x["proposals"] = boxes + np.float32(1.7)
    return x, {"boxes": boxes, "labels": np.array([[0, 2]], "int32")}


def losses(model, name, **options):
    x, y = batch(name, **options)
    outputs = model(x, training=True)
    total = model.compute_loss(x, y, outputs)
    assert keras.backend.standardize_dtype(total.dtype) == "float32"
    return {tracker.name: float(tracker.result()) for tracker in model.loss_means}


@pytest.mark.parametrize(("name", "policy"), cases())
def test_losses_and_boxes_are_those_of_float32(name, policy):
    mixed, exact = detector(name, policy), detector(name, "float32")
    x, _ = batch(name)
    pyramid = mixed.pyramid(x["images"], x["image_sizes"])
    assert keras.backend.standardize_dtype(pyramid[0].dtype) == policy.removeprefix("mixed_")
    if name == "retinanet_small":
        outputs = mixed(x, training=True)["head"]
        for key, dtype in (("logits", policy.removeprefix("mixed_")), ("anchors", "float32")):
            assert keras.backend.standardize_dtype(outputs[key][0].dtype) == dtype
    ours, expected = losses(mixed, name), losses(exact, name)
    np.testing.assert_allclose([*ours.values()], [*expected.values()], rtol=1e-6)
    ours, expected = mixed(x), exact(x)
    for key in [key for key in mixed.OUTPUTS if key in ours]:
        assert ours[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(to_numpy(ours[key]), to_numpy(expected[key]), err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["libra_faster_rcnn_small", "libra_retinanet_small"])
def test_losses_would_tell_rounded_boxes(name):
    """The test above means something: the coordinate of float16 gives other losses."""
    model = detector(name, "mixed_float16")
    exact, rounded = losses(model, name), losses(model, name, right=1333.0)
    assert any(abs(rounded[key] / value - 1) > 1e-5 for key, value in exact.items())


@pytest.mark.parametrize("policy", POLICIES)
def test_the_global_policy_reaches_the_layers_and_no_loss_or_box(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = models.libra_faster_rcnn_small(num_classes=3)
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = batch("libra_faster_rcnn_small")
    outputs = model(x, training=True)
    assert keras.backend.standardize_dtype(outputs["pyramid"][0].dtype) == policy[6:]
    loss = model.compute_loss(x, y, outputs)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32" and np.isfinite(to_numpy(loss))
    found = model(x)
    assert keras.backend.standardize_dtype(found["boxes"].dtype) == "float32"
    assert keras.backend.standardize_dtype(found["scores"].dtype) == "float32"
