"""What detectors take as a batch, in whatever form it comes, and Keras' methods that take one."""

import functools
import inspect
import itertools
import os
import warnings
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

from libra_keras.data.batch_values import doubtful
from libra_keras.functional.replicas import with_an_image
from libra_keras.models.ground_truth import as_arrays, labels_told, truth_in
from libra_keras.models.habits import (
    check_fit,
    check_given_truth,
    refuse_box_format,
    refuse_weights,
)
from libra_keras.typing import Tensor

Batch: TypeAlias = Tensor | dict[str, Tensor]

EXPECTED = (
    "`images` must be a batch (B, H, W, 3), RGB, or a list of images (H, W, 3) of one size; "
    "`detect` takes single images, and lists of files and of images of any sizes. Received: "
)


def as_batch(x):
    """Makes arrays of the lists of images in a batch, which Keras would cut into strips."""
    if isinstance(x, (str, bytes, os.PathLike)):
        raise ValueError(f"{EXPECTED}a {type(x).__name__}")
    if isinstance(x, dict):
        if "images" not in x:
            raise ValueError(f"`x` must have the key 'images'. Received the keys: {sorted(x)}")
        x = {key: as_arrays(_joined(value, key)) for key, value in x.items()}
    else:
        x = _joined(x, "images")
    images = x.get("images") if isinstance(x, dict) else x
    if hasattr(images, "shape") and hasattr(images, "dtype"):  # else it may be a data set
        _check_images(images.shape)
    return x


def _joined(values, name):
    """The array of which a list holds the rows; anything else as it is."""
    if not isinstance(values, (list, tuple)):
        return values
    rows = [_row(value, name) for value in values]
    shapes = [tuple(row.shape) for row in rows]
    if name == "images":
        _check_list(shapes)
    elif len(set(shapes)) > 1:
        raise ValueError(
            f"x[{name!r}] must be an array, or a list of arrays of one shape, padded. "
            f"Received: a list with the shapes {_listed(shapes)}"
        )
    tensors = all(ops.is_tensor(row) or isinstance(row, keras.KerasTensor) for row in rows)
    return ops.stack(rows) if tensors and rows else np.array(rows)


def _row(value, name):
    if hasattr(value, "shape"):
        return value
    if isinstance(value, (str, bytes, os.PathLike, dict)) and name == "images":
        raise ValueError(f"{EXPECTED}a list with a {type(value).__name__}")
    try:
        return np.asarray(value)
    except ValueError:  # rows of several lengths
        return np.asarray(value, "object")


def _check_list(shapes):
    if not shapes:
        raise ValueError(f"{EXPECTED}an empty list")
    wrong = next((shape for shape in shapes if len(shape) != 3), None)
    if wrong is not None:
        raise ValueError(f"{EXPECTED}a list with the shape {wrong}")
    if len(set(shapes)) > 1:
        raise ValueError(f"{EXPECTED}a list with the shapes {_listed(shapes)}")


def _listed(shapes):
    return ", ".join(map(str, dict.fromkeys(shapes)))


def images_and_sizes(x):
    """Splits a batch into images and their sizes, int32 `(B, 2)`; a replica without images gets a
    blank one of size 0.
    """
    x = as_batch(x)
    if not isinstance(x, dict):
        x = {"images": x}
    images = ops.convert_to_tensor(x["images"])
    _check_images(images.shape)
    if "image_sizes" in x:
        sizes = ops.cast(x["image_sizes"], "int32")
    else:
        batch, height, width = ops.shape(images)[:3]
        size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
        sizes = ops.broadcast_to(size, (batch, 2))
    if len(sizes.shape) != 2 or sizes.shape[-1] not in (2, None):
        raise ValueError(
            "`image_sizes` must be (B, 2), height and width before padding. "
            f"Received: shape {tuple(sizes.shape)}"
        )
    return with_an_image(images), with_an_image(sizes)


def _check_images(shape):
    if len(shape) != 4 or shape[-1] not in (1, 3, None):
        raise ValueError(f"{EXPECTED}shape {tuple(shape)}")


