"""Lists of images are a batch wherever Keras takes `x`; the first batch of a `fit` is looked at."""

import re
import warnings

import keras
import numpy as np
import pytest
from untrained import make

from libra_keras import data
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.inputs import images_and_sizes

pytestmark = pytest.mark.portable
Y = {"boxes": [[[4, 4, 40, 40], [10, 10, 30, 30]], []], "labels": [[0, 1], []]}
DENSE = {
    "boxes": np.float32([[[4, 4, 40, 40], [10, 10, 30, 30]], [[0] * 4] * 2]),
    "labels": np.int32([[0, 1], [-1, -1]]),
}


@pytest.fixture
def photos(rng):
    return [rng.integers(0, 255, (64, 96, 3), "uint8") for _ in range(2)]


def assert_same(found, expected):
    """By the scores: of boxes with nearly the same one the order may change."""
    assert set(found) >= set(expected)
    assert found["boxes"].shape == expected["boxes"].shape and expected["boxes"].any()
    scores = keras.ops.convert_to_numpy(found["scores"])
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)


@pytest.mark.slow
def test_predicting_on_a_list(photos):
    model = make("retinanet_small")
    expected = model.predict(np.stack(photos), verbose=0)
    assert_same(model.predict(photos, verbose=0), expected)
    assert_same(model.predict_on_batch(tuple(photos)), expected)
    assert_same(model(photos), expected)
    assert_same(model(x={"images": photos, "image_sizes": [[64, 96], [64, 96]]}), expected)


@pytest.mark.slow
def test_predicting_on_lists_in_a_dict(photos):
    model, proposals = make("fast_rcnn_small"), [np.float32([[4, 4, 60, 40], [8, 8, 60, 60]])] * 2
    stacked = {"images": np.stack(photos), "proposals": np.stack(proposals)}
    expected = model.predict(stacked, verbose=0)
    assert_same(model.predict({"images": photos, "proposals": proposals}, verbose=0), expected)


@pytest.mark.slow
def test_training_and_measuring_on_lists(photos):
    model = make("rpn_small")
    model.compile("sgd")
    held_out = photos, Y
    history = model.fit(photos, Y, batch_size=2, verbose=0, validation_data=held_out).history
    expected = model.evaluate(np.stack(photos), DENSE, batch_size=2, verbose=0)
    assert history["val_loss"] == pytest.approx(expected[:1], rel=1e-5)
    assert model.evaluate(photos, Y, batch_size=2, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert model.test_on_batch({"images": photos}, Y) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(model.train_on_batch(tuple(photos), Y)).all()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([np.zeros((64, 96, 3)), np.zeros((32, 96, 3))], "shapes (64, 96, 3), (32, 96, 3)"),
        ([np.zeros((1, 64, 96, 3))], "a list with the shape (1, 64, 96, 3)"),
        (np.zeros((64, 96, 3)), "shape (64, 96, 3)"),
        (["photo.jpg"], "a list with a str"),
        ([], "an empty list"),
    ],
)
def test_what_is_no_batch_is_refused_with_a_word_on_detect(x, words):
    model = make("rpn_small")
    model.compile("sgd")
    for entry in (
        model,
        model.predict,
        model.predict_on_batch,
        *(
            lambda x, entry=entry: entry(x, DENSE)
            for entry in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch)
        ),
    ):
        with pytest.raises(ValueError, match="`detect` takes single images, and lists") as raised:
            entry(x)
        assert str(raised.value).endswith(words)


def test_a_batch_without_images_is_refused_by_its_keys():
    with pytest.raises(ValueError, match=r"must have the key 'images'. .*: \['image', 'size'\]"):
        make("rpn_small").predict({"image": np.zeros((1, 64, 96, 3)), "size": 1}, verbose=0)


