"""The methods of Keras that take batches, as detectors have them: lists of images are batches."""

import functools
import inspect

import keras

from libra_keras.data.batch_values import doubtful
from libra_keras.models.first_batch import watched
from libra_keras.models.ground_truth import as_arrays
from libra_keras.models.inputs import as_batch


class TakesLists:
    """Mixin, before `keras.Model`, of detectors: whatever takes `x` takes images in a list.

    Keras takes a list for several inputs, and cuts each image into strips. `y` may have lists with
    an array an image, too. The first batch of a `fit` is looked at, once.
    """

    _looks = False  # whether the train function that is made next looks at a batch

    def __call__(self, x, *args, **kwargs):
        return super().__call__(as_batch(x), *args, **kwargs)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        held_out = given.get("validation_data")
        if isinstance(held_out, (list, tuple)) and len(held_out) in (2, 3):
            x, y, *weights = held_out
            given["validation_data"] = as_batch(x), as_arrays(y), *weights
        given |= {"x": as_batch(given.get("x")), "y": as_arrays(given.get("y"))}
        self._looks = not hasattr(given["x"], "source")  # ours are right
        try:
            return super().fit(**given)
        finally:
            self._looks = False

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, x=None, y=None, *args, **kwargs):
        return super().evaluate(as_batch(x), as_arrays(y), *args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, x, *args, **kwargs):
        return super().predict(as_batch(x), *args, **kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, x, y=None, *args, **kwargs):
        return super().train_on_batch(as_batch(x), as_arrays(y), *args, **kwargs)

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, x, y=None, *args, **kwargs):
        return super().test_on_batch(as_batch(x), as_arrays(y), *args, **kwargs)

    def make_train_function(self, force=False):
        function = super().make_train_function(force)
        if not self._looks:
            return function
        self._looks = False
        watched(self, doubtful)
        return self.train_function
