"""The COCO recipes: what they train, that it is what the command trains, and that each does."""

import dataclasses
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from libra_keras import data, runs
from libra_keras.cli import parser
from libra_keras.cli.options import config_of
from libra_keras.models.constructors.parts import NETWORKS

FOLDER = Path(__file__).parents[2] / "recipes" / "coco"
NAMES = {
    "faster_rcnn_r50_1x": "faster_rcnn_resnet50",
    "libra_faster_rcnn_r101_1x": "libra_faster_rcnn_resnet101",
    "libra_faster_rcnn_r101_2x": "libra_faster_rcnn_resnet101",
    "libra_faster_rcnn_r50_1x": "libra_faster_rcnn_resnet50",
    "libra_faster_rcnn_x101_64x4d_1x": "libra_faster_rcnn_resnext101_64x4d",
    "libra_retinanet_r50_1x": "libra_retinanet_resnet50",
    "retinanet_r50_1x": "retinanet_resnet50",
}
SIZES = {"short_side": 128, "long_side": 128, "backbone_weights": "none"}


@pytest.fixture
def recipe(monkeypatch):
    """Returns a function that imports a recipe as `python recipes/coco/<name>.py` would."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("experiment", None)


@pytest.fixture
def narrow(monkeypatch):
    for name in NETWORKS:
        monkeypatch.setitem(NETWORKS, name, {"depth": 18, "width": 8})


def test_all_seven_are_here():
    assert sorted(file.stem for file in FOLDER.glob("*_[12]x.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_notes_that_say_what_they_reproduce(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) < 32
    header = text.split('"""')[1]
    assert "Pang et al." in header and f"python recipes/coco/{name}.py" in header


@pytest.mark.parametrize(("name", "detector"), NAMES.items())
def test_a_recipe_is_the_command_of_the_reference(name, detector, recipe, monkeypatch):
    """16 images a step, 12 or 24 epochs, no image without a box: one code path with the command."""
    module, schedule = recipe(name), name[-2:]
    monkeypatch.setattr(sys, "argv", ["recipe", "coco", "--to", "run"])
    config = module.experiment.given(module.CONFIG, "")
    config = config.replace(devices={"count": None}, model={"backbone_weights": "none"})
    command = f"train coco --to run --model {detector} --schedule {schedule} --batch 16"
    command += " --train-split train2017 --val-split val2017 --drop-empty --backbone-weights none"
    assert config == config_of(parser().parse_args(command.split()))
    resolved = runs.resolve(config)
    assert resolved.schedule.learning_rate == pytest.approx(0.01 if "retina" in name else 0.02)
    assert resolved.schedule.epochs == {"1x": 12, "2x": 24}[schedule]
    assert (resolved.optimizer.weight_decay, resolved.schedule.warmup_steps) == (1e-4, 500)


def test_options_that_the_command_line_gives(recipe, monkeypatch):
    module = recipe("libra_faster_rcnn_r50_1x")
    given = "coco --to run --batch 4 --epochs 9 --skip-bad --precision mixed_bfloat16 --seed 2"
    monkeypatch.setattr(sys, "argv", ["recipe", *given.split()])
    config = module.experiment.given(module.CONFIG, "")
    assert config.devices.count == "all" and config.data.skip_bad
    assert (config.run.seed, config.model.precision) == (2, "mixed_bfloat16")
    # The rate drops after epoch 8, as in 12 epochs.
    assert (config.schedule.epochs, config.schedule.drops) == (9, "8/9")
    assert module.experiment.shortened(module.CONFIG, 3).schedule.drops == "none"
    assert runs.resolve(config).schedule.learning_rate == 0.005


# On the same network, those of other networks and schedules are the same detectors.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("r50_1x")])
def test_two_steps_on_drawn_scenes(name, recipe, narrow, tmp_path, eagerly):
    config = recipe(name).CONFIG.replace(
        model=SIZES, schedule={"batch": 2, "steps": 2}, run={"folder": tmp_path / "run"}
    )
    config = recipe(name).experiment.shortened(config, 1)
    run = runs.train(config, data.shapes(6), data.shapes(2))
    assert run.record()["trained_steps"] == 2 and run.record()["images"] == 2
    assert run.config.data.source == "shapes-train"


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_options_of_the_command_on_photographs(recipe, narrow, photographs, tmp_path, monkeypatch):
    """Four images of each split, one of them without a box, and a bad box in one of them."""
    folder = shutil.copytree(photographs("coco_mini"), tmp_path / "coco")
    for file in folder.glob("instances_*.json"):
        content = json.loads(file.read_text())
        content["images"] = content["images"][:4]
        ids = [image["id"] for image in content["images"]]
        content["annotations"] = [r for r in content["annotations"] if r["image_id"] in ids]
        content["annotations"][0]["bbox"] = [1, 2, -3, 4]
        last = ids[-1]
        content["annotations"] = [r for r in content["annotations"] if r["image_id"] != last]
        file.write_text(json.dumps(content))
    module = recipe("libra_faster_rcnn_r50_1x")
    arguments = f"{folder} --to {tmp_path / 'run'} --batch 1 --epochs 1".split()
    more = ["--backbone-weights", "none", "--precision", "mixed_bfloat16"]
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments, *more])
    config = module.CONFIG.replace(model={"short_side": 128, "long_side": 128})
    with pytest.raises(ValueError, match=r"degenerate box: bbox \[1, 2, -3, 4\]"):
        module.experiment.main(config, "")
    sys.argv.append("--skip-bad")
    assert module.experiment.main(config, "") == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["settings"]["precision"] == "mixed_bfloat16"
    assert record["steps_per_epoch"] == 3  # the image without a box is left out


def test_weights_of_a_resnext_come_from_a_file(recipe, tmp_path, monkeypatch):
    import keras

    from libra_keras.models.constructors.parts import resnet
    from libra_keras.runs.building import build_model

    sizes = {"depth": 50, "groups": 2, "base_width": 2, "width": 8}
    monkeypatch.setitem(NETWORKS, "resnext101_64x4d", sizes)
    config = runs.resolve(recipe("libra_faster_rcnn_x101_64x4d_1x").CONFIG)
    with pytest.raises(ValueError, match="Keras has no ImageNet weights for a ResNeXt"):
        build_model(config, data.shapes(1))
    saved, images = resnet("resnext101_64x4d"), keras.Input((None, None, 3))
    keras.Model(images, saved(images)).save_weights(tmp_path / "a.weights.h5")
    own = dataclasses.replace(config.model, backbone_weights=str(tmp_path / "a.weights.h5"))
    model = build_model(dataclasses.replace(config, model=own), data.shapes(1))
    assert (model.backbone.batch_norm, model.backbone.frozen_stages) == ("frozen", 1)
    for ours, theirs in zip(saved.weights, model.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
