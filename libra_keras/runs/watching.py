"""How a run is watched: its speed, and TensorBoard's curves."""

import collections
import math
import time

import keras

from libra_keras.training.callbacks import batches_done


class Speedometer(keras.callbacks.Callback):
    """Measures training images per second over the last batches of an epoch, without its first,
    which compiles or follows an evaluation."""

    def __init__(self, batch_size: int, window: int = 20):
        super().__init__()
        self.batch_size = batch_size
        # Batches so far, and the clock.
        self._ends: collections.deque[tuple[int, float]] = collections.deque(maxlen=window + 1)

    def on_epoch_begin(self, epoch, logs=None):
        self._ends.clear()

    def on_train_batch_end(self, batch, logs=None):
        self._ends.append((batch + 1, time.perf_counter()))

    @property
    def images_per_second(self):
        """Of the last `window` batches, waiting for them included; NaN before the second."""
        if len(self._ends) < 2:
            return math.nan
        (first, start), (last, end) = self._ends[0], self._ends[-1]
        return self.batch_size * (last - first) / max(end - start, 1e-9)


class TensorBoardLogger(keras.callbacks.Callback):
    """Writes event files over the steps of a run: the rows of a `StepLogger` that has `write_row`
    as its `on_row`, images per second, and the metrics and a picture of each evaluation."""

    def __init__(self, folder, speed=None, picture=None):
        super().__init__()
        self.folder = str(folder)
        self.speed = speed
        self.picture = picture
        self._opened = None

    def write_row(self, step, values):
        """Writes floats by name for a step, counted from 1."""
        values = {f"train/{name}": value for name, value in values.items()}
        if self.speed is not None:
            values["train/images_per_second"] = self.speed.images_per_second
        self._write(step, values)

    def on_epoch_end(self, epoch, logs=None):
        measured = {
            f"val/{name.removeprefix('val_')}": value
            for name, value in (logs or {}).items()
            if name.startswith("val_")
        }
        if any(map(math.isfinite, measured.values())):
            picture = None if self.picture is None else self.picture()
            self._write(batches_done(self.model.optimizer), measured, picture)

    def on_train_end(self, logs=None):
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _write(self, step, values, picture=None):
        import tensorflow as tf

        if self._opened is None:
            self._opened = tf.summary.create_file_writer(self.folder)
        with self._opened.as_default(step=step):
            for name, value in values.items():
                if math.isfinite(value):
                    tf.summary.scalar(name, value)
            if picture is not None:
                tf.summary.image("val/annotated and detected", picture[None])
        self._opened.flush()  # a run that is killed has shown what it wrote
