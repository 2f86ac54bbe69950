"""Which files of a folder are predicted, and what is told of the others."""

import json

import numpy as np
import pytest
from PIL import Image

from libra_keras.runs import predicting


class Blind:
    """A detector that finds nothing."""

    def detect(self, pixels, score_threshold):
        none = np.zeros(0)
        return {"boxes": np.zeros((0, 4)), "scores": none, "labels": none, "names": []}


def test_what_a_folder_has_beside_images_is_told(tmp_path, capsys):
    images = ["a.jpg", "b.JPE", "c.avif", "d.jfif"]
    for name in (*images, "e.heic", "f.HEIC", "notes.txt", "Makefile", ".hidden", "._a.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert [file.name for file in predicting.find_images([tmp_path])] == images
    told = f"not read: 4 file(s) in {tmp_path}, because of their suffixes: 2 .heic, 1 "
    line, end = capsys.readouterr().err.split("\n")
    assert line.startswith(told) and "1 .txt" in line and "1 without" in line and not end
    for i in range(10):
        (tmp_path / f"file.{i}").touch()
    predicting.find_images([tmp_path])
    line = capsys.readouterr().err
    assert "14 file(s)" in line and line.count(" 1 ") == 4 and line.endswith(", ...\n")
    predicting.find_images([tmp_path / "a.jpg", tmp_path / "notes.txt"])  # named, so it is tried
    assert capsys.readouterr().err == ""


def test_other_suffixes_of_jpeg_are_read(tmp_path):
    for suffix in ("jfif", "jpe"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"photo.{suffix}", "JPEG")
    files = predicting.find_images([tmp_path])
    assert predicting.predict(Blind(), files, tmp_path / "found", 0.5, False, {}) == 2
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert [row["picture"] for row in rows] == ["photo.png", "photo-2.png"]


@pytest.mark.filterwarnings("ignore:.*AVIF support not installed")
def test_a_pillow_without_avif_names_the_file(tmp_path, monkeypatch, capsys):
    avif = pytest.importorskip("PIL.AvifImagePlugin")
    if not avif.SUPPORTED:
        pytest.skip("this Pillow cannot write AVIF")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.avif")
    Image.new("RGB", (8, 6)).save(tmp_path / "b.png")
    for supported, read in ((True, 2), (False, 1)):
        monkeypatch.setattr(avif, "SUPPORTED", supported)
        files, to = predicting.find_images([tmp_path]), tmp_path / "found"
        assert predicting.predict(Blind(), files, to, 0.5, False, {}) == read
    error = capsys.readouterr().err
    assert error.startswith(f"not read: {tmp_path / 'a.avif'} cannot be read: it is not an image")
