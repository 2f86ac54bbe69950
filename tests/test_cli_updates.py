"""Options of `libra-keras train` about updates, parts of a model, and precision."""

import json

import keras
import numpy as np
import pytest

from libra_keras.cli import main, parser
from libra_keras.cli.building import build_optimizer
from libra_keras.cli.fine_tuning import check_start
from libra_keras.cli.initial import build_initial
from libra_keras.cli.runs import load_detector
from libra_keras.cli.schedule import describe
from libra_keras.cli.train import _build as build
from libra_keras.cli.train import resolve
from libra_keras.data import shapes
from libra_keras.models import libra_faster_rcnn_small, rpn_small
from libra_keras.training import SGD, AdamW

RESNET = ("--model", "faster_rcnn_resnet50")


def parsed(*arguments):
    return resolve(parser().parse_args(["train", *arguments]))


@pytest.mark.parametrize(
    ("name", "epochs", "drops"), [("1x", 12, [80, 110]), ("2x", 24, [160, 220])]
)
def test_schedules_of_the_reference(name, epochs, drops):
    options = parsed(*RESNET, "--schedule", name)
    assert options.epochs == epochs
    assert build_optimizer(options, steps_per_epoch=10)._learning_rate.drops == drops


def test_a_schedule_leaves_no_choice():
    with pytest.raises(ValueError, match="leave --epochs and --drops away"):
        parsed("--schedule", "2x", "--epochs", "3", "--drops", "none")


@pytest.mark.parametrize(
    ("arguments", "rate", "said"),
    [
        ((), 0.0025, "learning rate 0.0025"),
        (("--batch", "4"), 0.005, "learning rate 0.005 = 0.0025 x 4/2 images"),
        (("--accumulate", "8"), 0.02, "learning rate 0.02 = 0.0025 x 16/2 images"),
        (("--batch", "1"), 0.00125, "learning rate 0.00125 = 0.0025 x 1/2 images"),
        (("--batch", "4", "--learning-rate", "0.01"), 0.01, "learning rate 0.01"),
    ],
)
def test_what_the_rate_was_scaled_from_is_said(arguments, rate, said):
    options = parsed(*RESNET, *arguments)
    assert options.learning_rate == pytest.approx(rate)
    assert describe(options, steps=100).endswith(said)


def test_averages_longer_than_the_run_are_said():
    options = parsed("--ema", "0.99", "--epochs", "1", "--accumulate", "2")
    assert describe(options, steps=202).endswith("averages that are 37% the first update's weights "
                                                 "at the end")  # fmt: skip
    assert "averages" not in describe(options, steps=2002)


def test_options_reach_the_optimizer():
    options = parsed("--accumulate", "4", "--ema", "0.9", "--backbone-rate", "0.1")
    optimizer = build_optimizer(options, steps_per_epoch=12)  # 24 steps are 6 updates
    assert isinstance(optimizer, AdamW)
    assert optimizer._learning_rate.drops == [4, 5]
    config = optimizer.get_config()
    assert config["gradient_accumulation_steps"] == 4
    assert (config["use_ema"], config["ema_momentum"]) == (True, 0.9)
    assert config["rate_multipliers"] == {"backbone": 0.1}


def test_no_option_changes_nothing():
    config = build_optimizer(parsed(*RESNET), 10).get_config()
    plain = SGD(0.1).get_config()
    names = ("gradient_accumulation_steps", "use_ema", "ema_momentum", "rate_multipliers")
    assert {name: config[name] for name in names} == {name: plain[name] for name in names}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--accumulate", "0"), "--accumulate and --steps must be at least 1"),
        (("--steps", "0"), "--accumulate and --steps must be at least 1"),
        (("--eval-every", "-1"), "--eval-every must be a number of epochs, or 0"),
        (("--optimizer", "sgd"), "needs --learning-rate and --weight-decay too.* are for adamw"),
        (("--optimizer", "sgd", "--learning-rate", "1"), "sgd needs --weight-decay too"),
        (("--clip-norm", "-1"), "--clip-norm must not be negative. Received: -1"),
        (("--clip-norm", "nan"), "--clip-norm must not be negative. Received: nan"),
        (("--ema", "1"), r"--ema must lie in \[0, 1\). Received: 1"),
        (("--backbone-rate", "-1"), "--backbone-rate must not be negative"),
        (("--freeze", "neck,backbone", "--backbone-rate", "0.1"), "--freeze names it"),
    ],
)
def test_options_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


