"""What a config becomes: defaults of the family, schedules, rates; and what is refused."""

import pytest
from configs import resolved

from libra_keras import models
from libra_keras.runs import ModelConfig, RunConfig, TrainConfig, resolve
from libra_keras.runs.defaults import drop_fractions, family

RESNET = ("--model", "faster_rcnn_resnet50")


def test_every_constructor_can_be_trained():
    for name in models.list():
        config = resolve(TrainConfig(model=ModelConfig(name)))
        assert config.model.name == name
        small, dense = name.endswith("_small"), "retinanet" in name
        assert config.schedule.learning_rate == (0.002 if small else 0.00125 if dense else 0.0025)
        pretrained = not small and "resnext" not in name  # Keras has no weights of these
        assert config.model.backbone_weights == ("imagenet" if pretrained else "none")
        assert config.optimizer.name == ("adamw" if small else "sgd")


def test_an_unknown_model_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="'retinanet_resnet5' is unknown; did you .*_resnet50'?"):
        family("retinanet_resnet5")


def test_defaults_depend_on_the_model_and_rates_scale_with_the_batch():
    small, large = resolved(), resolved(*RESNET, "--batch", "8")
    assert small.model.backbone_weights == "none"
    # 0.02 for 16 images, as the reference says
    assert large.schedule.learning_rate == pytest.approx(0.01)
    assert large.model.backbone_weights == "imagenet"


@pytest.mark.parametrize("text", ["2", "0", "a,b", "1/0"])
def test_drops_out_of_range_are_refused(text):
    with pytest.raises(ValueError, match="--drops"):
        drop_fractions(text)
    with pytest.raises(ValueError, match="--drops"):
        resolved("--drops", text)


def test_a_schedule_leaves_no_choice():
    with pytest.raises(ValueError, match="omit --epochs and --drops"):
        resolved("--schedule", "2x", "--epochs", "3", "--drops", "none")
    with pytest.raises(ValueError, match="omit --epochs$"):
        resolved("--schedule", "2x", "--epochs", "12")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--short-side", "321"), "--short-side 321 must not exceed --long-side 320"),
        (("--early-stop", "2", "--eval-every", "0"), "--early-stop compares evaluations"),
        (("--early-stop", "2", "--cluster"), "--early-stop cannot be used in a cluster"),
        (("--optimizer", "sgd"), "requires --learning-rate and --weight-decay: .* are for adamw"),
        (("--optimizer", "sgd", "--learning-rate", "1"), "sgd requires --weight-decay: "),
        (("--average-last", "0.5", "--ema", "0.9"), "omit one of them"),
        (("--freeze", "neck,backbone", "--backbone-rate", "0.1"), "--freeze names it"),
        (("--devices", "2", "--cluster"), "--cluster takes all devices of every machine"),
        (("--cache", "mine/images", "--to", "mine"), "--cache must not lie in the run folder mine"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolved(*arguments)


def test_a_cache_beside_the_run_is_no_part_of_it():
    config = TrainConfig(run=RunConfig("runs/mine")).replace(data={"cache": "runs/mine-images"})
    assert resolve(config).data.cache == "runs/mine-images"
