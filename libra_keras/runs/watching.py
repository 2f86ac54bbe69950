"""How fast a run is, and the progress bar that says so."""

import collections
import math
import time

import keras

from libra_keras.training.callbacks import batches_done, learning_rate_at


class Speedometer(keras.callbacks.Callback):
    """Measures training images per second, waiting for batches included.

    The first batch of an epoch is left out: it compiles, or follows an evaluation. What is
    measured goes into no log, since tables of a run should be the same whenever it is repeated.

    Args:
        batch_size: int, images of a batch, over all devices.
        window: int, batches over which `images_per_second` is measured. Defaults to 20.

    Attributes:
        images_per_second: float, of the last `window` batches of the epoch; NaN before its second.

    Example:

    >>> from libra_keras.runs.watching import Speedometer
    >>> speed = Speedometer(batch_size=4)
    >>> speed.on_epoch_begin(0)
    >>> speed.on_train_batch_end(0)
    >>> speed.images_per_second
    nan
    >>> speed.on_train_batch_end(1)
    >>> speed.images_per_second > 0
    True
    """

    def __init__(self, batch_size, window=20):
        super().__init__()
        self.batch_size = batch_size
        self._ends = collections.deque(maxlen=window + 1)  # (batches so far, clock)

    def on_epoch_begin(self, epoch, logs=None):
        self._ends.clear()

    def on_train_batch_end(self, batch, logs=None):
        self._ends.append((batch + 1, time.perf_counter()))

    @property
    def images_per_second(self):
        if len(self._ends) < 2:
            return math.nan
        (first, start), (last, end) = self._ends[0], self._ends[-1]
        return self.batch_size * (last - first) / max(end - start, 1e-9)

    def beside(self, logs):
        """Returns a copy of logs, with the learning rate and, once known, images per second."""
        optimizer = self.model.optimizer
        rate = learning_rate_at(optimizer, max(batches_done(optimizer) - 1, 0))
        speed = self.images_per_second
        known = {} if math.isnan(speed) else {"images_per_second": speed}
        return {**(logs or {}), "learning_rate": rate, **known}


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' bar with the learning rate and images per second; other callbacks see neither.

    Args:
        speed: `Speedometer`; belongs before the bar in the list of callbacks.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from libra_keras.runs.watching import ProgressBar, Speedometer
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.5), "mse")
    >>> speed = Speedometer(batch_size=2)
    >>> history = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=2, verbose=0,
    ...                     callbacks=[speed, ProgressBar(speed)])
    >>> list(history.history)
    ['loss']
    """

    def __init__(self, speed):
        super().__init__()
        self.speed = speed

    def on_train_batch_end(self, batch, logs=None):
        if self.verbose == 1:
            super().on_train_batch_end(batch, self.speed.beside(logs))

    def on_epoch_end(self, epoch, logs=None):
        if self.verbose:
            super().on_epoch_end(epoch, self.speed.beside(logs))