def is_image(image_sizes):
    """Which images of a batch are any: 1, or 0 for the blank one of a replica without images."""
    return ops.cast(ops.convert_to_tensor(image_sizes)[:, 0] > 0, "float32")


class TakesLists:
    """Mixin, before `keras.Model`, of detectors: whatever takes `x` takes images in a list."""

    _looks = False  # whether the train function that is made next looks at a batch

    def __call__(self, x, *args, **kwargs):
        return super().__call__(as_batch(x), *args, **kwargs)

    def fit(self, *args, **kwargs):
        refuse_box_format(kwargs)
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        check_fit(self, given)
        held_out = given.get("validation_data")
        if isinstance(held_out, (list, tuple)) and len(held_out) in (2, 3):
            given["validation_data"] = self._as_pair(*held_out[:2])
        given["x"], given["y"] = self._as_pair(given.get("x"), given.get("y"))
        self._looks = not hasattr(given["x"], "source")  # ours are right
        try:
            with labels_told():
                return super().fit(**given)
        finally:
            self._looks = False

    def _as_pair(self, x, y):
        """`x` and `y` as arrays, where they are in the memory."""
        x, y = as_batch(x), as_arrays(y)
        check_given_truth(truth_in(x, y), self)
        return x, y

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, x=None, y=None, *args, **kwargs):
        with labels_told():
            return super().evaluate(*self._as_pair(x, y), *args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, x, *args, **kwargs):
        return super().predict(as_batch(x), *args, **kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, x, y=None, *args, **kwargs):
        refuse_weights(dict(zip(("sample_weight", "class_weight"), args, strict=False)) | kwargs)
        with labels_told():
            return super().train_on_batch(*self._as_pair(x, y), *args, **kwargs)

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, x, y=None, *args, **kwargs):
        with labels_told():
            return super().test_on_batch(*self._as_pair(x, y), *args, **kwargs)

    def make_train_function(self, force=False):
        function = super().make_train_function(force)
        if not self._looks:
            return function
        self._looks = False
        _look_at_first_batch(self)
        return self.train_function


def _look_at_first_batch(model):
    """Warns if the next batch that a detector trains on looks wrong; it is taken out of Keras'
    iterator and put back in front of the others, so that nothing is read twice.
    """
    function = model.train_function

    def look(*given):
        model.train_function = function
        *state, batches = given
        batch, batches = _peeked(batches, model.steps_per_execution)
        if batch is not None:
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
            sentence = doubtful(_arrays(x), _arrays(truth_in(x, y)))
            if sentence:
                warnings.warn(sentence, stacklevel=2)
        return function(*state, batches)

    model.train_function = look


def _peeked(batches, count):
    """The first of the batches that a train function gets, and what it is to get instead."""
    if keras.backend.backend() == "tensorflow":
        return _peeked_tensorflow(batches, count)
    if isinstance(batches, list):  # on PyTorch
        return (batches[0] if _is_here(batches) else None), batches
    first = list(itertools.islice(batches, 1))
    return (first[0] if _is_here(first) else None), itertools.chain(first, batches)


def _is_here(batches):
    """Whether there is a batch, all of it in this process."""
    leaves = keras.tree.flatten(batches[:1])
    return bool(leaves) and all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves)


def _peeked_tensorflow(batches, count):
    """A function that was traced takes an iterator of the same types, of however few batches."""
    import tensorflow as tf

    if not isinstance(batches, tf.data.Iterator):  # of replicas: parts lie on their devices
        return None, batches
    types = batches.element_spec
    if not all(
        isinstance(leaf, (tf.TensorSpec, tf.RaggedTensorSpec)) for leaf in tf.nest.flatten(types)
    ):
        return None, batches
    first = list(itertools.islice(batches, count))
    if not first:
        return None, batches
    again = tf.data.Dataset.from_generator(lambda: iter(first), output_signature=types)
    return first[0], iter(again)


def _arrays(values):
    def array(value):
        if hasattr(value, "to_tensor"):  # ragged
            value = value.to_tensor(-1)
        return value if isinstance(value, np.ndarray) else ops.convert_to_numpy(value)

    return keras.tree.map_structure(lambda v: None if v is None else array(v), values)
