"""What may change on a detector after it was built, and what it refuses to be built of."""

import dataclasses
import os
import pickle

import keras
import numpy as np
import pytest
from untrained import make

from libra_keras.backbones import ResNet
from libra_keras.layers import FeaturePyramid
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    FasterRCNN,
    RetinaHead,
    RPNHead,
    RPNSettings,
    rpn_small,
)
from libra_keras.samplers import OHEMSampler, RandomSampler


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch computes in a fork")
def test_another_process_is_to_be_spawned(monkeypatch):
    model = make("retinanet_small")
    copied = pickle.dumps(model)
    monkeypatch.setattr(os, "getpid", lambda: model.process + 1)
    for act in (model.predict, model.detect):
        with pytest.raises(RuntimeError, match=r'forked.*get_context\("spawn"\)'):
            act(np.zeros((1, 64, 64, 3), "uint8"))
    assert pickle.loads(copied).process == model.process + 1


@pytest.mark.slow
def test_new_settings_take_effect_after_a_prediction(rng):
    model = make("retinanet_small")
    x = {
        "images": rng.integers(0, 255, (1, 64, 96, 3), "uint8"),
        "image_sizes": np.array([[64, 96]], "int32"),
    }
    assert model.predict_on_batch(x)["num_detections"][0] > 0
    traced = model.predict_function
    model.predict_on_batch(x)
    assert model.predict_function is traced  # nothing has changed: nothing is traced anew
    model.head.settings = dataclasses.replace(model.head.settings, score_threshold=1.0)
    assert model.predict_on_batch(x)["num_detections"][0] == 0
    assert model.predict(x, verbose=0)["num_detections"][0] == 0


@pytest.mark.parametrize(
    ("name", "head", "loss"),
    [
        ("faster_rcnn_small", "rpn", "rpn_box_loss"),
        pytest.param("faster_rcnn_small", "box_head", "box_loss", marks=pytest.mark.slow),
        pytest.param("retinanet_small", "head", "box_loss", marks=pytest.mark.slow),
    ],
)
def test_a_box_loss_is_multiplied_by_its_weight(rng, name, head, loss):
    model = make(name)
    model.compile("sgd", run_eagerly=True)
    x = {"images": rng.integers(0, 255, (1, 64, 96, 3), "uint8")}
    y = {"boxes": np.array([[[8, 10, 40, 44.0]]], "float32"), "labels": np.array([[1]])}
    before = model.test_on_batch(x, y, return_dict=True)[loss]
    assert not model.has_changed("test")
    getattr(model, head).box_loss_weight = 2.5
    assert model.has_changed("test")  # a graph keeps the old weight
    model.trained_steps.assign(0)
    after = model.test_on_batch(x, y, return_dict=True)[loss]
    assert after == pytest.approx(2.5 * before, rel=1e-4) and before > 0
    assert getattr(type(model).from_config(model.get_config()), head).box_loss_weight == 2.5


def test_names_of_classes_are_checked_whenever_they_are_given(tmp_path):
    model = make("retinanet_small")
    for wrong, error, words in (
        (["a", "b", "c"], ValueError, "one name for each of 2 classes. Received: 3"),
        (["a", "a"], ValueError, "each name once"),
        ("ab", TypeError, "list of strings. Received: 'ab'"),
    ):
        with pytest.raises(error, match=words):
            model.class_names = wrong
        with pytest.raises(error, match=words):
            type(model).from_config({**model.get_config(), "class_names": wrong})
    assert model.class_names is None
    model.class_names = ("cat", "dog")
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").class_names == ["cat", "dog"]


