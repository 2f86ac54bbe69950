"""From a config to devices, a detector, what of it stays as it is, and an optimizer.

Also training from a detector that is there: what is taken from it, what is said, what is refused.
"""

import hashlib
import json

import keras
import numpy as np
import pytest
from configs import resolved
from keras import ops

from libra_keras import data, models, runs
from libra_keras.backbones import ResNet
from libra_keras.cli import main
from libra_keras.data import InputPolicy, shapes
from libra_keras.devices import Replicas
from libra_keras.models import libra_faster_rcnn_small, rpn_small
from libra_keras.models.saved import kind_of, recorded_model
from libra_keras.runs import resuming, training
from libra_keras.runs.building import (
    build,
    build_initial,
    build_model,
    build_optimizer,
    built_with,
    check_batch,
    check_frozen,
)
from libra_keras.runs.defaults import family
from libra_keras.runs.folder import RunFolder
from libra_keras.training import SGD, AdamW

RESNET = ("--model", "faster_rcnn_resnet50")
TINY = "--batch 2 --steps 2 --epochs 1 --eval-every 0".split()
SHAPES = "shapes --train-split 4 --val-split 2".split()


def test_devices_that_cannot_share_a_batch():
    with pytest.raises(ValueError, match="--batch 3 cannot be split evenly over 2 devices"):
        check_batch(3, Replicas(["GPU:0", "GPU:1"]))


def test_a_policy_is_that_of_layers_made_within():
    before = keras.config.dtype_policy().name
    with built_with("mixed_bfloat16"):
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    with built_with(None):
        assert keras.layers.Dense(1).dtype_policy.name == before


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
    with pytest.raises(ValueError, match="--frozen-stages require a model of the resnet family"):
        build_model(resolved("--frozen-stages", "1"), shapes(1))


def test_a_region_proposal_network_is_built_without_classes():
    model = build_model(resolved("--model", "libra_rpn_small"), data.shapes(1))
    assert isinstance(model, models.RegionProposalNetwork) and model.class_names == ["object"]


@pytest.mark.parametrize("name", ["retinanet_resnet50", "libra_rpn_resnet50"])
def test_roi_align_is_not_for_models_without_a_second_stage(name):
    config = resolved("--model", name, "--backbone-weights", "none", "--sampling-ratio", "0")
    with pytest.raises(ValueError, match=f"--sampling-ratio.* {name} lacks"):
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
    with pytest.raises(ValueError, match="--accumulate 9 exceeds all steps of the run"):
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
    with pytest.raises(
        ValueError, match="box_head .* random weights: its class_logits, box_deltas are"
    ):
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
        ("--model retinanet_small", "is a libra_faster_rcnn_resnet50; omit --model"),
        ("--backbone-weights none", "omit --backbone-weights"),
        ("--backbone-style caffe", "omit --backbone-style"),
    ],
)
def test_options_that_contradict_the_start_are_refused(converted, option, message):
    assert started(converted, "--model", "libra_faster_rcnn_resnet50").model.name
    with pytest.raises(ValueError, match=message):
        started(converted, *option.split())
    with pytest.raises(ValueError, match="there is no nowhere"):  # the first thing to say
        started("nowhere", *option.split())


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
    with pytest.raises(ValueError, match="second stage, which a RetinaNet lacks"):
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
        "other.keras": "is not a detector, but a Sequential",
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
def test_from_a_converted_detector_to_one_of_other_classes(converted, tmp_path, capsys, eagerly):
    to = tmp_path / "run"
    arguments = ["train", *SHAPES, "--init", str(converted), *TINY, "--warmup-steps", "1"]
    assert main([*arguments, "--to", str(to)]) == 0
    assert "re-initialised for 6 classes" in capsys.readouterr().out
    assert runs.open(to).model.num_classes == 6
    assert json.loads((to / "metrics.json").read_text())["trained_steps"] == 2
