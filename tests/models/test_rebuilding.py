"""A detector rebuilt, mostly for other classes: what is kept, what starts anew, what is refused."""

import numpy as np
import pytest
from keras import ops

from libra_keras import models
from libra_keras.backbones import ResNet
from libra_keras.data import InputPolicy
from libra_keras.layers import FeaturePyramid, ImageNormalization
from libra_keras.models import with_classes
from libra_keras.models.rebuilding import (
    config_with_batch_norm,
    config_with_classes,
    config_with_policy,
    rebuilt,
    reheaded_layers,
    with_neck,
)

NAMES = ["cat", "dog", "cow"]
KINDS = {
    "libra_faster_rcnn_small": ["class_logits", "box_deltas"],
    "fast_rcnn_small": ["class_logits", "box_deltas"],
    "retinanet_small": ["class_logits"],
}


def build(name="retinanet_small", **options):
    backbone = ResNet(18, width=8, frozen_stages=1)
    return getattr(models, name)(3, backbone, class_names=NAMES, **options)


def scrambled(detector):
    """Gives every variable values that no initialiser gives."""
    rng = np.random.default_rng(0)
    for variable in detector.weights:
        variable.assign(rng.uniform(2, 3, variable.shape).astype(variable.dtype))
    return detector


@pytest.fixture(scope="module")
def dense():
    """A `RetinaNet` that no test changes."""
    return scrambled(build())


def started_anew(before, after):
    """The paths of the variables of `after` that have not the values of `before`."""
    pairs = zip(before.weights, after.weights, strict=True)
    return [
        new for old, new in pairs
        if old.shape != new.shape
        or not np.array_equal(ops.convert_to_numpy(old), ops.convert_to_numpy(new))
    ]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_last_layers_start_anew_and_nothing_else(name):
    before = scrambled(build(name))
    after = with_classes(before, ["horse", "cat"])
    head = after.heads()[-1]
    layers = [getattr(head, layer) for layer in KINDS[name]]
    expected = {id(variable) for layer in layers for variable in layer.weights}
    assert {id(variable) for variable in started_anew(before, after)} == expected
    assert reheaded_layers(before, ["horse", "cat"]) == KINDS[name]
    assert (after.num_classes, after.class_names) == (2, ["horse", "cat"])
    assert (before.num_classes, before.class_names) == (3, NAMES)
    assert after.trainable_weights[0].shape == before.trainable_weights[0].shape


def test_fresh_layers_are_those_of_a_new_detector(dense):
    after = with_classes(dense, ["horse", "cat"])
    bias = ops.convert_to_numpy(after.head.class_logits.bias)
    np.testing.assert_allclose(bias, np.log(0.01 / 0.99), rtol=1e-6)  # the focal loss's prior
    kernel = ops.convert_to_numpy(after.head.class_logits.kernel)
    assert abs(kernel.std() - 0.01) < 0.001 and abs(kernel.mean()) < 0.001


def test_the_same_number_of_other_classes_starts_anew_too(dense):
    assert len(started_anew(dense, with_classes(dense, ["dog", "cat", "cow"]))) == 2


def test_the_same_names_keep_everything(dense):
    after = with_classes(dense, tuple(NAMES))
    assert reheaded_layers(dense, tuple(NAMES)) == [] and after is not dense
    assert started_anew(dense, after) == []


def test_classes_without_names_start_anew(dense, monkeypatch):
    monkeypatch.setattr(dense, "class_names", None)
    assert reheaded_layers(dense, NAMES) == ["class_logits"]


def test_a_region_proposal_network_is_copied_whole():
    before = scrambled(models.rpn_small(ResNet(18, width=8)))
    after = with_classes(before, ["horse"])
    assert started_anew(before, after) == [] and after.class_names == ["object"]
    assert reheaded_layers(before, ["horse"]) == []


def test_settings_are_those_of_the_detector():
    before = build(
        "libra_faster_rcnn_small",
        normalization=ImageNormalization.caffe_style(),
        input_policy=InputPolicy(48, 96),
        seed=5,
    )
    after = with_classes(before, ["horse"]).get_config()
    for part in ("normalization", "input_policy", "seed", "neck", "backbone", "rpn"):
        assert after[part] == before.get_config()[part]
    theirs, ours = (c["box_head"]["config"] for c in (before.get_config(), after))
    assert {**theirs, "num_classes": 1} == ours


def test_a_change_of_shapes_is_refused(dense):
    config = config_with_classes(dense, NAMES)
    config["backbone"]["config"]["width"] = 16
    with pytest.raises(ValueError, match="must have"):
        rebuilt(dense, config)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("cat", TypeError, "a list of strings"),
        ([1, 2], TypeError, "a list of strings"),
        ([], ValueError, "at least one name"),
        (["cat", "cat"], ValueError, "each only once"),
    ],
)
def test_wrong_names_are_refused(dense, names, error, message):
    with pytest.raises(error, match=message):
        config_with_classes(dense, names)


def test_another_policy_takes_the_place_of_one_or_of_all(dense):
    config = dense.get_config()
    assert config_with_policy(config, "mixed_bfloat16", old="float64") == config
    found = config_with_policy(config, "mixed_bfloat16", old="float32")
    assert found == config_with_policy(config, "mixed_bfloat16") != config
    assert rebuilt(dense, found).head.compute_dtype == "bfloat16"


def test_frozen_batch_normalisation_stays_frozen(dense):
    config = dense.get_config()
    assert config_with_batch_norm(config, "synchronized") == config
    config["backbone"]["config"]["batch_norm"] = "trainable"
    found = config_with_batch_norm(config, "synchronized")
    assert found["backbone"]["config"]["batch_norm"] == "synchronized"


def test_another_neck_is_built_around_the_same_layers(dense):
    neck = [FeaturePyramid(48, extra_levels="on_input")]
    found = with_neck(dense, neck)
    assert found.neck == neck and found.class_names == NAMES
    assert (found.backbone, found.head) == (dense.backbone, dense.head)