def test_strides_of_another_pyramid_are_refused():
    backbone = ResNet(18, width=8, frozen_stages=-1)
    coarser = {"start_level": 1, "extra_levels": "on_input"}  # P3 to P7
    head = BoxHead(2, BoxHeadSettings(channels=16))
    with pytest.raises(ValueError, match=r"P3, .*P7 of strides \(8, 16, 32, 64, 128\).*RPNHead"):
        FasterRCNN(backbone, FeaturePyramid(16, **coarser), RPNHead(RPNSettings(16)), head)
    strides = (8, 16, 32, 64, 128)
    rpn = RPNHead(RPNSettings(channels=16, strides=strides))
    with pytest.raises(ValueError, match=r"strides of BoxHead are \(4, 8, 16, 32\)"):
        FasterRCNN(backbone, FeaturePyramid(16, **coarser), rpn, head)
    head.roi_align.strides = strides[:4]
    model = FasterRCNN(backbone, FeaturePyramid(16, **coarser), rpn, head)
    assert model.rpn.settings.strides == strides


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others have another default")
def test_a_detector_that_was_compiled_elsewhere_has_this_backends_default(tmp_path):
    model = rpn_small()
    model.compile("sgd", jit_compile=False)
    config = model.get_compile_config()
    assert config["jit_compile"] is False
    asked = []
    model.compile = lambda **given: asked.append(given["jit_compile"])
    model.compile_from_config(config)
    assert asked == [None]


@pytest.mark.parametrize(
    "name",
    [
        "rpn_small",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("retinanet_small", "faster_rcnn_small")
        ),
    ],
)
def test_the_limit_of_detections_can_be_set(name, rng):
    model = make(name)
    model.max_detections = 7
    x = rng.integers(0, 255, (1, 64, 96, 3), "uint8")
    assert model.predict_on_batch(x)["boxes"].shape == (1, 7, 4)
    again = type(model).from_config(model.get_config())
    assert again.max_detections == 7
    for wrong in (0, -1, 2.5, True, "many", None):
        with pytest.raises((ValueError, TypeError), match="`max_detections` must be a whole nu"):
            model.max_detections = wrong


def test_as_many_boxes_enter_nms_as_may_leave_it():
    model = make("faster_rcnn_small")
    assert model.box_head.settings.max_candidates == 300
    model.max_detections = 1000
    assert model.box_head.settings.max_candidates == 1000


class Rarely(RandomSampler):
    """A sampler that nobody has registered."""


def test_parts_of_a_user_are_found_among_the_objects_that_are_given(tmp_path):
    model = make("rpn_small")
    model.rpn.sampler = Rarely(8, 0.5)
    own = {"Rarely": Rarely}
    again = [type(model).from_config(model.get_config(), custom_objects=own)]
    model.save(tmp_path / "model.keras")
    again.append(keras.saving.load_model(tmp_path / "model.keras", custom_objects=own))
    with keras.saving.custom_object_scope(own):
        again.append(keras.models.clone_model(model))
    assert [type(each.rpn.sampler) for each in again] == [Rarely] * 3


def test_a_truth_of_other_images_is_refused(rng):
    model = make("rpn_small")
    x = rng.integers(0, 255, (2, 64, 96, 3), "uint8")
    y = {"boxes": np.zeros((1, 1, 4), "float32"), "labels": np.zeros((1, 1), "int32")}
    with pytest.raises(ValueError, match=r"`y\['boxes'\]` must have shape .*B being 2 as in `x"):
        model.compute_loss(x, y, model(x, training=True))


def test_parts_of_heads_are_checked_at_once():
    for wrong, message in (
        ({"sampler": 42}, "`sampler` must be a sampler. Received: sampler=42"),
        ({"sampler": RandomSampler()}, "requires `num` and `positive_fraction`"),
        ({"sampler": OHEMSampler(8, 0.5)}, "`sampler` must not require losses"),
        ({"box_loss": "smooth_l1"}, "`box_loss` must be a keras.losses.Loss. Received: 'smooth_l1"),
        ({"box_loss_weight": "1"}, "`box_loss_weight` must be a number of at least 0"),
        ({"box_loss_weight": float("inf")}, "`box_loss_weight` must be a number of at least 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            RPNHead(**wrong)
    BoxHead(2, sampler=OHEMSampler(8, 0.5))  # it computes them
    with pytest.raises(TypeError, match="`class_loss` must be a keras.losses.Loss. Received: 'foc"):
        RetinaHead(2, class_loss="focal")
    with pytest.raises(TypeError, match="`settings` must be of the class BoxHeadSettings"):
        BoxHead(2, OHEMSampler(8, 0.5))
    with pytest.raises(TypeError, match="`input_policy` must be of the class InputPolicy. Receive"):
        rpn_small(input_policy=(64, 96))
    with pytest.raises(TypeError, match="`seed` must be a whole number"):
        rpn_small(seed=None)
