"""The first stage alone."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras import backbones, data
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    FasterRCNN,
    RegionProposalNetwork,
    fast_rcnn_small,
    libra_rpn_small,
)
from libra_keras.samplers import RandomSampler
from libra_keras.training import SGD


def tiny(constructor=libra_rpn_small, **options):
    backbone = backbones.ResNet(18, width=8, batch_norm="trainable", frozen_stages=-1)
    return constructor(backbone, **options)


@pytest.fixture(scope="module")
def model():
    """One model for many tests; a graph of it would take longer than all of them."""
    model = tiny()
    model.compile(SGD(0.01), run_eagerly=True)
    return model


def batch(rng):
    """Noise; two objects in the first image, none in the second, which has padding."""
    boxes = np.zeros((2, 3, 4), "float32")
    boxes[0, :2] = [[8, 10, 40, 44], [28, 10, 60, 44]]
    x = {
        "images": rng.integers(0, 255, (2, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96], [50, 90]], "int32"),
    }
    return x, {"boxes": boxes, "labels": np.array([[4, 900, -1], [-1, -1, -1]], "int32")}


def test_predict_gives_proposals_inside_their_image(model, rng):
    x, _ = batch(rng)
    found = model.predict(x, verbose=0)
    assert {key: value.shape for key, value in found.items()} == {
        "boxes": (2, 200, 4), "scores": (2, 200), "mask": (2, 200),
    }  # fmt: skip
    assert found["mask"].any(axis=1).all()
    assert (found["boxes"][1] <= [90, 50, 90, 50]).all()
    assert (np.diff(found["scores"]) <= 0).all()
    proposed = model.propose(x)
    np.testing.assert_array_equal(proposed["boxes"], found["boxes"])


@pytest.mark.parametrize("given", [{"num_classes": 1}, {"class_names": ["cat"]}])
def test_classes_are_refused(given):
    with pytest.raises(TypeError, match=f"knows no classes: .* Received: {[*given][0]}"):
        libra_rpn_small(**given)


@pytest.mark.slow
def test_classes_do_not_matter(model, rng):
    x, y = batch(rng)
    outputs = model(x, training=True)
    losses = []
    for labels in (y["labels"], np.minimum(y["labels"], 0)):
        model.trained_steps.assign(0)
        losses.append(float(model.compute_loss(x, {**y, "labels": labels}, outputs)))
    assert losses[0] == losses[1] > 0


@pytest.mark.slow
def test_a_step_logs_two_losses_and_trains_every_part(model, rng):
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    logs = model.train_on_batch(*batch(rng), return_dict=True)
    assert logs["loss"] == pytest.approx(logs["rpn_class_loss"] + logs["rpn_box_loss"], rel=1e-5)
    moved = {
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if not np.array_equal(ops.convert_to_numpy(v), old)
    }
    for part in (model.backbone, *model.neck, model.rpn):
        assert any(v.path in moved for v in part.trainable_variables), part.name


def test_libra_draws_its_negatives_evenly_over_their_range(rng):
    """Bins [0, .1), [.1, .2), [.2, .3): with bins up to 1 all negatives would be in the first."""
    sampler = libra_rpn_small().rpn.sampler
    assert (sampler.num, sampler.upper, sampler.include_zero) == (128, 0.3, True)
    # 3000 without overlap, 300 below 0.1, 200 in 0.1..0.2 and 100 in 0.2..0.3, and 20 positives.
    parts = (3000, 0, 0), (300, 0.01, 0.09), (200, 0.11, 0.19), (100, 0.21, 0.29), (20, 0.7, 0.9)
    overlaps = np.concatenate([rng.uniform(low, high, num) for num, low, high in parts])
    overlaps = overlaps[None].astype("float32")
    keys = rng.random(overlaps.shape).astype("float32")
    arguments = np.zeros(overlaps.shape, "int32"), overlaps >= 0.6, overlaps < 0.3, keys

    def negatives(sampler):
        drawn = sampler(overlaps, *arguments)
        indices, is_positive, weights = (ops.convert_to_numpy(part)[0] for part in drawn)
        chosen = overlaps[0, indices[(weights > 0) & ~is_positive]]
        return np.histogram(chosen, [0, 0.1, 0.2, 0.3])[0].tolist()

    # 20 positives allow 100 negatives: 33 from each bin, and the last one from any
    found = negatives(sampler)
    assert sum(found) == 100 and min(found) >= 33
    # of 3600 negatives 5.6 % and 2.8 % lie in the upper bins
    assert sum(negatives(RandomSampler(128, 0.5))[1:]) < 20


@pytest.mark.slow
def test_first_stage_of_a_detector(model, rng):
    box_head = BoxHead(3, BoxHeadSettings(channels=8))
    detector = FasterRCNN(model.backbone, model.neck, model.rpn, box_head)
    x, _ = batch(rng)
    first = RegionProposalNetwork.of(detector)
    assert first.backbone is detector.backbone and first.rpn is detector.rpn
    expected = ops.convert_to_numpy(detector.propose(x)["boxes"])
    np.testing.assert_allclose(first(x)["boxes"], expected, atol=1e-2)
    detector.rpn.box_loss_weight = 3.0
    fewer = RegionProposalNetwork.of(detector, num=7)
    assert fewer.rpn.box_loss_weight == 3 and fewer.rpn.sampler is detector.rpn.sampler
    assert detector.rpn.settings.post_nms == 200  # as it was
    np.testing.assert_allclose(fewer(x)["boxes"], expected[:, :7], atol=1e-2)
    with pytest.raises(ValueError, match="num=0"):
        RegionProposalNetwork.of(detector, num=0)


def test_a_detector_without_first_stage_is_refused():
    with pytest.raises(ValueError, match="Received: FastRCNN"):
        RegionProposalNetwork.of(fast_rcnn_small(3))


@pytest.mark.slow
def test_detect_gives_objects_of_no_class_in_pixels_of_the_image(model, rng, monkeypatch):
    monkeypatch.setattr(model, "input_policy", data.InputPolicy(64, 64))
    found = model.detect(rng.integers(0, 255, (200, 150, 3), "uint8"))
    assert set(found["names"]) == {"object"} and set(found["labels"].tolist()) == {0}
    assert 100 < found["boxes"][:, 2].max() <= 150.01


@pytest.mark.slow
def test_a_saved_model_is_the_same(rng, tmp_path):
    model = tiny(seed=3, name="custom")
    x, _ = batch(rng)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, RegionProposalNetwork)
    assert (loaded.seed, loaded.name, loaded.rpn.sampler.upper) == (3, "custom", 0.3)
    found, expected = (ops.convert_to_numpy(m(x)["boxes"]) for m in (loaded, model))
    np.testing.assert_allclose(found, expected, atol=1e-3)
