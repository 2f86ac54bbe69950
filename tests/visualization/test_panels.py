"""Annotations and detections side by side."""

import numpy as np

from libra_keras import data
from libra_keras.visualization import panel, spread


def nothing(example):
    return {
        "image_id": example.image_id,
        "boxes": np.zeros((0, 4)),
        "labels": np.zeros(0, int),
        "scores": np.zeros(0),
    }


def test_images_are_spread_and_damaged_ones_left_out(monkeypatch):
    shapes = data.shapes(9)

    def read(self, i):
        if i == 4:
            raise SyntaxError("broken PNG file")  # by Pillow
        size = shapes.examples[i].height, shapes.examples[i].width
        return np.zeros((6, 8, 3) if i == 8 else (*size, 3), "uint8")

    monkeypatch.setattr(data.DetectionData, "read_image", read)
    assert [example.image_id for example, _ in spread(shapes, 5)] == [1, 3, 7]  # not 5, not 9
    assert [example.image_id for example, _ in spread(shapes.subset([0, 1]), 3)] == [1, 2]
    monkeypatch.setattr(data.DetectionData, "read_image", lambda self, i: read(self, 4))
    assert panel(shapes, []) is None


def test_annotations_are_at_the_left_and_detections_at_the_right():
    shapes = data.shapes(1)
    example = shapes.examples[0]
    empty = panel(shapes, [nothing(example)], side=80)
    assert empty.shape == (14 + 80, 80 + 4 + 80, 3)  # with a heading
    found = {
        "image_id": example.image_id,
        "boxes": np.array([[0.0, 0.0, example.width, example.height]] * 2),
        "labels": np.array([0, 1]),
        "scores": np.array([0.9, 0.1]),
    }
    drawn = panel(shapes, [found], shapes.class_names, side=80)
    np.testing.assert_array_equal(drawn[:, :80], empty[:, :80])
    assert drawn[-1, -1].tolist() == [255, 51, 51]  # the first class's colour; 0.1 is below 0.3
    low = panel(shapes, [{**found, "scores": found["scores"] / 4}], shapes.class_names, side=80)
    assert low[-1, -1].tolist() == [150, 150, 150]
    assert empty[14:, :80].tolist() != empty[14:, -80:].tolist()
