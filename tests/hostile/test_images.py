"""Images that are damaged or lie: pixels, or one error that names the file, within bounds."""

import io
import json
import os
import resource
import struct
import time

import numpy as np
import pytest
from hostile_files import encoded, jpeg_with_size, png_with_size, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import FAST, cases, damaged_bytes
from PIL import Image

from libra_keras import data
from libra_keras.data import read_image
from libra_keras.data.batches import EvaluationSource, TrainingSource

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's own, of what it thinks is damaged

MOST = 2**18  # pixels that Pillow allows here, so that a lie costs no second
SCENE = scene(24, 32)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 48\n%%EndComments\nshowpage\n%%EOF\n"


def gif():
    frames = [scene(24, 32, seed).convert("P") for seed in range(2)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=3)


SAMPLES = {
    "JPEG": encoded(SCENE, "JPEG"),
    "progressive JPEG": encoded(SCENE, "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0"),
    "PNG": encoded(SCENE, "PNG"),
    "palette PNG": encoded(SCENE.convert("P"), "PNG", transparency=3),
    "16-bit PNG": encoded(np.arange(768, dtype="uint16").reshape(24, 32) * 85, "PNG"),
    "GIF": gif(),
    "BMP": encoded(SCENE, "BMP"),
    "TIFF": encoded(SCENE, "TIFF"),
    "LZW TIFF": encoded(SCENE, "TIFF", compression="tiff_lzw"),
    "float TIFF": encoded(np.linspace(0, 255, 768).reshape(24, 32).astype("float32"), "TIFF"),
    "WebP": encoded(SCENE, "WEBP"),
    "lossless WebP": encoded(SCENE, "WEBP", lossless=True),
    "EPS": EPS,
}
SIDES = st.sampled_from([0, 1, 7, 24, 32, 33, 500, 2**15, 2**16 - 1])
LARGE_SIDES = st.one_of(SIDES, st.sampled_from([2**16, 2**31 - 1, 2**31, 2**32 - 1]))


def bmp_with_size(height, width):
    return SAMPLES["BMP"][:18] + struct.pack("<II", width, height) + SAMPLES["BMP"][26:]


def gif_with_size(height, width):
    return SAMPLES["GIF"][:6] + struct.pack("<HH", width, height) + SAMPLES["GIF"][10:]


FILES = st.one_of(
    st.sampled_from(sorted(SAMPLES)).flatmap(lambda name: damaged_bytes(SAMPLES[name])),
    st.builds(png_with_size, LARGE_SIDES, LARGE_SIDES),
    st.builds(jpeg_with_size, SIDES, SIDES),
    st.builds(bmp_with_size, LARGE_SIDES, LARGE_SIDES),
    st.builds(gif_with_size, SIDES, SIDES),
)


@pytest.fixture
def few_pixels(monkeypatch):
    Image.init()  # all plug-ins are imported by now
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST // 2)


def memory():
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(source):
    """What is read of a file, or the error."""
    try:
        return read_image(source)
    except OSError as error:
        return error


def check_images(content, file, guarded):
    """Reads a file with a content, and the content alone, within bounds."""
    file.write_bytes(content)
    before, start = memory(), time.process_time()
    guarded.forget()
    found, alone = read(file), read(content)
    guarded()
    assert memory() - before < 2**27 and time.process_time() - start < 1
    if isinstance(found, OSError):
        assert str(file) in str(found) and "\n" not in str(found)
        assert isinstance(alone, OSError) and "the image cannot be read: " in str(alone)
        return
    assert found.dtype == np.uint8 and found.shape[2] == 3 and 0 < found.size <= 3 * MOST
    np.testing.assert_array_equal(alone, found)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format != "EPS" and found.shape[1::-1] == image.size
        if image.mode in ("RGB", "L", "RGBA"):
            np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", SAMPLES)
def test_sound_images(few_pixels, name):
    if name == "EPS":
        with pytest.raises(OSError, match="EPS, IPTC, WMF are refused, for safety"):
            read_image(SAMPLES[name])
    else:
        assert read_image(SAMPLES[name]).shape == (24, 32, 3)


@settings(cases(FAST), deadline=None)  # the time of this process is measured
@given(content=FILES)
def test_damaged_images(few_pixels, tmp_path, guarded, content):
    check_images(content, tmp_path / "a.jpg", guarded)


def coco_of(folder, names):
    """A data set of images of 32 x 24 pixels, whose files are sound."""
    (folder / "val").mkdir()
    for i, name in enumerate(names):
        scene(24, 32, i).save(folder / "val" / name, "PNG")
    images = [
        {"id": i, "file_name": name, "width": 32, "height": 24} for i, name in enumerate(names, 1)
    ]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 9, 9]} for i in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    (folder / "instances_val.json").write_text(json.dumps(content))
    return folder


def become_fifo(path):
    path.unlink()
    os.mkfifo(path)


def become_folder(path):
    path.unlink()
    path.mkdir()


def become_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


CHANGES = {  # what becomes of a file, and what is said of it
    "fifo.jpg": (become_fifo, "is a FIFO, where a file is expected"),
    "folder.jpg": (become_folder, "is a folder, where a file is expected"),
    "device.jpg": (become_device, "is a device, where a file is expected"),
    "gone.jpg": (os.unlink, "No such file"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "it is not an image in a supported format"),
    "eps.jpg": (lambda path: path.write_bytes(EPS), "it is not an image in a supported format"),
    "bomb.png": (
        lambda path: path.write_bytes(png_with_size(2**15, 2**15)),
        "Image size (1073741824 pixels) exceeds limit of 262144 pixels; --max-pixels N allows more",
    ),
    "other.png": (lambda path: scene(40, 32).save(path), "40"),
    "half.png": (lambda path: path.write_bytes(path.read_bytes()[:-99]), "image file is truncated"),
}


def test_whatever_lies_in_the_place_of_an_image_is_one_finding(few_pixels, tmp_path):
    folder = coco_of(tmp_path, ["good.png", *CHANGES])
    for name, (change, _) in CHANGES.items():
        change(folder / "val" / name)
    read = data.coco(folder, "val", skip_bad=True)
    said = {finding.image: finding.message for finding in data.check_data(read)}
    for name, (_, words) in CHANGES.items():
        assert words in said.pop(str(folder / "val" / name)), name
    assert said == {} or list(said) == [read.name]
    names = [name for name in CHANGES if name != "half.png"]  # whose header is sound
    with pytest.raises(ValueError, match=f"{len(names)} thing"):
        data.coco(folder, "val")


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_changes_after_the_check_is_named(few_pixels, tmp_path, name):
    folder = coco_of(tmp_path, ["good.png", "good2.png", name])
    read, policy = data.coco(folder, "val"), data.InputPolicy(24, 32, pad_multiple=8)
    change, words = CHANGES[name]
    file = folder / "val" / name
    change(file)
    shown, learned = EvaluationSource(read, policy), TrainingSource(read, policy, 1)
    assert not shown.sample(2)[0].any() and shown.sample(0)[0].any()
    assert all(learned.sample(number)[0].any() for number in range(3))
    for source in (shown, learned):
        assert list(source.damaged) == [str(file)] and words in source.damaged[str(file)]
