"""Heads compute anchors, boxes and targets in the geometry that their settings name."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.functional import native
from libra_keras.functional.argument_checks import GEOMETRIES
from libra_keras.functional.boxes import encode
from libra_keras.models import (
    BoxHeadSettings,
    GroundTruth,
    RetinaHead,
    RetinaHeadSettings,
    RPNHead,
    RPNSettings,
)
from libra_keras.models.detections import select_dense_detections, select_detections
from libra_keras.models.proposals import Proposals, select_proposals

SIZES = np.array([[48, 64]], "int32")
OBJECT = np.array([[[4, 6, 30, 33]]], "float32")
TRUTH = {"boxes": OBJECT, "labels": np.array([[0]])}
SMALL = {"channels": 8, "strides": (8, 16), "ratios": (1.0,)}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def rpn_head(geometry):
    return RPNHead(RPNSettings(scales=(2.0,), geometry=geometry, **SMALL))


def retina_head(geometry):
    settings = {"num_convs": 1, "base_scale": 2.0, "scales_per_octave": 1, **SMALL}
    return RetinaHead(1, RetinaHeadSettings(geometry=geometry, **settings))


@pytest.mark.parametrize("make", [rpn_head, retina_head])
@pytest.mark.parametrize(
    ("geometry", "expected"),
    # The second row and column of a level of stride 16 with 2 x 2 cells below one with 3 x 3.
    [
        ("continuous", [0, 0, 32, 32]),  # 32 pixels around (16, 16)
        ("torchvision", [-4, -4, 28, 28]),  # the image has 3 * 8 pixels: 24 // 2 = 12 a cell
        ("legacy", [8, 8, 40, 40]),  # 32 pixels around 16 + 7.5: 8..39
    ],
)
def test_heads_have_the_anchors_of_their_geometry(make, geometry, expected):
    pyramid = [np.ones((1, 3, 3, 4), "float32"), np.ones((1, 2, 2, 4), "float32")]
    outputs = make(geometry)(pyramid)
    assert numpy(outputs["anchors"][1])[3].tolist() == expected


def test_anchors_of_unknown_sizes_in_a_graph():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces sizes that it does not know")
    import tensorflow as tf

    head = rpn_head("torchvision")
    pyramid = [tf.ones((1, 3, 7, 4)), tf.ones((1, 2, 4, 4))]
    expected = head(pyramid)["anchors"]
    spec = [tf.TensorSpec((None, None, None, 4))] * 2
    found = tf.function(lambda levels: head(levels)["anchors"], input_signature=[spec])(pyramid)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def answers(make, anchors_of, geometry):
    """What a head returns, logits apart, whose deltas are right for the anchors of a geometry."""
    levels = [np.ones((1, *size, 4), "float32") for size in [(6, 8), (3, 4)]]
    anchors = make(anchors_of)(levels)["anchors"]
    right = [encode(OBJECT, level) for level in anchors]
    return {**make(geometry)(levels), "deltas": right}


def uniform_keys(num):
    return ops.cast(ops.arange(num), "float32")[None] / num


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_first_stage_is_trained_in_its_geometry(geometry):
    head, truth = rpn_head(geometry), GroundTruth.of(TRUTH)
    other = {"legacy": "continuous"}.get(geometry, "legacy")
    with native.portable():
        right, wrong = (
            float(
                numpy(
                    head.compute_losses(
                        answers(rpn_head, name, geometry), truth, SIZES, uniform_keys
                    )[1]
                )
            )
            for name in (geometry, other)
        )
    assert right == 0 and wrong > 1e-5


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_one_stage_is_trained_in_its_geometry(geometry):
    head, truth = retina_head(geometry), GroundTruth.of(TRUTH)
    other = {"legacy": "continuous"}.get(geometry, "legacy")
    with native.portable():
        right, wrong = (
            float(numpy(head.compute_losses(answers(retina_head, name, geometry), truth, SIZES)[1]))
            for name in (geometry, other)
        )
    assert right == 0 and wrong > 1e-3


THIN = np.array([[0, 0, 8, 5e-4], [16, 0, 24, 5e-3], [32, 0, 40, 0.02], [80, 0, 88, 8]], "float32")


@pytest.mark.parametrize(
    ("geometry", "expected"),
    # The last box lies outside the image and is clipped to no width at all.
    [
        ("continuous", [0, 16, 32]),
        ("torchvision", [16, 32]),  # from 1e-3 pixels on
        ("legacy", [0, 16, 32, 63]),  # a single column, the last one
    ],
)
def test_thin_proposals(geometry, expected):
    found = select_proposals(
        [np.arange(4, dtype="float32")[None]],
        [np.zeros((1, 4, 4), "float32")],
        [THIN],
        SIZES,
        RPNSettings(post_nms=4, geometry=geometry),
        pre_nms=4,
    )
    boxes, mask = numpy(found.boxes)[0], numpy(found.mask)[0]
    assert sorted(boxes[mask][:, 0].round(3).tolist()) == expected


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ("continuous", [0, 16, 32, 64]),
        ("torchvision", [32]),  # from 1e-2 pixels on
        ("legacy", [0, 16, 32, 63]),
    ],
)
def test_thin_detections_of_the_second_stage(geometry, expected):
    logits = np.stack([np.linspace(1, 2, 4), np.zeros(4)], axis=-1).astype("float32")[None]
    proposals = Proposals(THIN[None], np.ones((1, 4), "float32"), np.ones((1, 4), bool))
    settings = BoxHeadSettings(geometry=geometry, max_detections=4)
    found = select_detections(logits, np.zeros((1, 4, 1, 4), "float32"), proposals, SIZES, settings)
    boxes = numpy(found["boxes"])[0, : int(numpy(found["num_detections"])[0])]
    assert sorted(boxes[:, 0].round(3).tolist()) == expected


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [("continuous", [0, 16, 32]), ("torchvision", [0, 16, 32, 64]), ("legacy", [0, 16, 32, 63])],
)
def test_thin_detections_of_one_stage(geometry, expected):
    settings = RetinaHeadSettings(geometry=geometry, pre_nms=4, max_detections=4)
    with native.portable():
        found = select_dense_detections(
            [np.linspace(1, 2, 4).astype("float32")[None, :, None]],
            [np.zeros((1, 4, 4), "float32")],
            [THIN],
            SIZES,
            settings,
        )
    boxes = numpy(found["boxes"])[0, : int(numpy(found["num_detections"])[0])]
    assert sorted(boxes[:, 0].round(3).tolist()) == expected


@pytest.mark.parametrize("kind", [RPNSettings, BoxHeadSettings, RetinaHeadSettings])
def test_settings_name_a_geometry(kind):
    settings = kind(geometry="legacy")
    assert kind.from_config(settings.get_config()) == settings != kind()
    old = kind().get_config()
    assert old.pop("geometry") == "continuous"
    assert kind.from_config(old) == kind()  # saved before there was a choice
    for wrong in ("Legacy", None):
        with pytest.raises(ValueError, match=r"`geometry` must be one of .* Received: geometry="):
            kind(geometry=wrong)
