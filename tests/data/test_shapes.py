"""The drawn data set, version 1."""

import hashlib

import numpy as np
import pytest

from libra_keras import data
from libra_keras.data.shapes import (
    CLASS_NAMES,
    CONTRAST,
    MARKS,
    MOST_MARKS,
    SIZE,
    Mark,
    Scene,
    _noise_table,
    describe,
    draw,
    iou,
    mask,
)

TEN_SCENES = "63a1025fe9ff3bc2240f71667944c1e9a52ab8ff8afcea9228b1330a7748ab7f"


@pytest.fixture(scope="module")
def held_out():
    return data.shapes("val")


def test_version_1_stays_what_it_is(held_out):
    digest = hashlib.sha256()
    for i in range(10, 20):  # scene 19 is an empty one
        example = held_out.examples[i]
        digest.update(example.boxes.astype("<f4").tobytes())
        digest.update(example.labels.astype("<i4").tobytes())
        digest.update(held_out.read_image(i).tobytes())
    assert digest.hexdigest() == TEN_SCENES


def test_statistics_of_the_held_out_scenes(held_out):
    counts = np.array([len(example.boxes) for example in held_out.examples])
    assert len(held_out) == 500 and (counts == 0).sum() == 25
    assert counts.max() == 12 and set(counts) == set(range(13))
    boxes = np.concatenate([example.boxes for example in held_out.examples])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides[:, 0] == sides[:, 1]).all() and sides.min() == 8 and sides.max() == 200
    # Log-uniform: quantiles of the logarithm lie on the diagonal.
    relative = np.quantile(np.log(sides[:, 0] / 8) / np.log(25), [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(relative, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.03)
    assert boxes.min() >= 0 and boxes.max() <= SIZE
    labels = np.concatenate([example.labels for example in held_out.examples])
    np.testing.assert_allclose(np.bincount(labels) / len(labels), 1 / 6, atol=0.02)


def test_overlaps(held_out):
    highest = [
        max([iou(a, b) for i, a in enumerate(rows) for b in rows[:i]], default=0.0)
        for rows in (example.boxes.tolist() for example in held_out.examples)
    ]
    assert max(highest) <= 0.6
    assert np.mean(np.array(highest) > 0.3) >= 0.3


def test_noise_and_clutter():
    described = [describe(seed) for seed in range(300)]
    noise = np.array([scene.noise for scene in described])
    assert noise.min() >= 0 and noise.max() <= 20 and abs(noise.mean() - 10) < 1
    marks = [len(scene.marks) for scene in described]
    assert set(marks) == set(range(MOST_MARKS + 1))
    assert {mark.kind for scene in described for mark in scene.marks} == set(MARKS)
    table = _noise_table()
    assert abs(table.mean()) < 0.01 and abs(table.std() - 1) < 0.01


def test_objects_stand_out():
    scenes = [describe(seed) for seed in range(200)]
    far = [
        np.linalg.norm(np.subtract(mark.color, scene.background)) >= CONTRAST
        for scene in scenes
        for mark in scene.objects
    ]
    assert np.mean(far) > 0.98  # under several others a compromise may be needed


def test_part_of_every_object_is_visible():
    for scene in (describe(seed) for seed in range(100)):
        owner = np.full((SIZE, SIZE), -1)
        for i, other in enumerate(scene.objects):
            x1, y1, x2, y2 = other.box
            owner[y1:y2, x1:x2][mask(other.kind, other.side)] = i
        visible = [
            (owner == i).sum() / mask(other.kind, other.side).sum()
            for i, other in enumerate(scene.objects)
        ]
        assert min(visible, default=1.0) > 0.1


@pytest.mark.parametrize("kind", [*range(6), *MARKS])
@pytest.mark.parametrize("side", [8, 9, 15, 64, 200])
def test_figures_touch_all_sides(kind, side):
    pixels = mask(kind, side)
    if isinstance(kind, int):  # boxes are tight
        assert pixels[0].any() and pixels[-1].any() and pixels[:, 0].any() and pixels[:, -1].any()
        hole = not pixels[side * 2 // 3, side // 2]
        assert hole == ("hollow" in CLASS_NAMES[kind])
    assert pixels.any() and not pixels.all() or kind == CLASS_NAMES.index("filled square")


def test_areas_of_figures():
    # Of a 200 px square: a circle pi/4, a triangle one half.
    areas = [mask(kind, 200).mean() for kind in (0, 2, 4)]
    np.testing.assert_allclose(areas, [np.pi / 4, 1, 0.5], atol=0.01)


def test_boxes_fit_the_drawn_pixels():
    figure = Mark(4, x=100, y=50, side=33, color=(255, 0, 0))
    image = draw(Scene((0, 90, 0), (0, 0), (), (figure,), 0.0, (0, 0)))
    rows, columns = np.where(image[..., 0] == 255)
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert found == figure.box == (100, 50, 133, 83)


def test_splits_and_seeds_are_disjoint(held_out):
    sets = [held_out, data.shapes(300), data.shapes("train", num=300, seed=1)]
    keys = [{tuple(e.boxes.ravel()) for e in some.examples if len(e.boxes)} for some in sets]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    longer = data.shapes(305)
    np.testing.assert_array_equal(longer.read_image(299), sets[1].read_image(299))


def test_held_out_scenes_have_no_other_seed(held_out):
    other = data.shapes("val", num=3, seed=9)
    np.testing.assert_array_equal(other.read_image(2), held_out.read_image(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "'test'"),
        ({"split": "val", "num": 0}, "`num` must be .* Received: 0"),
        ({"num": 0}, "`num` must be .* Received: 0"),
        ({"seed": -1}, "`seed` must be .* Received: -1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.shapes(**arguments)


def test_subset():
    some = data.shapes(6).subset([4, 1])
    assert [example.image_id for example in some.examples] == [5, 2] and len(some) == 2
    assert {a["image_id"] for a in some.annotations["annotations"]} == {2, 5}
    np.testing.assert_array_equal(some.read_image(0), data.shapes(6).read_image(4))
    assert len(data.shapes(6).subset(slice(0, 4, 2))) == 2
