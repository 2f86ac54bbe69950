"""The COCO recipes: what separates baseline and Libra, and that each of them trains."""

import argparse
import difflib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from libra_keras import data
from libra_keras.backbones import ResNet

FOLDER = Path(__file__).parents[2] / "recipes" / "coco"
RECIPES = sorted(file.stem for file in FOLDER.glob("*_[12]x.py"))
PAIRS = {
    "faster_rcnn_r50_1x": {
        "-": [
            "neck=[FeaturePyramid(256)],",
            "rpn=RPNHead(sampler=RandomSampler(256, positive_fraction=0.5)),",
            "sampler=RandomSampler(512, positive_fraction=0.25),",
        ],
        "+": [
            'neck=[FeaturePyramid(256), BalancedFeaturePyramid(2, refiner="non_local")],',
            "rpn=RPNHead(",
            "sampler=RandomSampler(256, positive_fraction=0.5, max_negatives_per_positive=5)",
            "),",
            'sampler=CombinedSampler.preset("mmdet", num=512, positive_fraction=0.25),',
            "box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5),",
        ],
    },
    "retinanet_r50_1x": {
        "-": [],
        "+": [
            'BalancedFeaturePyramid(1, refiner="non_local"),',
            "box_loss=BalancedL1Loss(alpha=0.5, gamma=1.5, beta=0.11),",
        ],
    },
}


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


def code_lines(name):
    """The lines of a recipe below its docstring and imports."""
    text = (FOLDER / f"{name}.py").read_text()
    return [line.strip() for line in text[text.index("SCHEDULE") :].splitlines()]


