"""Event files for TensorBoard: curves over steps, and pictures of what is detected."""

import math

import keras

from libra_keras.training.callbacks import batches_done


class TensorBoardLogger(keras.callbacks.Callback):
    """Writes what a run shows of itself for TensorBoard, everything over its steps.

    `train/...` are the rows of a `StepLogger` that has `write_row` as its `on_row`: losses, counts
    and learning rate, and images per second beside them. `val/...` are the metrics of evaluations,
    and a picture. It needs TensorFlow.

    Args:
        folder: path of the folder of the event files.
        speed: `Speedometer`, or `None`.
        picture: function without arguments that returns a uint8 `(H, W, 3)` picture after an
            evaluation, or `None`, as long as there is none.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.runs.tensorboard import TensorBoardLogger
    >>> folder = Path(tempfile.mkdtemp())
    >>> logger = TensorBoardLogger(folder)
    >>> logger.write_row(20, {"loss": 1.5})
    >>> len(list(folder.glob("events.out.*")))
    1
    """

    def __init__(self, folder, speed=None, picture=None):
        super().__init__()
        self.folder = str(folder)
        self.speed = speed
        self.picture = picture
        self._opened = None

    def write_row(self, step, values):
        """Writes a dict of floats as of step `step`, counted from 1."""
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
