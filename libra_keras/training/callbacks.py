"""Callbacks that guard and record a training run."""

import math
import sys
from pathlib import Path

import keras
from keras import ops

SMALLEST_SCALE = 2.0**-10  # of losses in float16; it starts at 2^15, and is halved


def learning_rate_at(optimizer, step):
    """The learning rate of the update that batch `step` (counted from 0) is part of.

    Args:
        optimizer: a Keras optimizer, or a `LossScaleOptimizer` around one.
        step: int. It matters only if the rate follows a schedule, which counts updates: with
            gradient accumulation there are several batches to one.

    Returns:
        float.

    Example:

    >>> from libra_keras.training import SGD, WarmupMultiStep, learning_rate_at
    >>> optimizer = SGD(WarmupMultiStep(0.5, warmup_steps=0, drops=(10,)))
    >>> round(learning_rate_at(optimizer, 9), 6), round(learning_rate_at(optimizer, 10), 6)
    (0.5, 0.05)
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # Keras offers the rate of the *next* update only, which a drop may separate from the last.
    schedule = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        update = step // (optimizer.gradient_accumulation_steps or 1)
        return float(ops.convert_to_numpy(schedule(update)))
    return float(ops.convert_to_numpy(optimizer.learning_rate))


def batches_done(optimizer):
    """How many training batches `optimizer` has seen and not skipped, as an int."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # `iterations` would count whole updates where gradients are accumulated.
    return int(ops.convert_to_numpy(optimizer._iterations))