def test_more_accumulation_than_steps_is_refused():
    with pytest.raises(ValueError, match="--accumulate 9 is more than all steps of the run"):
        build_optimizer(parsed("--accumulate", "9"), steps_per_epoch=4)


def test_precision_of_an_initial_detector(tmp_path):
    rpn_small(dtype="mixed_bfloat16").save(tmp_path / "model.keras")
    init = ("--init", str(tmp_path / "model.keras"))
    kept, _ = build_initial(parsed(*init), shapes(1))
    assert kept.backbone.compute_dtype == "bfloat16"
    changed, _ = build_initial(parsed(*init, "--precision", "float32"), shapes(1))
    layers = [changed, *changed._flatten_layers()]
    assert {layer.dtype_policy.name for layer in layers} == {"float32"}


def test_parts_that_are_random_are_not_frozen(tmp_path):
    libra_faster_rcnn_small(num_classes=6).save(tmp_path / "model.keras")  # it has no names
    options = parsed("--init", str(tmp_path / "model.keras"), "--freeze", "rpn,box_head")
    with pytest.raises(ValueError, match="box_head .* random weights: class_logits, box_deltas of"):
        build(options, shapes(1), "trainable")
    options.freeze = "rpn,neck"
    model, _ = build(options, shapes(1), "trainable")
    assert not model.rpn.trainable_variables and model.box_head.trainable_variables
    with pytest.raises(ValueError, match="--freeze rpn would keep random weights: only --init"):
        build(parsed("--freeze", "rpn"), shapes(1), "trainable")
    with pytest.raises(ValueError, match="--freeze backbone .*: --init and --backbone-weights"):
        build(parsed("--freeze", "backbone"), shapes(1), "trainable")
    # The weights of a backbone may come from elsewhere.
    check_start(["backbone"], None, model, backbone_weights="imagenet")


@pytest.mark.slow
def test_a_run_with_all_options(tmp_path, capsys):
    """What is measured, printed, and saved is the averages; another run can start from it."""
    data = "shapes --train-split 8 --val-split 4".split()
    sizes = "--batch 2 --steps 4 --epochs 2 --short-side 64 --long-side 96".split()
    updates = "--accumulate 2 --ema 0.25 --backbone-rate 0.1 --warmup-steps 0".split()
    first, second = tmp_path / "first", tmp_path / "second"
    half = ("--precision", "mixed_float16")
    assert main(["train", *data, *sizes, *updates, *half, "--to", str(first)]) == 0
    printed = capsys.readouterr().out
    assert "an update every 2 steps, learning rate 0.002 ->" in printed  # 2 x 2 of 4 images
    assert "averaged weights of the last step" in printed
    metrics = json.loads((first / "metrics.json").read_text())
    config = json.loads((first / "config.json").read_text())
    assert metrics["averaged"] and config["dtype_policy"] == "mixed_float16"
    last, whole = load_detector(first), load_detector(first / "model.keras")
    for ours, expected in zip(last.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours, expected)))
    init = ["--init", str(first), "--freeze", "backbone,neck", "--precision", "float32"]
    assert main(["train", *data, *sizes, *init, "--to", str(second)]) == 0
    again = load_detector(second)
    assert again.dtype_policy.name == "float32"
    moved = {
        part: any(
            (keras.ops.convert_to_numpy(new) != keras.ops.convert_to_numpy(old)).any()
            for old, new in zip(getattr(last, part).weights, getattr(again, part).weights,
                                strict=True)
        )
        for part in ("backbone", "rpn", "box_head")
    }  # fmt: skip
    assert moved == {"backbone": False, "rpn": True, "box_head": True}