def test_lists_of_proposals_have_one_length(photos):
    uneven = [np.zeros((2, 4), "float32"), np.zeros((3, 4), "float32")]
    with pytest.raises(ValueError, match=r"x\['proposals'\] must be an array, .* \(2, 4\), \(3, 4"):
        make("fast_rcnn_small").predict({"images": photos, "proposals": uneven}, verbose=0)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ({"boxes": [[1, 2, 3, 4]], "labels": [[0]]}, r"y\['boxes'\] must be .*\(4,\) for image 0"),
        ({"boxes": [[]], "labels": [[[0]]]}, r"y\['labels'\] must be .*\(1, 1\) for image 0"),
        (
            {"boxes": [[[0, 0, 8, 8]] * 2, []], "labels": [[3], [4]]},
            "2 boxes and 1 labels for image 0",
        ),
        ({"boxes": np.zeros((2, 1, 4)), "labels": np.zeros((2, 3))}, r"\(2, 1, 4\) and \(2, 3\)"),
        ({"boxes": np.zeros((2, 1, 5)), "labels": np.zeros((2, 1))}, r"\(2, 1, 5\) and \(2, 1\)"),
    ],
)
def test_truth_of_another_shape_is_named(y, words):
    with pytest.raises(ValueError, match=words):
        GroundTruth.of(y)


@pytest.mark.parametrize("shape", [(8, 9, 3), (1, 8, 9, 4), (1, 2, 8, 9, 3)])
def test_images_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match="`images` must be a batch.*" + re.escape(str(shape))):
        images_and_sizes(np.zeros(shape, "uint8"))


def test_sizes_of_another_shape_are_named():
    images = np.zeros((2, 8, 9, 3), "uint8")
    with pytest.raises(ValueError, match=r"`image_sizes` must be \(B, 2\).*\(2,\)"):
        images_and_sizes({"images": images, "image_sizes": np.array([8, 9])})


WORDS = "Boxes must be in pixels"


@pytest.fixture(scope="module")
def model():
    model = make("rpn_small")
    model.compile("sgd")
    return model


def batches(count=4, scale=1 / 96):
    rng = np.random.default_rng(0)
    boxes = np.float32([[[4, 4, 40, 40]]] * 2) * np.float32(scale)
    for _ in range(count):
        x = rng.uniform(0, 255, (2, 64, 96, 3)).astype("float32")
        yield x, {"boxes": boxes, "labels": np.zeros((2, 1), "int32")}


def doubts(model, *given, **options):
    """What a `fit` warns of, of batches."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*given, verbose=0, shuffle=False, **options)
    found = [str(warning.message) for warning in caught]
    return [message for message in found if message.startswith(("Boxes", "Images"))]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return list(batches())[i]


@pytest.mark.slow
def test_arrays_in_each_fit_once(model):
    [(x, y)] = batches(1)
    for _ in range(2):
        [message] = doubts(model, x, y, epochs=2)
        assert message.startswith(WORDS)
    [(x, y)] = batches(1, scale=1)
    assert doubts(model, x, y) == []
    [message] = doubts(model, x / 255, y)
    assert message.startswith("Images must be from 0 to 255")


@pytest.mark.slow
def test_data_sets(model):
    assert doubts(model, Batches())[0].startswith(WORDS)


@pytest.mark.slow
def test_a_generator_loses_no_batch(model):
    before = int(model.trained_steps)
    [message] = doubts(model, batches(4), steps_per_epoch=4)
    assert message.startswith(WORDS) and int(model.trained_steps) == before + 4


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's data sets")
@pytest.mark.parametrize("is_ragged", [False, True])
def test_tensorflow_traces_no_step_more(is_ragged):
    import tensorflow as tf

    def ragged(x, y):
        boxes = tf.RaggedTensor.from_tensor(y["boxes"], ragged_rank=1)
        return x, {"boxes": boxes, "labels": tf.RaggedTensor.from_tensor(y["labels"])}

    model, traces = make("rpn_small"), []
    [(x, y)] = batches(1)
    given = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    given = given.map(ragged) if is_ragged else given
    step = model.train_step
    model.train_step = lambda *given: traces.append(given) or step(*given)
    model.compile("sgd")
    [message] = doubts(model, given, epochs=2)
    assert message.startswith(WORDS) and len(traces) == 1


@pytest.mark.slow
def test_our_own_batches_are_right(model, monkeypatch):
    looks = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, x=None, y=None: looks.append(self._looks))
    model.fit(data.training_batches(data.shapes(2), data.InputPolicy(64, 64), 2, epochs=1))
    model.fit(Batches())
    assert looks == [False, True]
