"""From what a user has to boxes in the user's pixels, with a stand-in for the model."""

import numpy as np
import pytest
from PIL import Image

from libra_keras.data import InputPolicy
from libra_keras.models.detect import detect


class Whole:
    """Finds one object as large as the image."""

    input_policy = InputPolicy(32, 64)
    class_names = ("whole",)

    def predict_on_batch(self, batch):
        sizes = batch["image_sizes"]
        boxes = np.pad(sizes[:, None, ::-1], ((0, 0), (0, 0), (2, 0))).astype("float32")
        ones = np.ones((len(sizes), 1), "float32")
        return {
            "boxes": boxes,
            "scores": ones,
            "labels": np.zeros((len(sizes), 1), "int32"),
            "num_detections": np.ones(len(sizes), "int32"),
        }


@pytest.fixture
def photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (50, 20)).save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


def test_boxes_are_in_the_stored_or_in_the_turned_image(photograph):
    assert detect(Whole(), photograph)["boxes"].tolist() == [[0, 0, 50, 20]]
    turned = detect(Whole(), [photograph, np.zeros((20, 50, 3))], batch_size=2, exif_rotation=True)
    assert [found["boxes"].tolist() for found in turned] == [[[0, 0, 20, 50]], [[0, 0, 50, 20]]]


def test_an_image_that_cannot_be_read_is_named(photograph, tmp_path):
    photograph.write_bytes(photograph.read_bytes()[:300])
    sound = np.zeros((8, 8, 3), "uint8")
    cases = [
        (photograph, r"photo\.jpg cannot be read: "),
        ([sound, str(photograph)], r"images\[1\]: .*photo\.jpg cannot be read: "),
        (tmp_path / "no.jpg", r"No such file .*no\.jpg"),
        ([sound, sound, b"abc"], r"images\[2\]: the image cannot be read: it is not an image"),
        ([np.full((8, 8), -1.0)], r"images\[0\]: An image array .* from -1"),
        (None, r"An image array must be .* Received: shape \(\)"),
    ]
    for images, message in cases:
        with pytest.raises(ValueError, match=message):
            detect(Whole(), images)
