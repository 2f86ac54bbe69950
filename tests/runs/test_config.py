"""A run as a value: what it takes, that it comes back from JSON, and what is made of it."""

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from configs import another, resolved, write_unnamed

from libra_keras.runs import (
    DataConfig,
    DeviceConfig,
    ModelConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
    resolve,
)
from libra_keras.runs.config import from_settings, settings

# Of a run from before there was a config: all that its config.json said of the command.
RECORDED = {
    "data": "data/bccd", "format": "auto", "train_split": None, "val_split": None,
    "skip_bad": False, "cache": None, "voc": False, "proposals_file": None,
    "val_proposals_file": None, "to": "bccd_r50", "overwrite": False,
    "model": "libra_faster_rcnn_resnet50", "init": None,
    "backbone_weights": "weights/r50.weights.h5", "backbone_style": None, "train_affine": None,
    "frozen_stages": None, "sampling_ratio": None, "short_side": 192, "long_side": 256,
    "precision": None, "schedule": None, "optimizer": "sgd", "batch": 4, "epochs": 1,
    "learning_rate": 0.005, "momentum": 0.9, "weight_decay": 0.0001, "warmup_steps": 500,
    "warmup_factor": 0.001, "drops": "8/12,11/12", "clip_norm": 0.0, "flip": 0.5, "eval_every": 1,
    "steps": None, "accumulate": 1, "ema": 0.0, "seed": 0, "freeze": "", "backbone_rate": None,
    "devices": None, "cluster": False, "save_every": 500, "deterministic": False,
    "rate_scaled_from": "0.0025 x 4/2 images",
}  # fmt: skip
CHEAP = """
import json, sys
from libra_keras import runs
config = runs.TrainConfig(schedule=runs.ScheduleConfig(batch=4))
assert runs.TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
print([name for name in ("keras", "tensorflow") if name in sys.modules])
"""


def other_in_all():
    """A config none of whose values is the default."""
    found = {}
    for _, group, field in TrainConfig().options():
        found.setdefault(group, {})[field.name] = another(field)
    return TrainConfig().replace(**found)


def test_a_config_does_not_change():
    config = TrainConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model = ModelConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.schedule.batch = 4
    other = config.replace(schedule={"batch": 4}, run={"seed": 1})
    assert (other.schedule.batch, other.run.seed, config) == (4, 1, TrainConfig())


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (ScheduleConfig, {"batch": "4"}, r"ScheduleConfig.batch must be int or None. .*: '4'"),
        (ScheduleConfig, {"epochs": True}, "epochs must be int or None. Received: True"),
        (ScheduleConfig, {"learning_rate": False}, "learning_rate must be float or None"),
        (ScheduleConfig, {"batch": 4.0}, "batch must be int or None. Received: 4.0"),
        (DataConfig, {"skip_bad": 1}, "DataConfig.skip_bad must be bool. Received: 1"),
        (DataConfig, {"source": None}, "DataConfig.source must be str. Received: None"),
        (ModelConfig, {"freeze": "neck"}, "freeze must be a tuple of str. Received: 'neck'"),
        (ModelConfig, {"freeze": [1]}, "freeze must be a tuple of str"),
        (DeviceConfig, {"count": 1.5}, "DeviceConfig.count must be int or str or None"),
        (TrainConfig, {"data": "shapes"}, "TrainConfig.data must be DataConfig. .*: 'shapes'"),
    ],
)
def test_values_of_other_types_are_refused(group, values, message):
    with pytest.raises(TypeError, match=message):
        group(**values)


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (DataConfig, {"format": "kitti"}, "format must be one of auto, coco, voc, .*: 'kitti'"),
        (ModelConfig, {"precision": "int8"}, "one of float32, mixed_bfloat16, mixed_float16"),
        (ScheduleConfig, {"schedule": "3x"}, "schedule must be one of 1x, 2x. Received: '3x'"),
    ],
)
def test_other_choices_are_refused(group, values, message):
    with pytest.raises(ValueError, match=message):
        group(**values)


def test_values_are_as_json_gives_them_back():
    assert ModelConfig(freeze=["backbone", "neck"]).freeze == ("backbone", "neck")
    assert RunConfig(Path("runs") / "mine").folder == "runs/mine"
    assert ScheduleConfig(learning_rate=1).learning_rate == 1  # a whole number is a number


def test_every_field_comes_back_from_json():
    config = other_in_all()
    for _, group, field in config.options():
        assert getattr(getattr(config, group), field.name) != field.default
    for each in (config, TrainConfig(), resolve(TrainConfig())):
        assert TrainConfig.from_dict(json.loads(json.dumps(each.to_dict()))) == each
        assert from_settings(json.loads(json.dumps(settings(each)))) == each


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"modle": {}}, ValueError, "config: 'modle' is unknown; did you mean 'model'?"),
        ({"model": {"nam": "x"}}, ValueError, "config.model: 'nam' is unknown; .* 'name'?"),
        (
            {"schedule": {"learning_rat": 1.0}},
            ValueError,
            "config.schedule: 'learning_rat' is unknown; did you mean 'learning_rate'?",
        ),
        ({"schedule": {"batch": "4"}}, TypeError, "batch must be int or None. Received: '4'"),
        ({"model": "rpn_small"}, TypeError, "config.model must be a dict. Received: 'rpn_small'"),
        ({"version": 2}, ValueError, "config must have version 1. Received: 2"),
    ],
)
def test_other_dicts_are_refused(values, error, message):
    with pytest.raises(error, match=message):
        TrainConfig.from_dict({**TrainConfig().to_dict(), **values})


def test_settings_of_an_earlier_run_are_the_config_of_its_command():
    command = (
        "data/bccd --model libra_faster_rcnn_resnet50 --backbone-weights weights/r50.weights.h5 "
        "--short-side 192 --long-side 256 --batch 4 --epochs 1 --to bccd_r50"
    )
    config = resolved(*command.split())
    assert from_settings(RECORDED) == config
    own = settings(config)
    assert {name: own.get(name) for name in RECORDED if name in own} == {
        name: value for name, value in RECORDED.items() if name != "rate_scaled_from"
    }


def test_configs_need_no_keras():
    done = subprocess.run([sys.executable, "-c", CHEAP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("start", ["plain", "schedule", "init", "unknown", "everything"])
def test_resolving_fills_what_was_not_said_and_nothing_else(tmp_path, start):
    (tmp_path / "conversion.json").write_text('{"model": "libra_faster_rcnn_resnet50"}')
    mine = str(tmp_path / "mine.keras")
    write_unnamed(tmp_path / "mine.keras")
    said = {
        "plain": TrainConfig(),
        "schedule": TrainConfig(schedule=ScheduleConfig("1x", batch=16, accumulate=2)),
        "init": TrainConfig(model=ModelConfig(init=str(tmp_path), short_side=64)),
        "unknown": TrainConfig(model=ModelConfig(init=mine), run=RunConfig(save_every=7)),
        "everything": resolve(TrainConfig(model=ModelConfig("retinanet_resnet50"))).replace(
            schedule={"learning_rate": 0.5, "drops": "none"}, optimizer={"weight_decay": 0.0}
        ),
    }[start]
    before = copy.deepcopy(said)
    full = resolve(said)
    assert said == before and resolve(full) == full
    assert (full == said) == (start == "everything")
    for name, group, field in said.options():
        value, found = (getattr(getattr(each, group), field.name) for each in (said, full))
        assert found == value or value is None, name
    assert None not in (full.schedule.batch, full.schedule.learning_rate, full.optimizer.name)
