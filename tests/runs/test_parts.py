"""Parts of a named detector that a config replaces."""

import numpy as np
import pytest
from configs import resolved

from libra_keras import data, models
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid, PathAggregationPyramid
from libra_keras.runs import ModelConfig
from libra_keras.runs.building import build
from libra_keras.runs.parts import with_parts
from libra_keras.samplers import RandomSampler

LIBRA = {
    "positives": "balanced",
    "negatives": "mmdet",
    "neck": "bfp",
    "box_loss": "balanced_l1",
}


@pytest.fixture(scope="module")
def plain():
    return models.fast_rcnn_small(num_classes=2)


def config_without_names(value):
    """A model's config without the names that Keras counts up."""
    if isinstance(value, dict):
        return {
            k: config_without_names(v)
            for k, v in value.items()
            if k not in ("name", "build_config")
        }
    return [config_without_names(v) for v in value] if isinstance(value, list) else value


def test_all_parts_of_libra_turn_the_plain_twin_into_it():
    found = with_parts(models.fast_rcnn_small(num_classes=2), ModelConfig(**LIBRA))
    libra = models.libra_fast_rcnn_small(num_classes=2)
    assert config_without_names(found.get_config()) == config_without_names(libra.get_config())


def test_libra_becomes_plain():
    own = {"positives": "random", "negatives": "random", "neck": "fpn", "box_loss": "l1"}
    libra = models.libra_faster_rcnn_small(num_classes=2)
    found = with_parts(libra, ModelConfig(**own, rpn_limit=0.0))
    plain = models.faster_rcnn_small(num_classes=2)
    assert config_without_names(found.get_config()) == config_without_names(plain.get_config())


def test_another_neck_leaves_all_other_weights(plain):
    before = [layer.get_weights() for layer in (plain.backbone, plain.box_head)]
    found = with_parts(plain, ModelConfig(neck="balanced_pafpn", refiner="conv"))
    after = [layer.get_weights() for layer in (found.backbone, found.box_head)]
    for old, new in zip(before, after, strict=True):
        assert all(map(np.array_equal, old, new))
    assert [type(layer) for layer in found.neck] == [PathAggregationPyramid, BalancedFeaturePyramid]
    assert found.neck[0].channels == plain.neck[0].channels


@pytest.mark.parametrize(
    ("name", "level"), [("faster_rcnn_small", 2), ("retinanet_small", 2), ("retinanet_resnet50", 1)]
)
def test_levels_are_averaged_at_the_size_of_p4(name, level):
    config = resolved("--model", name, "--neck", "bfp", "--backbone-weights", "none")
    model, _ = build(config, data.shapes(1), "trainable")
    assert isinstance(model.neck[0], FeaturePyramid) and model.neck[1].refine_level == level


def test_samplers_keep_their_numbers(plain):
    own = ModelConfig(negatives="paper_text", bins=5, upper="negatives")
    sampler = with_parts(plain, own).box_head.sampler
    assert (sampler.num, sampler.positive_fraction) == (64, 0.5)
    assert (sampler.negatives.num_bins, sampler.negatives.upper) == (5, "negatives")
    assert sampler.negatives.include_zero and type(sampler.positives) is RandomSampler


def test_weights_of_losses_and_limits_reach_their_heads():
    own = ModelConfig(rpn_limit=5.0, box_loss_weight=1.5)
    model = with_parts(models.faster_rcnn_small(num_classes=2), own)
    assert model.rpn.sampler.max_negatives_per_positive == 5 and model.rpn.box_loss_weight == 1
    assert model.box_head.box_loss_weight == 1.5


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("retinanet_small", {"positives": "random"}, "second stage, which a RetinaNet lacks"),
        ("fast_rcnn_small", {"rpn_limit": 5.0}, "--rpn-limit requires a first stage"),
        (
            "fast_rcnn_small",
            {"bins": 5},
            "--negative-bins and --negative-upper require --negatives",
        ),
        ("fast_rcnn_small", {"refiner": "conv"}, "--refiner requires --neck bfp"),
        ("fast_rcnn_small", {"box_alpha": 0.5, "box_loss": "l1"}, "require --box-loss balanced_l1"),
        ("fast_rcnn_small", {"box_beta": 0.5}, "--box-beta requires --box-loss"),
        ("fast_rcnn_small", {"box_loss_weight": -1.0}, "box_loss_weight must be .* Received: -1"),
        ("fast_rcnn_small", {"negatives": "mmdet", "upper": 2.0}, "upper must be .* Received: 2"),
    ],
)
def test_what_does_not_fit_is_refused(name, own, message):
    with pytest.raises(ValueError, match=message):
        with_parts(getattr(models, name)(num_classes=2), ModelConfig(**own))


def test_a_detector_that_is_there_keeps_its_neck(tmp_path):
    for name in ("model.json", "last.weights.h5"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="--init brings its own neck; omit --neck bfp"):
        resolved("--init", str(tmp_path), "--neck", "bfp")
