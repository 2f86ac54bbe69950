"""Functions of users in the pipeline: what they get, and what is said of wrong results."""

import keras
import numpy as np
import pytest
from bright_scenes import BOX, bright, samples, scene

from libra_keras.data import Augmentation, dialects
from libra_keras.data.user_functions import applied


def test_functions_get_a_sample_and_their_own_numbers():
    drawn = {"first": [], "second": []}

    def first(sample, rng):
        assert sample["images"].shape == (64, 96, 3) and sample["images"].flags.writeable
        assert sample["boxes"].dtype == np.float32 and sample["labels"].tolist() == [0]
        drawn["first"].append(rng.random())
        sample["boxes"] += 1  # which changes no example
        return sample

    def second(sample, rng):
        drawn["second"].append(rng.random())
        boxes = np.concatenate([sample["boxes"], [[0, 0, 40, 40], [0, 0, 9, 9]]])
        return {"images": 255 - sample["images"], "boxes": boxes, "labels": np.array([0, 0, -1])}

    read = bright(4)
    both = samples(read, 8, flip=0.0, max_boxes=2, augment=Augmentation(functions=(first, second)))
    for image, *_, boxes, labels in both:
        assert image[0, 0].tolist() == [255] * 3 and labels.tolist() == [0, 0]
        assert boxes.tolist() == [[21, 11, 51, 31], [0, 0, 40, 40]]
    before = list(drawn["first"])
    one = samples(read, 8, flip=0.0, augment=Augmentation(functions=(first,)))
    assert drawn["first"] == 2 * before and len({*before, *drawn["second"]}) == 16
    assert one[0][4].tolist() == [[21, 11, 51, 31]] and BOX[0, 0] == 20
    crowded = samples(read, 2, augment=Augmentation(functions=(second,)))  # room for one box
    assert crowded[0][4][0, 3] - crowded[0][4][0, 1] == 40


def returning(**changes):
    def wrong(sample, rng):
        return {key: value for key, value in {**sample, **changes}.items() if value is not None}

    return wrong


def failing(sample, rng):
    raise KeyError("masks")


WRONG = [
    (lambda sample, rng: None, r"<lambda> returned for scene \d NoneType; expected a dict"),
    (returning(boxes=None), r"wrong returned for scene \d \['images', 'labels'\]; expected a dict"),
    (returning(boxes=BOX + 60), r"the box \[80.0, 70.0, 110.0, 90.0\]; expected .* x2 <= 96"),
    (returning(boxes=BOX * np.nan), "the box .nan, nan"),
    (returning(boxes=BOX[:, [2, 1, 0, 3]]), r"the box \[50.0, 10.0, 20.0"),
    (returning(boxes=BOX.astype(int)), r"boxes that are int64 of shape \(1, 4\); expected floats"),
    (returning(boxes=BOX[:0]), r"boxes that .* \(0, 4\); expected floats of shape \(1, 4\)"),
    (returning(labels=np.zeros(2, int)), r"boxes that .* \(1, 4\); expected .* \(2, 4\)"),
    (returning(labels=np.zeros(1)), "labels that are float64 .* expected integers"),
    (returning(labels=np.ones(1, int)), r"the label 1; expected 0..0"),
    (returning(images=scene() / 255), "images that are float64"),
    (returning(images=scene()[:9]), r"shape \(9, 96, 3\); expected uint8 of shape \(64, 96, 3\)"),
]


@pytest.mark.parametrize(("function", "said"), WRONG, ids=range(len(WRONG)))
def test_what_functions_return_wrong_is_named(function, said):
    with pytest.raises(ValueError, match=said):
        samples(bright(), 1, augment=Augmentation(functions=(function,)))


def test_a_function_that_fails_is_named():
    with pytest.raises(RuntimeError, match=r"failing failed on scene \d: KeyError: 'masks'"):
        samples(bright(), 1, augment=Augmentation(functions=(failing,)))


def frames(image):
    rows, columns = (np.flatnonzero(image[..., 0].max(axis) > 127) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("form", ["xyxy", "rel_xyxy"])
def test_layers_of_keras_are_functions(form):
    flip = keras.layers.RandomFlip("horizontal", seed=1, bounding_box_format=form)
    light = keras.layers.RandomBrightness(0.1, seed=1, bounding_box_format=form)
    augment = Augmentation(functions=(dialects.as_function([flip, light], form),))
    found = samples(bright(), 8, flip=0.0, augment=augment)
    for image, *_, boxes, labels in found:
        np.testing.assert_allclose(boxes[0], frames(image), atol=0.01)
        assert image.dtype == np.uint8 and labels.tolist() == [0]
    assert {round(float(sample[4][0, 0])) for sample in found} == {20, 96 - 50}
    empty = {"images": scene(), "boxes": BOX[:0], "labels": np.zeros(0, "int32")}
    assert applied(augment.functions[0], empty, None, "a.jpg", 1)["boxes"].shape == (0, 4)

    def broken(sample, training):
        raise RuntimeError("no boxes, please")

    with pytest.raises(RuntimeError, match=r"as_function\(function\) failed on scene \d: .*please"):
        samples(bright(), 1, augment=Augmentation(functions=(dialects.as_function(broken, form),)))


def test_no_boxes_are_boxes_too():
    def erased(sample, rng):
        return {**sample, "boxes": sample["boxes"][:0], "labels": sample["labels"][:0]}

    for sample in samples(bright(), 2, augment=Augmentation(functions=(erased,))):
        assert sample[5].tolist() == [-1] and not sample[4].any()


def test_functions_are_functions():
    with pytest.raises(TypeError, match="must be functions. Received: 'blur'"):
        Augmentation(functions=("blur",))