class LearningRateLogger(keras.callbacks.Callback):
    """Adds `learning_rate`, the rate of the epoch's last update, to the logs of every epoch.

    Put it before the callbacks that write logs, such as `keras.callbacks.CSVLogger`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from libra_keras.training import LearningRateLogger
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.5), "mse")
    >>> history = model.fit(
    ...     np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[LearningRateLogger()]
    ... )
    >>> history.history["learning_rate"]
    [0.5]
    """

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        if logs is not None:
            last = max(batches_done(optimizer) - 1, 0)
            logs["learning_rate"] = learning_rate_at(optimizer, last)


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops training at the first non-finite gradient or loss, and names the batch.

    A gradient that is not finite is never applied by `libra_keras.training.SGD`, so the weights
    are those from before the batch, and so are moving averages, which this callback restores. Our
    detectors give every loss that is not finite gradients that are not. Where another model's are
    finite, training stops as well, but the update has been applied; the message says so.

    With float16, updates that a `LossScaleOptimizer` holds back while it looks for its scale stop
    nothing, until that scale is so small that it cannot be found.

    Looking costs two scalar reads per batch. With `steps_per_execution` above 1, all batches of
    the execution are named.

    Args:
        batch_names: callable `(epoch, step) -> iterable of str`, both counted from 0, that says
            which files a batch was made of; or `None`, then only epoch and step are named.

    Attributes:
        failure: `None`, or the message, for a program that should exit with an error.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from libra_keras.training import SGD, StopOnNonFinite
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(SGD(0.1), "mse")
    >>> guard = StopOnNonFinite(lambda epoch, step: [f"image_{step}.jpg"])
    >>> guard.failure is None
    True
    >>> y = np.array([[1.0], [np.nan], [1.0]])
    >>> _ = model.fit(
    ...     np.ones((3, 1)), y, batch_size=1, shuffle=False, verbose=0, callbacks=[guard]
    ... )
    >>> print(guard.failure.split(":")[0])
    Training stopped at epoch 1, step 2
    """

    def __init__(self, batch_names=None):
        super().__init__()
        self.batch_names = batch_names
        self.failure = None

    def on_train_begin(self, logs=None):
        self.failure = None
        self._skipped_before = self._skipped()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self._first = batch
        # Moving averages follow the forward pass, which the optimizer cannot take back. They are
        # vectors; frozen kernels never change and are not copied.
        variables = [v for v in self.model.non_trainable_variables if len(v.shape) <= 1]
        self._averages = [(v, ops.convert_to_numpy(v).copy()) for v in variables]
        self._done_before = batches_done(self.model.optimizer)

    def on_train_batch_end(self, batch, logs=None):
        is_bad = self._skipped() > self._skipped_before or self._has_no_scale()
        if is_bad or not math.isfinite((logs or {}).get("loss", 0.0)):
            steps = range(self._first, batch + 1)
            done = batches_done(self.model.optimizer) - self._done_before
            self._stop(steps, was_held_back=is_bad or done < len(steps))

    def _has_no_scale(self):
        """Whether gradients overflow float16 however small the loss is made."""
        scale = getattr(self.model.optimizer, "dynamic_scale", None)
        return scale is not None and float(ops.convert_to_numpy(scale)) < SMALLEST_SCALE

    def _skipped(self):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        counter = getattr(optimizer, "nonfinite_updates", None)  # `None`: Keras' own, or unbuilt
        return 0 if counter is None else int(ops.convert_to_numpy(counter))

    def _stop(self, steps, was_held_back):
        for variable, value in self._averages:
            variable.assign(value)
        names = (
            []
            if self.batch_names is None
            else [str(name) for step in steps for name in self.batch_names(self._epoch, step)]
        )
        where = "-".join(str(step + 1) for step in sorted({steps[0], steps[-1]}))
        what = (
            "a gradient is not finite. That update was not applied; the weights are those before it"
            if was_held_back
            else "the loss is not finite, though its gradients were, and the update was applied"
        )
        files = f" Files of the batch: {', '.join(names)}." if names else ""
        self.failure = f"Training stopped at epoch {self._epoch + 1}, step {where}: {what}.{files}"
        self.model.stop_training = True
        print(f"\n{self.failure}", file=sys.stderr)


class StepLogger(keras.callbacks.Callback):
    """Writes a table of the losses' means over every few steps.

    Keras reports means since the start of the epoch. Here each row is the mean over its own steps
    only, recovered from those running means in double precision: steps 21-40 do not contain steps
    1-20, and a row may span the border of two epochs. All batches must have the same size, as
    training batches do; every logged metric must be a mean.

    Columns: `epoch` (from 1, of the row's last step), `first_step`, `last_step` (from 1, over the
    whole run), `learning_rate` (of the last step), then all metrics. The last row of a run may
    cover fewer steps.

    Args:
        path: str or path of the file; its folder is made. Tabs separate the columns of `.tsv`,
            commas those of any other file.
        every: int >= 1, steps per row. Defaults to 20.
        append: bool, whether to go on with an existing file, of a run that was interrupted.
            Defaults to `False`.
        on_row: function `(last step, dict from columns to floats)` that is given every row, too.

    Raises:
        ValueError: if `every` is not a positive integer.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import keras
    >>> import numpy as np
    >>> from libra_keras.training import StepLogger
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "relu")])
    >>> model.compile(keras.optimizers.SGD(0.5), "mse")
    >>> path = Path(tempfile.mkdtemp()) / "steps.csv"
    >>> _ = model.fit(
    ...     np.zeros((6, 1)), np.zeros((6, 1)), batch_size=2, verbose=0,
    ...     callbacks=[StepLogger(path, every=2)],
    ... )
    >>> print(path.read_text().strip())
    epoch,first_step,last_step,learning_rate,loss
    1,1,2,0.5,0
    1,3,3,0.5,0
    """

    _STATE = ("_names", "_row_start", "_steps", "_sums", "_epoch", "_epoch_steps", "_epoch_sums")

    def __init__(self, path, every=20, append=False, on_row=None):
        super().__init__()
        if int(every) != every or every < 1:
            raise ValueError(f"`every` must be a positive integer. Received: every={every}")
        self.path = Path(path)
        self.every = int(every)
        self.append = append
        self.on_row = on_row

    def on_train_begin(self, logs=None):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.append:
            self.path.unlink(missing_ok=True)
        self._names = None
        self._row_start = None
        self._clear()

    def on_epoch_begin(self, epoch, logs=None):
        if self._row_start is None:  # only now have callbacks that restore a run done so
            self._row_start = batches_done(self.model.optimizer)
        self._epoch = epoch
        self._epoch_steps = 0
        self._epoch_sums = {}

    def on_train_batch_end(self, batch, logs=None):
        self._add(batch + 1, logs or {})
        if self._steps >= self.every:
            self._write()

    def on_train_end(self, logs=None):
        if self._steps:
            self._write()

    def get_state(self):
        """Returns what `set_state` needs to go on in the middle of a row: a dict for JSON."""
        return {name: getattr(self, name) for name in self._STATE}

    def set_state(self, state):
        """Goes on where `get_state` was called; in an epoch, belongs behind `on_epoch_begin`."""
        for name in self._STATE:
            setattr(self, name, state[name])

    def _clear(self):
        self._steps = 0
        self._sums = {}

    def _add(self, epoch_steps, logs):
        """Takes the sums since the epoch's start, and adds what they grew by to the row's."""
        if self._names is None:
            self._names = list(logs)
        for name in self._names:
            total = float(logs[name]) * epoch_steps
            grown = total - self._epoch_sums.get(name, 0.0)
            self._sums[name] = self._sums.get(name, 0.0) + grown
            self._epoch_sums[name] = total
        self._steps += epoch_steps - self._epoch_steps
        self._epoch_steps = epoch_steps

    def _write(self):
        last = self._row_start + self._steps
        rate = learning_rate_at(self.model.optimizer, last - 1)
        means = {name: self._sums[name] / self._steps for name in self._names}
        values = {"learning_rate": rate, **means}
        steps = self._epoch + 1, self._row_start + 1, last
        row = [*map(str, steps), *(f"{value:.6g}" for value in values.values())]
        separator = "\t" if self.path.suffix == ".tsv" else ","
        new = not self.path.exists()
        with self.path.open("a") as file:
            if new:
                columns = ["epoch", "first_step", "last_step", *values]
                file.write(separator.join(columns) + "\n")
            file.write(separator.join(row) + "\n")
        if self.on_row is not None:
            self.on_row(last, values)
        self._row_start = last
        self._clear()
