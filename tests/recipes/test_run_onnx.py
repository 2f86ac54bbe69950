"""The program that runs exported ONNX files: its pixels are those of training.

`tests/export/test_runtimes.py` has it detect.
"""

import io
import sys
import types

import numpy as np
import pytest
from hostile_files import encoded, png, scene
from PIL import Image
from serving import recipe

from libra_keras.data import InputPolicy, read_image


@pytest.fixture
def program(monkeypatch):
    """The program, without onnxruntime."""
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    return recipe("run_onnx.py")


def all_files(rng):
    wide = rng.integers(0, 65536, (20, 30)).astype("uint16")
    yield "16 bits of PNG", png(wide[..., None], 0)
    yield "16 bits of TIFF", encoded(wide, "TIFF")
    yield "the other byte order", encoded(Image.fromarray(wide.astype(">u2")), "TIFF")
    yield "32 bits", encoded(wide.astype("int32") * 2 - 1000, "TIFF")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield mode, encoded(scene().convert(mode), "PNG")
    yield "CMYK", encoded(scene().convert("CMYK"), "JPEG")


def test_pixels_are_those_of_training(program, rng):
    policy = InputPolicy(64, 96)
    for name, data in all_files(rng):
        image = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(program.rgb(image), read_image(data), err_msg=name)
        pixels, size = program.prepare(image, policy.get_config())
        wanted = policy.prepare(read_image(data))
        assert size == wanted[1]
        np.testing.assert_array_equal(pixels, wanted[0], err_msg=name)


def test_a_file_that_cannot_be_read_does_not_end_the_run(program, tmp_path, monkeypatch, capsys):
    def detect(image):
        return {"boxes": [[0, 0, *image.size]], "scores": [0.9], "names": ["cat"]}

    detector = types.SimpleNamespace(detect=detect)
    monkeypatch.setattr(program, "Detector", lambda folder: detector)
    (tmp_path / "text.jpg").write_text("no image")
    whole = encoded(scene(), "PNG")
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "good.png").write_bytes(whole)
    names = ["missing.jpg", "text.jpg", "half.png", "good.png"]
    files = [str(tmp_path / name) for name in names]
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", "folder", *files])
    assert program.main() == 1
    out, err = capsys.readouterr()
    assert out.split("\t") == [files[3], "cat", "0.90", "0.0", "0.0", "64.0", "48.0\n"]
    assert all(name in err for name in names[:3])
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", "folder", files[3]])
    assert program.main() == 0
