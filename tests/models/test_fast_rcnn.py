"""The second stage alone, on proposals that come with the images."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras import backbones, data, evaluation
from libra_keras.models import (
    FasterRCNN,
    FastRCNN,
    RPNHead,
    RPNSettings,
    libra_fast_rcnn_small,
)
from libra_keras.models.fast_rcnn import given_proposals
from libra_keras.training import SGD

NAMES = ["one", "two", "three"]


def tiny(constructor=libra_fast_rcnn_small, class_names=NAMES, **options):
    backbone = backbones.ResNet(18, width=8, batch_norm="trainable", frozen_stages=-1)
    return constructor(len(class_names), backbone, class_names=class_names, **options)


@pytest.fixture(scope="module")
def model():
    """One model for many tests; a graph of it would take longer than all of them."""
    model = tiny()
    model.compile(SGD(0.01), run_eagerly=True)
    return model


def batch(rng):
    """Noise; the first image has two objects and three proposals, the second has none."""
    boxes = np.zeros((2, 3, 4), "float32")
    boxes[0, :2] = [[8, 10, 40, 44], [28, 10, 60, 44]]
    labels = np.array([[0, 2, -1], [-1, -1, -1]], "int32")
    proposals = np.zeros((2, 5, 4), "float32")
    proposals[0, :3] = [[6, 10, 40, 44], [50, 20, 60, 44], [0, 0, 90, 60]]
    x = {
        "images": rng.integers(0, 255, (2, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96], [50, 90]], "int32"),
        "proposals": proposals,
    }
    return x, {"boxes": boxes, "labels": labels}


def loss(model, x, y):
    model.trained_steps.assign(0)
    return float(model.compute_loss(x, y, model(x, training=True)))


def test_padding_is_what_has_no_area_or_is_masked():
    rows = [[0, 0, 8, 8], [2, 2, 6, 9], [0, 0, 0, 0], [4, 4, 4, 9], [np.nan] * 4]
    x = {"images": None, "proposals": np.array([rows], "float32")}
    found = given_proposals(x)
    assert ops.convert_to_numpy(found.mask).tolist() == [[True, True, False, False, False]]
    assert not ops.convert_to_numpy(found.boxes)[0, 2:].any()  # no NaN that could spread
    masked = given_proposals({**x, "proposal_mask": np.array([[1, 0, 1, 1, 1]])})
    assert ops.convert_to_numpy(masked.mask).tolist() == [[True] + [False] * 4]


@pytest.mark.parametrize("missing", ["key", "dict"])
def test_a_batch_without_proposals_is_refused(model, rng, missing):
    x, _ = batch(rng)
    wrong = x["images"] if missing == "dict" else {"images": x["images"]}
    with pytest.raises(ValueError, match=r"x\['proposals'\].*with_proposals.*Received: .*images"):
        model(wrong)
    boxes, of_one = np.zeros((1, 3, 4)), r"\(B, P, 4\).* shape=\(3, 4\); of one image, pass"
    with pytest.raises(ValueError, match=rf"`x\['proposals'\]` must have shape {of_one}"):
        given_proposals({"proposals": boxes[0]})
    with pytest.raises(ValueError, match=r"`x\['proposal_mask'\]` .* P being 3"):
        given_proposals({"proposals": boxes, "proposal_mask": np.ones((1, 2))})


@pytest.mark.slow
def test_rows_of_padding_change_nothing(model, rng):
    x, y = batch(rng)
    shorter = {**x, "proposals": x["proposals"][:, :3]}
    found, expected = model.predict_on_batch(x), model.predict_on_batch(shorter)
    for key in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-4)


def test_images_without_proposals_have_no_detections(model, rng):
    x, _ = batch(rng)
    found = model.predict_on_batch({**x, "proposals": np.zeros((2, 4, 4), "float32")})
    assert found["num_detections"].tolist() == [0, 0] and (found["labels"] == -1).all()


def test_objects_are_candidates_even_without_proposals(model, rng):
    x, y = batch(rng)
    x["proposals"][:] = 0
    assert loss(model, x, y) > 0  # the two objects of the first image
    y["labels"][:] = -1
    assert loss(model, x, y) == 0  # nothing at all to learn from, and no division by 0


def test_no_row_of_proposals_is_a_row_of_padding():
    found = given_proposals({"proposals": np.zeros((2, 0, 4), "float32")})
    assert tuple(found.boxes.shape) == (2, 1, 4) and tuple(found.scores.shape) == (2, 1)
    assert not ops.convert_to_numpy(found.mask).any()


@pytest.mark.slow
def test_it_is_faster_rcnn_with_the_proposals_of_its_first_stage(model, rng):
    rpn = RPNHead(RPNSettings(channels=8, pre_nms_test=20, post_nms=40))
    whole = FasterRCNN(model.backbone, model.neck, rpn, model.box_head)
    x, _ = batch(rng)
    expected = whole(x)
    found = model({**x, "proposals": expected["proposals"]["boxes"]})
    found, expected = (
        {key: ops.convert_to_numpy(outputs[key]) for key in model.OUTPUTS}
        for outputs in (found, expected)
    )
    assert (expected["num_detections"] > 0).all()
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)


def test_a_step_trains_every_part_and_logs_both_losses(model, rng):
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    logs = model.train_on_batch(*batch(rng), return_dict=True)
    assert logs["loss"] == pytest.approx(logs["class_loss"] + logs["box_loss"], rel=1e-5)
    parts = (model.backbone, model.neck[0], model.neck[1], model.box_head)
    moved = {
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if not np.array_equal(ops.convert_to_numpy(v), old)
    }
    for part in parts:
        assert any(v.path in moved for v in part.trainable_variables), part.name


def test_detect_takes_proposals_in_pixels_of_each_image(model, rng, monkeypatch):
    monkeypatch.setattr(model, "input_policy", data.InputPolicy(64, 64))
    images = [rng.integers(0, 255, (128, 100, 3), "uint8"), np.zeros((50, 64, 3), "uint8")]
    proposals = [np.array([[20, 40, 60, 100]]), np.zeros((0, 4))]
    deltas = model.box_head.box_deltas
    kept = deltas.get_weights()
    deltas.set_weights([np.zeros_like(value) for value in kept])  # a detection is its proposal
    try:
        first, second = model.detect(images, 0.0, batch_size=2, proposals=proposals)
    finally:
        deltas.set_weights(kept)
    assert len(first["boxes"]) and not len(second["boxes"])
    np.testing.assert_allclose(first["boxes"], [proposals[0][0]] * len(first["boxes"]), atol=1e-3)


def test_detect_without_or_with_other_proposals_is_refused(model):
    image = np.zeros((50, 64, 3), "uint8")
    with pytest.raises(ValueError, match="requires `proposals=`"):
        model.detect(image)
    with pytest.raises(ValueError, match="1 arrays for 2 images"):
        model.detect([image, image], proposals=[np.zeros((1, 4))])
    with pytest.raises(ValueError, match=r"\(n, 4\).*\(1, 5\)"):
        model.detect(image, proposals=np.zeros((1, 5)))


@pytest.mark.slow
def test_a_saved_model_is_the_same(rng, tmp_path):
    model = tiny(seed=3, name="custom")
    x, _ = batch(rng)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, FastRCNN)
    assert (loaded.class_names, loaded.seed, loaded.name) == (NAMES, 3, "custom")
    loss_type = type(loaded.box_head.box_loss).__name__
    assert (loaded.num_classes, loss_type) == (3, "BalancedL1Loss")
    found, expected = (ops.convert_to_numpy(m(x)["boxes"]) for m in (loaded, model))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_evaluation_of_data_that_carry_proposals():
    scene = data.shapes(1)
    model = tiny(class_names=scene.class_names)
    model.compile(SGD(0.01), run_eagerly=True)
    truth = scene.examples[0]
    found = {"image_id": truth.image_id, "boxes": truth.boxes, "scores": np.ones(truth.num_boxes)}
    scene = data.with_proposals(scene, [found])
    metrics = evaluation.evaluate(model, scene, data.InputPolicy(64, 64), 1, 0)
    assert metrics["AR100"] > 0.1  # heads start with all classes, and deltas near 0


@pytest.mark.slow
def test_a_graph_takes_any_number_of_proposals(rng):
    model = tiny()
    x, _ = batch(rng)
    for rows in (5, 4, 3):  # the graph of the second knows no number
        shorter = {**x, "proposals": x["proposals"][:, :rows]}
        expected = ops.convert_to_numpy(model(shorter)["boxes"])
        np.testing.assert_allclose(model.predict_on_batch(shorter)["boxes"], expected, atol=1e-2)
