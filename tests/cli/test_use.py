"""The verbs that use what `libra-keras train` wrote."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from voc_folder import truncate, write_voc

from libra_keras import runs
from libra_keras.cli import main, parser, predict
from libra_keras.cli.options import load_run
from libra_keras.data import shapes, voc
from libra_keras.evaluation import METRICS
from libra_keras.runs import inputs, precision
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.predicting import picture_names

pytestmark = pytest.mark.usefixtures("eagerly")
GOOD = [[(5, 5, 40, 30)], [(10, 3, 30, 40)], [], [(1, 1, 64, 48)]]


@pytest.mark.slow
def test_evaluate_repeats_the_numbers_of_the_run(run_folder, damaged_voc, tmp_path, capsys):
    to = tmp_path / "numbers.json"
    arguments = ["evaluate", str(run_folder), str(damaged_voc), "--batch", "2"]
    assert main([*arguments, "--proposals", "--to", str(to)]) == 0
    out, err = capsys.readouterr()
    assert "1 damaged image(s)" in err and "image_5.jpg" in err
    assert all(f"{name} " in out for name in METRICS)
    written = json.loads(to.read_text())
    assert written["precision"] == "float32"
    numbers = written["metrics"]
    record = json.loads((run_folder / "metrics.json").read_text())["metrics"]
    assert numbers["AP"] == pytest.approx(record["AP"], abs=1e-6)
    assert 0 <= numbers["AR@100"] <= numbers["AR@1000"] <= 1
    assert "<dt>AR@1000</dt>" in (tmp_path / "numbers.html").read_text()


def test_data_of_the_run_are_read_as_it_read_them(tmp_path, capsys, monkeypatch):
    """VOC's corners, and the split: `val` is learned from here, and `test` was measured."""
    boxes = [(5, 5, 41, 31)], [(11, 3, 31, 41)]
    voc = write_voc(tmp_path / "voc", (96, 64), trainval=boxes, val=boxes[:1], test=boxes)
    (voc / "ImageSets/Main/val.txt").write_text("image_0")  # of `trainval`
    sizes = "--batch 2 --epochs 1 --steps 1 --short-side 64 --long-side 96 --eval-every 0".split()
    splits = "--train-split trainval --val-split test --corners pixels".split()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "voc", *sizes, *splits, "--to", "run"]) == 0
    measured = json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]
    capsys.readouterr()
    assert main(["evaluate", "run", str(voc), "--to", "numbers.json"]) == 0
    out, err = capsys.readouterr()
    assert "voc/test: 2 images" in out and not err
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["metrics"]["AP"] == pytest.approx(measured["AP"], abs=1e-6)
    assert numbers["max_detections"] == 50
    assert main(["evaluate", "run", "voc", "--split", "val", "--corners", "edges"]) == 0
    out, err = capsys.readouterr()
    assert "voc/val: 1 images" in out
    assert "Warning: 1 of the 1 images to measure on are also trained on" in err
    own, found = inputs.load_measured(RunFolder("run"), {"source": "voc"}, None)
    assert own.corners == "pixels"
    np.testing.assert_array_equal(found.examples[0].boxes, [[4, 4, 41, 31]])  # from 1, inclusive


def test_too_many_damaged_images_stop_the_evaluation_by_name(run_folder, tmp_path, capsys):
    voc = write_voc(tmp_path / "voc", size=(96, 64), suffix="jpg", val=GOOD[:2])
    names = truncate(voc, 0, 1)
    assert main(["evaluate", str(run_folder), str(voc)]) == 1
    err = capsys.readouterr().err
    assert "libra-keras evaluate: Too many images are damaged:" in err
    assert all(name in err for name in names)


def test_evaluate_refuses_other_classes(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "shapes", "--split", "1"]) == 1
    assert "It finds cat" in capsys.readouterr().err


