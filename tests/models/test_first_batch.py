"""The first batch of a `fit` is looked at, whatever it comes from, and no step is changed by it."""

import warnings

import keras
import numpy as np
import pytest
from untrained import make

from libra_keras import data

pytestmark = [pytest.mark.portable, pytest.mark.slow]
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


def test_arrays_in_each_fit_once(model):
    [(x, y)] = batches(1)
    for _ in range(2):
        [message] = doubts(model, x, y, epochs=2)
        assert message.startswith(WORDS)
    [(x, y)] = batches(1, scale=1)
    assert doubts(model, x, y) == []
    [message] = doubts(model, x / 255, y)
    assert message.startswith("Images must be from 0 to 255")


def test_data_sets(model):
    assert doubts(model, Batches())[0].startswith(WORDS)


def test_a_generator_loses_no_batch(model):
    before = int(model.trained_steps)
    [message] = doubts(model, batches(4), steps_per_epoch=4)
    assert message.startswith(WORDS) and int(model.trained_steps) == before + 4


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


def test_our_own_batches_are_right(model, monkeypatch):
    looks = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, x=None, y=None: looks.append(self._looks))
    model.fit(data.training_batches(data.shapes(2), data.InputPolicy(64, 64), 2, epochs=1))
    model.fit(Batches())
    assert looks == [False, True]