def test_all_seven_are_here():
    assert RECIPES == [
        "faster_rcnn_r50_1x",
        "libra_faster_rcnn_r101_1x",
        "libra_faster_rcnn_r101_2x",
        "libra_faster_rcnn_r50_1x",
        "libra_faster_rcnn_x101_64x4d_1x",
        "libra_retinanet_r50_1x",
        "retinanet_r50_1x",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_short_and_say_what_they_reproduce(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) < 80
    header = text.split('"""')[1]
    assert "Pang et al." in header and f"python recipes/coco/{name}.py" in header


@pytest.mark.parametrize("name", PAIRS)
def test_baseline_and_libra_differ_in_the_balances_alone(name):
    difference = list(difflib.ndiff(code_lines(name), code_lines(f"libra_{name}")))
    found = {sign: [d[2:] for d in difference if d[0] == sign] for sign in "-+"}
    assert found == PAIRS[name]


def test_depth_and_schedule_are_all_that_varies_among_the_libra_recipes():
    base = code_lines("libra_faster_rcnn_r50_1x")
    for name in RECIPES:
        if not name.startswith("libra_faster") or name == "libra_faster_rcnn_r50_1x":
            continue
        changed = [d[2:] for d in difflib.ndiff(base, code_lines(name)) if d[0] == "+"]
        assert len(changed) in (1, 2), (name, changed)
        allowed = ("return experiment.imagenet_resnet(101", "return experiment.resnext(101, 64, 4")
        assert all(line.startswith((*allowed, "SCHEDULE")) for line in changed)


def run(module, tmp_path, train_data, val_data, width=8):
    """Two steps with a narrow backbone at 128 px; returns what the run wrote."""
    options = argparse.Namespace(
        batch=2,
        steps=2,
        epochs=1,
        eval_every=1,
        seed=0,
        to=str(tmp_path / "run"),
        overwrite=False,
    )
    backbone = ResNet(18, width=width, batch_norm="frozen", frozen_stages=-1)
    model = module.build(
        train_data.num_classes,
        backbone,
        class_names=train_data.class_names,
    )
    model.input_policy = data.InputPolicy(short_side=128, long_side=128)
    status = module.experiment.train(model, module.SCHEDULE, train_data, val_data, options)
    assert status == 0
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_on_drawn_scenes(name, recipe, tmp_path):
    result = run(recipe(name), tmp_path, data.shapes(6), data.shapes(2))
    assert result["trained_steps"] == 2 and result["images"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["libra_faster_rcnn_r50_1x", "libra_retinanet_r50_1x"])
def test_two_steps_on_photographs_of_coco(name, recipe, photographs, tmp_path):
    folder = photographs("coco_mini")
    train_data, val_data = data.coco(folder, "train2017"), data.coco(folder, "val2017")
    result = run(recipe(name), tmp_path, train_data, val_data.subset(range(4)))
    assert result["trained_steps"] == 2 and result["metrics"]["AP"] is not None


@pytest.mark.slow
def test_options_of_the_command(recipe, photographs, tmp_path, monkeypatch):
    """Four images of each split, and a bad box in one of them."""
    folder = shutil.copytree(photographs("coco_mini"), tmp_path / "coco")
    for file in folder.glob("instances_*.json"):
        content = json.loads(file.read_text())
        content["images"] = content["images"][:4]
        ids = [image["id"] for image in content["images"]]
        content["annotations"] = [r for r in content["annotations"] if r["image_id"] in ids]
        content["annotations"][0]["bbox"] = [1, 2, -3, 4]
        file.write_text(json.dumps(content))
    module = recipe("libra_faster_rcnn_r50_1x")

    def trunk(weights):
        assert weights is None
        backbone = ResNet(18, width=8, batch_norm="frozen", frozen_stages=-1)
        assert backbone.compute_dtype == "bfloat16"
        return {"backbone": backbone}

    def build(*args, **kwargs):
        model = module.build(*args, **kwargs)
        model.input_policy = data.InputPolicy(short_side=128, long_side=128)
        return model

    def main(*more):
        arguments = f"{folder} --to {tmp_path / 'run'} --batch 2 --steps 2 --epochs 1".split()
        more = [*more, "--backbone-weights", "none", "--precision", "mixed_bfloat16"]
        monkeypatch.setattr(sys, "argv", ["recipe", *arguments, *more])
        return module.experiment.main(build, trunk, module.SCHEDULE, "")

    with pytest.raises(ValueError, match="degenerate box.*1, 2, -2, 6"):
        main()
    assert main("--skip-bad") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["precision"] == "mixed_bfloat16"


def test_weights_of_a_resnext_come_from_a_file(recipe, tmp_path):
    import keras

    module = recipe("libra_faster_rcnn_x101_64x4d_1x").experiment
    with pytest.raises(ValueError, match="Keras offers no ImageNet weights of a ResNeXt"):
        module.resnext(101, 64, 4, "imagenet")
    saved = module.resnext(50, 2, 2, None)["backbone"]
    images = keras.Input((None, None, 3))
    keras.Model(images, saved(images)).save_weights(tmp_path / "a.weights.h5")
    loaded = module.resnext(50, 2, 2, tmp_path / "a.weights.h5")["backbone"]
    for ours, theirs in zip(saved.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_converted_backbones_are_what_their_record_says(recipe, tmp_path, monkeypatch):
    import keras

    from libra_keras.models.constructors.parts import NETWORKS

    monkeypatch.setitem(NETWORKS, "resnet50", {"depth": 18, "width": 4})
    saved, images = ResNet(18, width=4), keras.Input((None, None, 3))
    keras.Model(images, saved(images)).save_weights(tmp_path / "a.weights.h5")
    record = {"network": "resnet50", "style": "pytorch", "normalization": "torch", "epsilon": 1e-5}
    (tmp_path / "a.json").write_text(json.dumps(record))
    module = recipe("libra_faster_rcnn_r50_1x").experiment
    trunk = module.imagenet_resnet(50, str(tmp_path / "a.weights.h5"))
    assert trunk["normalization"].channel_order == "rgb"
    assert (trunk["backbone"].style, trunk["backbone"].frozen_stages) == ("pytorch", 1)
    np.testing.assert_array_equal(trunk["backbone"].weights[0], saved.weights[0])
    with pytest.raises(ValueError, match="holds a resnet50, where a resnext50_2x2d is wanted"):
        module.resnext(50, 2, 2, str(tmp_path / "a.weights.h5"))
