"""From a config to a detector, what of it stays as it is, and an optimizer."""

import pytest
from configs import resolved

from libra_keras import data, models
from libra_keras.data import shapes
from libra_keras.models import libra_faster_rcnn_small, rpn_small
from libra_keras.runs.building import build, build_model, build_optimizer, check_frozen
from libra_keras.runs.initial import build_initial
from libra_keras.training import SGD, AdamW

RESNET = ("--model", "faster_rcnn_resnet50")


def test_backbone_options_reach_the_backbone():
    config = resolved(
        *"--model libra_faster_rcnn_resnet50 --backbone-weights none --backbone-style caffe "
        "--no-train-affine --frozen-stages 1 --short-side 288 --long-side 384".split()
    )
    model = build_model(config, shapes(1))
    backbone = model.backbone.get_config()
    assert (backbone["style"], backbone["train_affine"], backbone["frozen_stages"]) == (
        "caffe",
        False,
        1,
    )
    assert model.normalization.channel_order == "bgr"
    assert model.input_policy.bucket_size(480, 640) == (288, 384)


def test_backbone_options_of_a_small_model_are_refused():
    with pytest.raises(ValueError, match="--frozen-stages need a model of the resnet family"):
        build_model(resolved("--frozen-stages", "1"), shapes(1))


def test_a_region_proposal_network_is_built_without_classes():
    model = build_model(resolved("--model", "libra_rpn_small"), data.shapes(1))
    assert isinstance(model, models.RegionProposalNetwork) and model.class_names == ["object"]


@pytest.mark.parametrize("name", ["retinanet_resnet50", "libra_rpn_resnet50"])
def test_roi_align_is_not_for_models_without_a_second_stage(name):
    config = resolved("--model", name, "--backbone-weights", "none", "--sampling-ratio", "0")
    with pytest.raises(ValueError, match=f"--sampling-ratio.* {name} has not"):
        build_model(config, data.shapes(1))


def test_drops_are_fractions_of_the_run():
    config = resolved("--epochs", "6", "--drops", "8/12,11/12", "--learning-rate", "0.005")
    schedule = build_optimizer(config, steps_per_epoch=73)._learning_rate
    assert schedule.drops == [292, 401]  # of 438 steps
    assert build_optimizer(resolved("--drops", "none"), 10)._learning_rate.drops == []


@pytest.mark.parametrize(
    ("name", "epochs", "drops"), [("1x", 12, [80, 110]), ("2x", 24, [160, 220])]
)
def test_schedules_of_the_reference(name, epochs, drops):
    config = resolved(*RESNET, "--schedule", name)
    assert config.schedule.epochs == epochs
    assert build_optimizer(config, steps_per_epoch=10)._learning_rate.drops == drops


def test_options_reach_the_optimizer():
    config = resolved("--accumulate", "4", "--ema", "0.9", "--backbone-rate", "0.1")
    optimizer = build_optimizer(config, steps_per_epoch=12)  # 24 steps are 6 updates
    assert isinstance(optimizer, AdamW)
    assert optimizer._learning_rate.drops == [4, 5]
    found = optimizer.get_config()
    assert found["gradient_accumulation_steps"] == 4
    assert (found["use_ema"], found["ema_momentum"]) == (True, 0.9)
    assert found["rate_multipliers"] == {"backbone": 0.1}


def test_averages_of_a_last_share_of_the_updates():
    config = resolved("--accumulate", "2", "--average-last", "0.25", "--epochs", "2")
    found = build_optimizer(config, steps_per_epoch=20).get_config()  # 20 updates
    assert (found["use_ema"], found["average_from"]) == (True, 15)


def test_no_option_changes_nothing():
    found = build_optimizer(resolved(*RESNET), 10).get_config()
    plain = SGD(0.1).get_config()
    names = ("gradient_accumulation_steps", "use_ema", "ema_momentum", "average_from")
    names += ("rate_multipliers",)
    assert {name: found[name] for name in names} == {name: plain[name] for name in names}


def test_more_accumulation_than_steps_is_refused():
    with pytest.raises(ValueError, match="--accumulate 9 is more than all steps of the run"):
        build_optimizer(resolved("--accumulate", "9"), steps_per_epoch=4)


def test_precision_of_an_initial_detector(tmp_path):
    rpn_small(dtype="mixed_bfloat16").save(tmp_path / "model.keras")
    init = ("--init", str(tmp_path / "model.keras"))
    kept, _ = build_initial(resolved(*init), shapes(1))
    assert kept.backbone.compute_dtype == "bfloat16"
    changed, _ = build_initial(resolved(*init, "--precision", "float32"), shapes(1))
    layers = [changed, *changed._flatten_layers()]
    assert {layer.dtype_policy.name for layer in layers} == {"float32"}


def test_parts_that_are_random_are_not_frozen(tmp_path):
    libra_faster_rcnn_small(num_classes=6).save(tmp_path / "model.keras")  # it has no names
    config = resolved("--init", str(tmp_path / "model.keras"), "--freeze", "rpn,box_head")
    with pytest.raises(ValueError, match="box_head .* random weights: class_logits, box_deltas of"):
        build(config, shapes(1), "trainable")
    config = config.replace(model={"freeze": ("rpn", "neck")})
    model, _ = build(config, shapes(1), "trainable")
    assert not model.rpn.trainable_variables and model.box_head.trainable_variables
    with pytest.raises(ValueError, match="--freeze rpn would keep random weights: only --init"):
        build(resolved("--freeze", "rpn"), shapes(1), "trainable")
    with pytest.raises(ValueError, match="--freeze backbone .*: --init and --backbone-weights"):
        build(resolved("--freeze", "backbone"), shapes(1), "trainable")
    # The weights of a backbone may come from elsewhere.
    check_frozen(("backbone",), None, model, backbone_weights="imagenet")
