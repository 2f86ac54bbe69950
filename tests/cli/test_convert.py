"""`libra-keras convert`: names of classes, what is printed, and the verbs on what it writes."""

import json

import numpy as np
import pytest
from cli.test_use import GOOD
from convert.golden_checkpoints import checkpoint
from PIL import Image
from voc_folder import write_voc

from libra_keras import models, runs
from libra_keras.backbones import ResNet
from libra_keras.cli import main
from libra_keras.cli.convert import next_commands, read_names
from libra_keras.convert import Conversion, conversion


@pytest.fixture
def tiny(reference, monkeypatch):
    """Lets every file be the reference's small detector, which needs no PyTorch then."""
    weights = reference("libra_frcnn_r18b16_weights.npz")
    read = lambda path: checkpoint(weights, str(path))  # noqa: E731
    monkeypatch.setattr(conversion, "read_checkpoint", read)


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert "libra-keras convert libra_faster" in capsys.readouterr().out.split("examples:")[1]


def test_prints_what_it_found_and_what_to_do_next(tiny, tmp_path, capsys):
    to = tmp_path / "run"
    assert main(["convert", "tiny.pth", "--to", str(to)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny.pth: FasterRCNN of mmdetection 2.x or 3.x\n")
    assert "80 classes: person, bicycle, car" in out and "not needed: " in out
    for verb in (f"predict {to}", f"evaluate {to} DATA", f"train DATA --init {to}"):
        assert f"\n  libra-keras {verb}" in out
    assert main(["convert", "tiny.pth", "--to", str(to)]) == 1  # not twice
    assert "--overwrite" in capsys.readouterr().err
    with pytest.raises(ValueError, match="one set of weights"):
        runs.open(to, "best")


def test_wrong_names_leave_no_folder(tiny, tmp_path, capsys):
    to = tmp_path / "run"
    assert main(["convert", "tiny.pth", "--to", str(to), "--class-names", "cat,dog"]) == 1
    err = capsys.readouterr().err
    assert "one name for each of 80 classes. Received: 2 names" in err and "Traceback" not in err
    assert main(["convert", "tiny.pth", "--to", str(to), "--class-names", "missing.txt"]) == 1
    assert "missing.txt" in capsys.readouterr().err and not to.exists()


def test_no_checkpoint(tmp_path, capsys):
    (tmp_path / "a.pth").write_text("no checkpoint")
    to = tmp_path / "run"
    for name in ("a.pth", "missing.pth"):
        assert main(["convert", str(tmp_path / name), "--to", str(to)]) == 1
        err = capsys.readouterr().err
        assert err.startswith("libra-keras convert: ") and name in err and err.count("\n") == 1
    assert not to.exists()


def test_names_of_classes_from_text_and_files(tmp_path):
    assert read_names("cat") == ["cat"] and read_names("hot dog, cat") == ["hot dog", "cat"]
    file = tmp_path / "names.txt"
    file.write_text("\ufeffcat\nsalt, and pepper\n\n", "utf-8")  # as Windows' editor writes it
    assert read_names(str(file)) == ["cat", "salt, and pepper"]
    file = tmp_path / "names.json"
    for content in (
        ["cat", "dog"],
        {"categories": [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]},
    ):
        file.write_text("\ufeff" + json.dumps(content), "utf-8")
        assert read_names(str(file)) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "a list of names, or contain COCO's categories"),
        ("[1]", "a list of names"),
        ("[]", "at least one class"),
        ("no json", "Expecting value"),
    ],
)
def test_files_without_names(tmp_path, content, message):
    file = tmp_path / "names.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"names.json cannot be read: .*{message}|one class"):
        read_names(str(file))


def test_next_commands_are_those_of_the_kind():
    backbone = {"kind": "backbone", "network": "resnext101_64x4d"}
    [line] = next_commands(Conversion(None, backbone), "x.weights.h5")
    assert "--model libra_faster_rcnn_resnext101_64x4d --backbone-weights x.weights.h5" in line
    assert next_commands(Conversion(None, {**backbone, "network": None}), "x.weights.h5") == []
    narrow, record = ResNet(18, width=4), {"kind": "detector"}
    lines = next_commands(Conversion(models.rpn_small(narrow), record), "rpn")
    assert lines[0] == "  libra-keras propose rpn DATA --split train --to proposals.npz"
    lines = next_commands(Conversion(models.fast_rcnn_small(6, narrow), record), "fast")
    assert not any("predict" in line for line in lines)
    assert lines[0].endswith("evaluate fast DATA --proposals-file FILE")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though")
def test_all_verbs_on_a_converted_detector(tiny, photographs, tmp_path, capsys):
    run, data = str(tmp_path / "run"), str(photographs("coco_mini"))
    assert main(["convert", "tiny.pth", "--to", run]) == 0
    model = tmp_path / "run" / "model.json"  # on smaller images, for the sake of time
    text = model.read_text().replace('"long_side": 1333', '"long_side": 160')
    model.write_text(text.replace('"short_side": 800', '"short_side": 96'))
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((48, 64, 3), "uint8")).save(photo)
    assert main(["predict", run, str(photo), "--to", str(tmp_path / "found")]) == 0
    assert (tmp_path / "found" / "photo.png").exists()
    assert main(["evaluate", run, data, "--split", "val2017", "--batch", "2"]) == 0
    assert "AP of person" in capsys.readouterr().out
    # A folder in VOC's form knows cats only: one class of 80.
    voc = str(write_voc(tmp_path / "voc", val=GOOD))
    assert main(["evaluate", run, voc]) == 0
    assert "1 of the detector's 80 classes" in capsys.readouterr().out
    boxes = str(tmp_path / "boxes.npz")
    assert main(["propose", run, voc, "--split", "val", "--num", "20", "--to", boxes]) == 0
    assert main(["export", run, "--to", str(tmp_path / "exported")]) == 0
    assert (tmp_path / "exported" / "1" / "saved_model.pb").exists()
