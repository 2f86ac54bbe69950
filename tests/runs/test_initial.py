"""Training from a detector that is there: what is taken from it, what is said, what is refused."""

import hashlib
import json

import keras
import numpy as np
import pytest
from configs import resolved
from keras import ops

from libra_keras import models, runs
from libra_keras.backbones import ResNet
from libra_keras.cli import main
from libra_keras.data import InputPolicy, shapes
from libra_keras.runs import resuming, training
from libra_keras.runs.defaults import family
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.initial import build_initial, kind_of, recorded_model

TINY = "--batch 2 --steps 2 --epochs 1 --eval-every 0".split()
SHAPES = "shapes --train-split 4 --val-split 2".split()


def write_converted(folder, detector, **record):
    """A folder in the form that a conversion has."""
    folder.mkdir()
    (folder / "model.json").write_text(detector.to_json())
    detector.save_weights(folder / "last.weights.h5")
    (folder / "conversion.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A detector of the drawn shapes' classes, in the form that a training run has."""
    policy, names = InputPolicy(64, 96), list(shapes(1).class_names)
    detector = models.retinanet_small(
        6, ResNet(18, width=8), input_policy=policy, class_names=names
    )
    folder = write_converted(tmp_path_factory.mktemp("runs") / "shapes", detector)
    (folder / "conversion.json").unlink()
    config = {"settings": {"model": "retinanet_small"}}
    (folder / "config.json").write_text(json.dumps(config))
    detector.save(folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A detector of cats and three other classes, in the form of a converted checkpoint."""
    detector = models.libra_faster_rcnn_small(
        4,
        ResNet(18, width=8, frozen_stages=1),
        class_names=["cat", "dog", "cow", "pig"],
        input_policy=InputPolicy(64, 96),
    )
    detector.trained_steps.assign(7)
    detector.backbone.stem.moving_mean.assign([0.25] * 8)  # a checkpoint has seen images
    folder = tmp_path_factory.mktemp("converted") / "pets"
    return write_converted(folder, detector, model="libra_faster_rcnn_resnet50")


def started(init, *arguments):
    return resolved("--init", str(init), *arguments)


def arrays(layer):
    return [ops.convert_to_numpy(weight) for weight in layer.weights]


def test_the_schedule_is_that_of_the_recorded_model(converted, run):
    config = started(converted, "--batch", "8")
    assert config.model.name == "libra_faster_rcnn_resnet50"
    assert (config.optimizer.name, config.schedule.epochs) == ("sgd", 12)
    assert config.schedule.learning_rate == pytest.approx(0.01)  # 0.02 for 16 images
    # The sides of images are the detector's, not the default of 800 and 1333.
    assert (config.model.short_side, config.model.backbone_weights) == (None, None)
    for path in (run, run / "model.keras"):
        assert recorded_model(path) == "retinanet_small"
        assert started(path).optimizer == family("retinanet_small").optimizer


def test_the_schedule_of_an_unknown_model_is_that_of_its_kind(tmp_path):
    detector = models.retinanet_small(2, ResNet(18, width=8))
    detector.save(tmp_path / "mine.keras")
    for path in (tmp_path / "mine.keras", write_converted(tmp_path / "mine", detector)):
        config = started(path)
        assert kind_of(path) == "RetinaNet"
        assert (config.model.name, config.schedule.learning_rate) == (None, 0.00125)
    (tmp_path / "mine" / "model.json").write_text('{"class_name": "FasterRCNN"}')
    assert started(tmp_path / "mine").schedule.learning_rate == 0.0025


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model retinanet_small", "is a libra_faster_rcnn_resnet50; leave --model"),
        ("--backbone-weights none", "leave --backbone-weights away"),
        ("--backbone-style caffe", "leave --backbone-style away"),
    ],
)
def test_options_that_contradict_the_start_are_refused(converted, option, message):
    assert started(converted, "--model", "libra_faster_rcnn_resnet50").model.name
    with pytest.raises(ValueError, match=message):
        started(converted, *option.split())


def test_other_classes_start_anew_and_options_apply(converted, capsys):
    config = started(
        converted,
        *"--frozen-stages 2 --no-train-affine --sampling-ratio 0 --short-side 32 --seed 3".split(),
    )
    model, record = build_initial(config, shapes(1))
    out = capsys.readouterr().out
    assert out == (
        f"Started from {converted} (4 classes: cat, dog, cow, ...); re-initialised for 6 classes: "
        "class_logits, box_deltas\n"
    )
    assert model.class_names == list(shapes(1).class_names) and model.seed == 3
    backbone = model.backbone.get_config()
    assert (backbone["frozen_stages"], backbone["train_affine"]) == (2, False)
    assert model.box_head.roi_align.sampling_ratio == 0
    assert (model.input_policy.short_side, model.input_policy.long_side) == (32, 96)
    assert (config.model.short_side, config.model.long_side) == (32, None)  # as given
    before = runs.open(converted).model
    for part in ("backbone", "rpn"):
        pairs = zip(arrays(getattr(model, part)), arrays(getattr(before, part)), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    assert (int(before.trained_steps), int(model.trained_steps)) == (7, 0)
    weights = converted / "last.weights.h5"
    assert record == {
        "path": str(converted),
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "class_names": ["cat", "dog", "cow", "pig"],
        "reinitialised": ["class_logits", "box_deltas"],
    }


def test_options_of_parts_that_are_not_there_are_refused(tmp_path):
    folder = write_converted(tmp_path / "dense", models.retinanet_small(6, ResNet(18, width=8)))
    with pytest.raises(ValueError, match="second stage, which a RetinaNet has not"):
        build_initial(started(folder, "--sampling-ratio", "0"), shapes(1))


def test_no_detector(tmp_path, capsys):
    arguments = ["train", *SHAPES, *TINY, "--to", str(tmp_path / "run"), "--init"]
    (tmp_path / "a.pth").write_bytes(b"")
    other = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    unknown = '{"module": "nobody", "class_name": "Unknown", "config": {}}'
    write_converted(tmp_path / "unknown", other)
    (tmp_path / "unknown" / "model.json").write_text(unknown)
    wrong = {
        "a.pth": "libra-keras convert",
        "nothing": "there is no",
        "other.keras": "is no detector, but a Sequential",
        "unknown": "cannot be loaded: Could not",
    }
    for name, message in wrong.items():
        assert main([*arguments, str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_records_where_it_started(run, tmp_path, capsys, monkeypatch):
    """Of the same classes: all weights are those that it starts from."""
    found = []
    monkeypatch.setattr(training, "fit_and_report", lambda job: found.append(job.model))
    to = tmp_path / "run"
    assert main(["train", *SHAPES, "--init", str(run), *TINY, "--to", str(to)]) == 0
    names = "6 classes: filled circle, hollow circle, filled square, ..."
    assert f"Started from {run} ({names}); all weights kept\n" in capsys.readouterr().out
    config = json.loads((to / "config.json").read_text())
    assert config["started_from"]["path"] == str(run)
    assert config["started_from"]["reinitialised"] == []
    settings = config["settings"]
    assert (settings["model"], config["input_policy"]["long_side"]) == ("retinanet_small", 96)
    assert recorded_model(to) == "retinanet_small"  # a chain of runs keeps its family
    for ours, theirs in zip(arrays(found[0].head), arrays(runs.open(run).model.head), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    """The sides of images come from the detector, which is not known when the run is found."""
    monkeypatch.setattr(training, "fit_and_report", lambda job: None)
    arguments = [*SHAPES, *TINY, "--to", str(tmp_path / "run")]
    assert main(["train", "--init", str(run), *arguments]) == 0
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.folder.mkdir(exist_ok=True)
    folder.checkpoints.state_file.write_text('{"batches": 1}')
    with resuming.opened(started(run, *arguments)) as folder:
        assert folder.goes_on and folder.batches == 1


@pytest.mark.slow
def test_from_a_converted_detector_to_one_of_other_classes(converted, tmp_path, capsys):
    to = tmp_path / "run"
    arguments = ["train", *SHAPES, "--init", str(converted), *TINY, "--warmup-steps", "1"]
    assert main([*arguments, "--to", str(to)]) == 0
    assert "re-initialised for 6 classes" in capsys.readouterr().out
    assert runs.open(to).model.num_classes == 6
    assert json.loads((to / "metrics.json").read_text())["trained_steps"] == 2
