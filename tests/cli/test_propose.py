"""Proposals by the command: written, trained on, evaluated; refused where they do not belong."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from libra_keras import data, models
from libra_keras.cli import evaluate, main, propose
from libra_keras.models.constructors.parts import small_backbone
from libra_keras.runs import measuring, predicting

TINY = "--batch 2 --steps 2 --epochs 1 --short-side 64 --long-side 64".split()
SHAPES = "shapes --train-split 4 --val-split 2".split()


def proposals_of(scenes):
    return [
        {"image_id": e.image_id, "boxes": e.boxes, "scores": np.ones(len(e.boxes))}
        for e in scenes.examples
    ]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["propose", "--help"])
    assert "libra-keras propose runs/rpn" in capsys.readouterr().out.split("examples:")[1]


@pytest.fixture
def first_stage(tmp_path):
    """A saved network that was not trained, for images of 64 pixels."""
    policy = data.InputPolicy(64, 64)
    path = tmp_path / "rpn.keras"
    models.rpn_small(small_backbone(), input_policy=policy).save(path)
    return path


def test_propose_refuses_a_wrong_name_before_the_work(first_stage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(propose, "load_run", None)
    arguments = ["propose", str(first_stage), "shapes", "--split", "1", "--to", "boxes.txt"]
    assert main(arguments) == 1
    assert "must end in .npz or .json" in capsys.readouterr().err


def test_what_a_detector_cannot_do_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    policy = data.InputPolicy(64, 64)
    network = models.rpn_small(small_backbone(), input_policy=policy)
    dense = models.retinanet_small(6, input_policy=policy)
    monkeypatch.setattr(measuring, "evaluation_batches", lambda *_: iter(()))
    with pytest.raises(ValueError, match="proposes on whole images; omit --tile"):
        predicting.predict(network, [], tmp_path, 0.3, True, {"tile": 64})
    for model, option, message in (
        (network, "--voc", "--voc requires a detector with classes"),
        (dense, "--proposals", "Only a detector with a first stage.*Received: RetinaNet"),
    ):
        run = SimpleNamespace(model=model, origin=None)
        monkeypatch.setattr(evaluate, "load_run", lambda _, run=run: run)
        monkeypatch.setattr(model, "predict_on_batch", None)
        assert main(["evaluate", "run", "shapes", "--split", "1", option]) == 1
        assert re.search(message, capsys.readouterr().err)


def test_a_run_without_proposals_does_not_start(tmp_path, capsys):
    to = tmp_path / "run"
    arguments = ["train", *SHAPES, *TINY, "--model", "fast_rcnn_small", "--to", str(to)]
    assert main(arguments) == 1
    assert "it requires --proposals-file FILE" in capsys.readouterr().err and not to.exists()


@pytest.mark.slow
def test_from_images_to_a_second_stage_and_its_numbers(tmp_path, capsys, eagerly):
    """The whole way: train a first stage, write its proposals, train and measure a second."""
    rpn, fast, file = (str(tmp_path / name) for name in ("rpn", "fast", "found.npz"))
    train = ["train", *"shapes --train-split 4 --val-split 4".split(), *TINY]
    assert main([*train, "--model", "libra_rpn_small", "--to", rpn]) == 0
    assert "AR@100 0." in capsys.readouterr().out
    record = json.loads((tmp_path / "rpn" / "metrics.json").read_text())
    assert record["post_nms"] == 200 and "best_val_AR@100" in record
    assert {"AR@100", "AR@1000", "AR_small@1000"} <= set(record["metrics"])
    written = {path.name for path in (tmp_path / "rpn").iterdir()}
    assert {"best.weights.h5", "detections.png", "model.keras", "log.csv"} <= written

    assert main(["evaluate", rpn, "shapes", "--split", "4", "--weights", "best"]) == 0
    assert f"AR@100 {record['metrics']['AR@100']:.3f}" in capsys.readouterr().out
    propose = ["propose", rpn, "shapes", "--split", "4", "--num", "30", "--to", file]
    assert main(propose) == 0
    out = capsys.readouterr().out
    assert "4 images" in out and all(f"AR@{count} " in out for count in (100, 300, 1000))
    found = data.read_proposals(file)
    assert {i["image_id"] for i in found} == {e.image_id for e in data.shapes(4).examples}
    assert all(0 < len(image["boxes"]) <= 30 for image in found)
    # Boxes are in the pixels of the file, 320, not of the resized image.
    assert max(image["boxes"].max() for image in found) > 100

    assert main([*propose, "--part", "val"]) == 1
    assert "--part requires --val-fraction" in capsys.readouterr().err
    assert main([*propose, "--part", "val", "--val-fraction", "0.5"]) == 0  # in its own place
    part = data.load("shapes", "4", "val", val_fraction=0.5)
    assert {i["image_id"] for i in data.read_proposals(file)} == {
        example.image_id for example in part.examples
    }
    assert main(propose) == 0

    held_out = str(tmp_path / "held_out.npz")
    data.write_proposals(held_out, proposals_of(data.shapes("val", 4)))
    given = ["--proposals-file", file, "--val-proposals-file", held_out]
    assert main([*train, "--model", "libra_fast_rcnn_small", *given, "--to", fast]) == 0
    record = json.loads((tmp_path / "fast" / "metrics.json").read_text())
    assert record["score_threshold"] == 0.05
    capsys.readouterr()
    arguments = ["evaluate", fast, "shapes", "--proposals-file", held_out, "--split"]
    assert main([*arguments, "4"]) == 0
    assert f"AP {record['metrics']['AP']:.3f}" in capsys.readouterr().out
    assert main([*arguments, "val"]) == 1  # of other images
    assert "held_out.npz does not belong to" in capsys.readouterr().err
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"")
    assert main(["predict", fast, str(photo), "--to", str(tmp_path / "boxes")]) == 1
    assert "proposes no boxes itself" in capsys.readouterr().err
