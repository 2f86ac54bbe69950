"""`libra-keras export`: options that would have no effect, and a disk that is full."""

import pytest
from voc_folder import write_voc

from libra_keras.cli import main
from libra_keras.export import onnx, saved_model

FULL = "write failed: errno = 28, 'No space left on device'"
INT8 = ["--precision", "int8", "--calibrate", "shapes"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--overwrite"], "--overwrite requires --version N for a saved_model"),
        (["--format", "onnx", "--version", "2"], "--version applies only to a saved_model"),
        (["--format", "onnx", "--max-pixels", "9"], "--max-pixels applies only to a saved_model"),
        (["--format", "openvino", "--max-pixels", "9"], "Received: --format openvino"),
        (["--format", "litert", "--max-pixels", "9"], "Received: --format litert"),
        (["--format", "litert", "--shape", "64x96"], "--shape applies only to onnx and openvino"),
        (["--precision", "int8", "--format", "onnx"], "--precision int8 requires --calibrate DATA"),
        (["--calibrate", "shapes"], "--calibrate requires --precision int8"),
        (["--format", "onnx", "--split", "val"], "--split requires --calibrate"),
        (["--format", "onnx", "--classes", "cat"], "--classes requires --calibrate"),
        (["--format", "onnx", "--data-format", "voc"], "--data-format requires --calibrate"),
        ([*INT8], "The precision of saved_model is float32 or bfloat16; int8 is for onnx and"),
        ([*INT8, "--format", "litert"], "The precision of litert is float32; int8 is for onnx and"),
        (["--format", "onnx", "--precision", "bfloat16"], "bfloat16 is for saved_model"),
    ],
)
def test_options_without_an_effect_are_refused(tmp_path, capsys, given, message):
    assert main(["export", "missing", "--to", str(tmp_path / "new"), *given]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_overwriting_replaces_the_files_of_other_formats(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "MODULES", ())
    monkeypatch.setattr(onnx, "write", lambda file, model, specs: file.write_text("graph"))
    command = ["export", str(run_folder), "--to", str(tmp_path / "files"), "--format", "onnx"]
    assert main(command) == 0
    assert main(command) == 1
    assert main([*command, "--overwrite"]) == 0


def test_a_full_disk_names_the_folder(run_folder, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise RuntimeError(FULL)

    monkeypatch.setattr(saved_model, "_save", full)
    to = tmp_path / "new"
    assert main(["export", str(run_folder), "--to", str(to)]) == 1
    assert f"--to {to}: No space left on device\n" in capsys.readouterr().err
    assert not to.exists()
    monkeypatch.setattr(saved_model, "_save", lambda *_: 1 / 0)  # all else is as it was
    with pytest.raises(ZeroDivisionError):
        main(["export", str(run_folder), "--to", str(to)])


def test_images_that_calibrate_are_read_as_the_options_say(run_folder, tmp_path, monkeypatch):
    taken = []

    def write(model, path, calibration, verbose, **_):
        taken.extend([calibration, verbose])
        (tmp_path / "detector.json").write_text(
            '{"int8": {"images": 1, "data": "", "AP": 0, \
"float_layers": []}}'
        )
        return tmp_path / "detector.onnx"

    monkeypatch.setattr(onnx, "check_export", lambda *_, **__: None)
    monkeypatch.setattr(onnx, "export_onnx", write)
    folder = write_voc(tmp_path / "voc", train=[[]], val=[[(5, 7, 40, 30)]])
    elsewhere = (folder / "JPEGImages").rename(tmp_path / "elsewhere")
    command = ["export", str(run_folder), "--to", str(tmp_path / "new"), "--format", "onnx"]
    command += ["--precision", "int8", "--calibrate", str(folder), "--split", "val"]
    command += ["--data-format", "voc", "--corners", "pixels", "--images", str(elsewhere)]
    assert main(command) == 0
    calibration, verbose = taken
    # The outermost pixels, counted from 1, are columns 4 to 39 from 0: edges at 4 and 40.
    assert calibration.examples[0].boxes.tolist() == [[4, 6, 40, 30]]
    assert calibration.read_image(0).shape == (48, 64, 3)
    assert verbose == 2  # the output is no terminal


def test_data_of_two_formats_are_told_which_option_decides(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx, "check_export", lambda *_, **__: None)
    folder = write_voc(tmp_path / "both", train=[[(5, 7, 40, 30)]])
    (folder / "boxes.csv").write_text("image,x1,y1,x2,y2,class\n")
    command = ["export", "missing", "--to", str(tmp_path / "new"), "--format", "onnx"]
    assert main([*command, "--precision", "int8", "--calibrate", str(folder)]) == 1
    assert "Choose with --data-format csv or voc" in capsys.readouterr().err
