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
def program():
    """The program; it needs a runtime for a file alone."""
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


def test_images_are_padded_to_a_shape_that_they_fit(program):
    policy = InputPolicy(64, 96).get_config()
    small, own = program.prepare(scene(), policy, (96, 128)), program.prepare(scene(), policy)
    assert small[0].shape == (96, 128, 3) and small[1] == own[1]
    height, width = own[0].shape[:2]
    np.testing.assert_array_equal(small[0][:height, :width], own[0])
    assert not small[0][height:].any() and not small[0][:, width:].any()
    words = "64x85 .* more than the 96x64 of this export; for such images, export"
    with pytest.raises(ValueError, match=words):
        program.prepare(scene(), policy, (96, 64))


@pytest.mark.parametrize("version", ["1.19.2", "0.30", "1.20.0", "1.20.0rc1", "2.0"])
def test_a_runtime_that_is_too_old_is_named(program, version):
    runtime = types.SimpleNamespace(__name__="onnxruntime", __version__=version)
    program.check_version(runtime, {})  # of a file from before
    if version < "1.20":
        words = f"requires onnxruntime 1.20 or newer, but {version} is"
        with pytest.raises(ImportError, match=words):
            program.check_version(runtime, {"needs": {"onnxruntime": "1.20"}})
    else:
        program.check_version(runtime, {"needs": {"onnxruntime": "1.20"}})


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
