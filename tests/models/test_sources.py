"""What `detect` takes for images: folders, patterns, addresses, batches, iterators."""

import itertools

import numpy as np
import pytest
from file_server import file_server
from models.test_tiles import Bright
from PIL import Image

from libra_keras.files import downloads
from libra_keras.models.detect import detect


@pytest.fixture
def photos(tmp_path):
    """A folder with two images, of one and of two objects, and a note."""
    for name, levels in (("b.png", [200]), ("a.png", [150, 250])):
        pixels = np.zeros((64, 64, 3), "uint8")
        for place, level in enumerate(levels):
            pixels[5:20, 20 * place + 5 : 20 * place + 15] = level
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "note.txt").write_text("no image")
    return tmp_path


def test_a_folder_and_a_pattern_say_which_file_each_result_is_of(photos):
    for source in (photos, str(photos / "*.png"), str(photos / "**" / "[ab].png")):
        found = detect(Bright(), source)
        assert [own["file"] for own in found] == [str(photos / "a.png"), str(photos / "b.png")]
        assert [len(own["boxes"]) for own in found] == [2, 1]
    odd = (photos / "a.png").rename(photos / "a[1].png")
    assert len(detect(Bright(), odd)["boxes"]) == 2  # a name, though it looks like a pattern


def test_an_address_is_read(photos):
    assert len(detect(Bright(), (photos / "a.png").as_uri())["boxes"]) == 2
    with file_server() as server:
        server.files["b.png"] = (photos / "b.png").read_bytes()
        both = [f"{server.address}/b.png", photos / "a.png"]
        assert [len(own["boxes"]) for own in detect(Bright(), both)] == [1, 2]


def test_an_address_that_gives_no_image_is_named(photos, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    with file_server() as server:
        server.files |= {"note.png": b"no image", "long.png": b"x" * 100}
        for name, words in (("no.png", "answers 404"), ("note.png", "it is not an image")):
            address = f"{server.address}/{name}"
            with pytest.raises(ValueError, match=rf"images\[0\]: .*{address}.*{words}"):
                detect(Bright(), [address])
        with pytest.raises(OSError, match="long.png returns more than"):
            downloads.read(f"{server.address}/long.png", most=99)
        server.cut = 9
        with pytest.raises(
            OSError, match="long.png cannot be read, after 3 attempts: .* after 50 of 100"
        ):
            downloads.read(f"{server.address}/long.png")
    with pytest.raises(ValueError, match="must name a file on this machine"):
        detect(Bright(), "file://elsewhere/photo.jpg")


def test_where_there_are_no_images(tmp_path):
    with pytest.raises(ValueError, match="there is no image in the folder"):
        detect(Bright(), tmp_path)
    with pytest.raises(ValueError, match=r"no file matches .*\*\.jpg"):
        detect(Bright(), tmp_path / "*.jpg")


def test_an_iterator_is_read_as_results_are_asked_for(photos):
    given = itertools.count()
    image = np.asarray(Image.open(photos / "a.png"))
    found = detect(Bright(), (image for _ in given), batch_size=2)
    assert [len(next(found)["boxes"]) for _ in range(3)] == [2, 2, 2]
    assert next(given) == 4  # two batches of two have been read
    with pytest.raises(ValueError, match=r"images\[1\]: the image cannot be read"):
        list(detect(Bright(), iter([image, b"abc"])))
    assert len(detect(Bright(), np.stack([image] * 3))) == 3