def test_evaluate_refuses_what_is_no_run(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "shapes"]) == 1
    assert "model.json" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_that_were_kept_are_used_by_name(run_folder, tmp_path, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    (run / "last.weights.h5").rename(run / "kept-0.5.weights.h5")
    Image.fromarray(shapes(1).read_image(0)).save(tmp_path / "scene.png")
    command = ["predict", str(run), str(tmp_path / "scene.png"), "--to", str(tmp_path / "found")]
    assert main([*command, "--weights", "kept-0.5"]) == 0
    assert (tmp_path / "found" / "scene.png").is_file()
    capsys.readouterr()
    for name in ("kept-0.75", "last", "0.5"):
        assert main([*command, "--weights", name]) == 1
        error = capsys.readouterr().err
        assert f"there is no {run / name}.weights.h5. --weights may be " in error
        assert "kept-0.5\n" in error


def test_predict_writes_pictures_and_numbers(run_folder, tmp_path, capsys):
    photo = tmp_path / "scene.png"
    Image.fromarray(shapes(1).read_image(0)).save(photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    to = tmp_path / "found"
    arguments = [str(photo), str(broken), "--to", str(to), "--score", "0", "--overlap", "0.5"]
    assert main(["predict", str(run_folder / "model.keras"), *arguments]) == 1
    assert "--overlap requires --tile" in capsys.readouterr().err
    arguments += ["--tile", "256"]
    assert main(["predict", str(run_folder / "model.keras"), *arguments]) == 1
    assert "broken.png cannot be read" in capsys.readouterr().err
    rows = json.loads((to / "detections.json").read_text())
    assert [row["picture"] for row in rows] == ["scene.png"]
    assert Image.open(to / "scene.png").size == (320, 320)
    for found in rows[0]["detections"]:
        assert 0 <= found["box"][0] < found["box"][2] <= 320 + 1e-3
        assert found["name"] == "cat"


@pytest.mark.parametrize("given", [None, "float32", "auto"])
def test_what_a_cpu_with_amx_gains_is_said_unless_a_precision_is_given(
    run_folder, given, monkeypatch, capsys
):
    machine = precision.Machine("tensorflow", "CPU", accelerates=False, cpu="AMX")
    monkeypatch.setattr(precision, "this_machine", lambda: machine)
    monkeypatch.setattr(precision, "LARGE", 0)
    words = ["predict", str(run_folder), "photo.jpg", "--to", "found"]
    words += ["--precision", given] if given else []
    model = load_run(parser().parse_args(words)).model
    said = capsys.readouterr().err
    assert said.count("--precision mixed_bfloat16") == (given is None) and said.count("\n") <= 1
    half = given == "auto"
    policies = {layer.dtype_policy.name for layer in [model, *model._flatten_layers()]}
    assert policies == {"mixed_bfloat16" if half else "float32"}
    assert {weight.dtype for weight in model.backbone.weights} == {"float32"}
    kept = load_run(parser().parse_args(words[:5])).model.get_weights()
    assert all(map(np.array_equal, model.get_weights(), kept))


def test_a_precision_that_does_not_exist(run_folder):
    with pytest.raises(ValueError, match="`precision` must be .*auto. Received: 'bfloat16'"):
        runs.open(run_folder, precision="bfloat16")


@pytest.mark.slow
def test_drawn_pictures_are_no_photographs(run_folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(shapes(1).read_image(0)).save(photos / "scene.jpg")
    command = ["predict", str(run_folder)]
    for _ in range(2):
        assert main([*command, str(photos), "--to", str(photos)]) == 0
    rows = json.loads((photos / "detections.json").read_text())
    assert [row["picture"] for row in rows] == ["scene.png"]
    assert "1 picture(s)" in capsys.readouterr().err
    (tmp_path / "empty.jpg").touch()  # what cannot be read takes nothing from what was found
    assert main([*command, str(tmp_path / "empty.jpg"), "--to", str(photos)]) == 1
    assert json.loads((photos / "detections.json").read_text()) == rows


def test_predict_does_not_write_over_originals(tmp_path, capsys):
    photo = tmp_path / "a.png"
    photo.write_bytes(b"precious")
    assert main(["predict", "no_run", str(tmp_path), "--to", str(tmp_path / "x" / "..")]) == 1
    assert "would overwrite" in capsys.readouterr().err
    assert photo.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
def test_predict_replaces_its_own_files_alone(run_folder, tmp_path, capsys):
    images = write_voc(tmp_path / "voc", train=GOOD, suffix="jpg") / "JPEGImages"
    to = tmp_path / "found"
    for _ in range(2):
        assert main(["predict", str(run_folder), str(images), "--to", str(to)]) == 0
    Image.new("RGB", (2, 2)).save(tmp_path / "mask.png")
    others = {"detections.json": b'{"a": 1}', "image_0.png": (tmp_path / "mask.png").read_bytes()}
    for name, content in others.items():
        own = (to / name).read_bytes()
        (to / name).write_bytes(content)
        before = {file.name: file.read_bytes() for file in to.iterdir()}
        capsys.readouterr()
        assert main(["predict", str(run_folder), str(images), "--to", str(to)]) == 1
        assert f"found/{name} is no output of an earlier predict" in capsys.readouterr().err
        assert {file.name: file.read_bytes() for file in to.iterdir()} == before
        (to / name).write_bytes(own)


@pytest.mark.parametrize("to, words", [("a.png", "a.png is a file"), ("a.png/b", "is a file")])
def test_where_pictures_go_is_checked_first(tmp_path, monkeypatch, capsys, to, words):
    (tmp_path / "a.png").write_bytes(b"")
    command = ["predict", "no_run", str(tmp_path), "--to"]
    assert main([*command, str(tmp_path / to)]) == 1
    assert f"--to {tmp_path / to} cannot be written to: " in (error := capsys.readouterr().err)
    assert words in error
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    assert main([*command, str(tmp_path / "found")]) == 1
    assert "is read-only" in capsys.readouterr().err


def test_pictures_of_equal_names_are_numbered():
    files = [Path("a/cat.jpg"), Path("b/cat.png"), Path("dog.jpg")]
    assert picture_names(files) == ["cat.png", "cat-2.png", "dog.png"]


@pytest.mark.slow
def test_names_that_are_long_or_no_text(run_folder, tmp_path):
    """One is of 250 bytes, one of Latin-1; the terminal takes UTF-8 alone."""
    photo = write_voc(tmp_path / "voc", train=GOOD[:1]) / "JPEGImages" / "image_0.png"
    images, to = tmp_path / "images", tmp_path / "found"
    images.mkdir()
    for name in (b"a" * 246, b"caf\xe9", b"z"):
        (images / os.fsdecode(name + b".png")).write_bytes(photo.read_bytes())
    command = [sys.executable, "-m", "libra_keras", "predict", str(run_folder), str(images)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*command, "--to", str(to)], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    pictures = [row["picture"] for row in json.loads((to / "detections.json").read_text())]
    assert pictures == ["a" * 200 + ".png", os.fsdecode(b"caf\xe9.png"), "z.png"]
    assert all((to / name).is_file() for name in pictures)


@pytest.mark.parametrize("verb", ["evaluate", "propose"])
def test_where_numbers_go_is_checked_first(tmp_path, capsys, verb):
    (tmp_path / "a.jpg").write_text("")
    (tmp_path / "b.json").mkdir()
    more = ["--split", "4"]
    (tmp_path / "c.json").write_text('{"images": [], "annotations": []}')
    for to, words in (
        ("b.json", "must be a file"),
        ("a.jpg/b.json", "a.jpg is a file"),
        ("c.json", "and is not overwritten"),
    ):
        assert main([verb, "no_run", "shapes", *more, "--to", str(tmp_path / to)]) == 1
        assert words in capsys.readouterr().err


def test_damaged_weights_are_named(run_folder, tmp_path, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    weights = run / "last.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-5000])
    assert main(["evaluate", str(run), "shapes", "--split", "2"]) == 1
    error = capsys.readouterr().err
    assert f"{weights} cannot be read: " in error and "truncated" in error


def test_ctrl_c_keeps_what_was_found(tmp_path, monkeypatch):
    class Detector:
        seen = 0

        def detect(self, pixels, score_threshold):
            self.seen += 1
            if self.seen == 2:
                raise KeyboardInterrupt
            none = np.zeros((0,))
            return {"boxes": np.zeros((0, 4)), "scores": none, "labels": none, "names": []}

    images = write_voc(tmp_path / "voc", train=GOOD) / "JPEGImages"
    monkeypatch.setattr(predict, "load_run", lambda _: SimpleNamespace(model=Detector()))
    to = tmp_path / "found"
    assert main(["predict", "run", str(images), "--to", str(to)]) == 130
    rows = json.loads((to / "detections.json").read_text())
    assert [row["picture"] for row in rows] == ["image_0.png"]
    assert sorted(path.name for path in to.iterdir()) == ["detections.json", "image_0.png"]


def test_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "libra_keras", "check-data", "shapes", "--split", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "No findings." in done.stdout
    assert done.stderr == ""  # nor what TensorFlow says of itself


def test_a_home_that_the_shell_left_alone_is_expanded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path / "voc", size=(96, 64), suffix="jpg", train=GOOD[:2])
    assert main(["check-data", "~/voc", "--split", "train"]) == 0
    assert "voc/train: 2 images" in capsys.readouterr().out
    assert len(voc("~/voc", "train")) == 2
    assert main(["predict", "~/run", "~/voc/JPEGImages", "--to", "~/found"]) == 1
    assert str(tmp_path / "run") in capsys.readouterr().err and not (tmp_path / "~").exists()


@pytest.mark.slow
def test_photos_of_telephones_can_be_turned(run_folder, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (60, 40), "gray").save(photo, exif=exif)
    for options, size in (([], (60, 40)), (["--exif-rotation"], (40, 60))):
        to = tmp_path / f"found{len(options)}"
        assert main(["predict", str(run_folder), str(photo), "--to", str(to), *options]) == 0
        with Image.open(to / "photo.png") as picture:
            assert picture.size == size
