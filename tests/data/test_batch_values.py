"""What the values of a batch show."""

import numpy as np
import pytest

from libra_keras.data.batch_values import doubtful

IMAGES = np.full((2, 64, 96, 3), 200.5, "float32")
LABELS = np.array([[0, 1], [2, -1]])
BOXES = np.array([[[10, 5, 30, 15], [0, 0, 1, 1]], [[50, 40, 96, 64], [9, 9, 0, 0]]], "float32")


def look(images=IMAGES, boxes=BOXES, labels=LABELS):
    x = {"images": images, "image_ids": np.array([7, 8])}
    return doubtful(x, {"boxes": boxes, "labels": labels})


@pytest.mark.parametrize(
    "images", [IMAGES, IMAGES.astype("uint8"), IMAGES * 0, np.ones((2, 64, 96, 3), "float32")]
)
def test_what_looks_right(images):
    assert look(images) is None and doubtful(images) is None
    assert look(images, labels=LABELS * 0 - 1) is None  # nothing but padding


def test_other_shapes_and_keys_are_for_others():
    for x, y in (
        ({}, None),
        ({"images": IMAGES}, {"boxes": BOXES}),
        (IMAGES, {"boxes": BOXES[..., :3], "labels": LABELS}),
        (None, {"boxes": [[1]], "labels": ["cat"]}),
    ):
        assert doubtful(x, y) is None


def test_images_from_0_to_1():
    expected = "Received: values from 0.786 to 0.786, which would be black: multiply them by 255"
    assert expected in look(IMAGES / 255) and expected in doubtful(IMAGES / 255)


def test_boxes_that_are_fractions():
    message = look(boxes=BOXES / 96)
    assert (
        "in 0..1, such as boxes[0, 0]=[0.104167, 0.0520833, 0.3125, 0.15625] of image 7" in message
    )
    assert message.endswith("fractions of the image?")
    assert doubtful(IMAGES, {"boxes": BOXES / 96, "classes": LABELS})  # as KerasCV calls them


def test_boxes_that_tell_sizes():
    sizes = BOXES.copy()
    sizes[..., 2:] -= sizes[..., :2]
    message = look(boxes=sizes)
    assert (
        "1 of 3 with x2 < x1 or y2 < y1, such as boxes[1, 0]=[50, 40, 46, 24] of image 8" in message
    )
    assert message.endswith("are they (x, y, width, height)?")
