"""Pictures of errors: which part of an image they show, and what is drawn where."""

import io

import numpy as np
from PIL import Image

from libra_keras.visualization import crops

NONE = np.zeros((0, 4))


def scene(true_box=None, found_box=None, truth=NONE, found=NONE):
    own = (None if box is None else np.array(box, "float64") for box in (true_box, found_box))
    return crops.Scene(truth, found, *own)


def test_the_part_holds_both_boxes_and_stays_in_the_image():
    # Together 60 wide: 60 * (1 + 2 * 0.6) = 132 on each side, around (130, 115).
    assert scene((100, 100, 140, 130), (110, 100, 160, 130)).window(400, 400) == (64, 49, 196, 181)
    assert scene((0, 0, 10, 10)).window(400, 400) == (0, 0, 48, 48)  # at least so many pixels
    assert scene((390, 0, 400, 10)).window(400, 400) == (352, 0, 400, 48)
    assert scene(None, (0, 0, 30, 20)).window(20, 30) == (0, 0, 30, 20)  # all of a small image


def test_annotations_are_at_the_left_and_detections_at_the_right():
    box = np.array([10.0, 10.0, 30.0, 30.0])
    image = np.full((48, 48, 3), 120, "uint8")
    picture = crops.pair(image, scene(box, None, box[None], NONE), side=192)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    assert pixels.shape == (192, 2 * 192 + crops.GAP, 3)
    left, right = pixels[:, :192], pixels[:, -190:]
    green = (left[..., 1] > left[..., 0] + 40).nonzero()
    assert abs(green[0].min() - 40) <= 2 and abs(green[0].max() - 119) <= 2  # 4 times 10 .. 30
    assert np.abs(right - 120).max() < 8  # nothing was detected


def test_boxes_without_a_size_and_beyond_the_image_are_drawn():
    odd = np.array([[5.0, 5.0, 5.0, 5.0], [-20.0, -20.0, 900.0, 900.0]])
    assert crops.pair(np.zeros((1, 3, 3), "uint8"), scene(odd[0], odd[1], odd, odd))
