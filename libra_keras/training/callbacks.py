"""Callbacks that record a training run."""

from collections.abc import Callable
from pathlib import Path

import keras
from keras import ops

from libra_keras.keras_private import batches_of, given_rate
from libra_keras.ranges import whole
from libra_keras.training.skip_nonfinite import SkipNonFinite


def learning_rate_at(optimizer: keras.optimizers.Optimizer, step: int) -> float:
    """The learning rate of the update that batch `step` (counted from 0) is part of.

    Args:
        optimizer: a Keras optimizer, or a `LossScaleOptimizer` around one.
        step: int. It matters only if the rate follows a schedule. With gradient accumulation an
            update takes several batches: schedules count updates in our optimizers, and batches in
            those of Keras.

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
    schedule = given_rate(optimizer)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        if isinstance(optimizer, SkipNonFinite):
            step //= optimizer.gradient_accumulation_steps or 1
        return float(ops.convert_to_numpy(schedule(step)))
    return float(ops.convert_to_numpy(optimizer.learning_rate))


def batches_done(optimizer: keras.optimizers.Optimizer) -> int:
    """How many training batches an optimizer has seen and not skipped."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # `iterations` would count whole updates where gradients are accumulated.
    return int(ops.convert_to_numpy(batches_of(optimizer)))


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

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        optimizer = self.model.optimizer
        if logs is not None:
            last = max(batches_done(optimizer) - 1, 0)
            logs["learning_rate"] = learning_rate_at(optimizer, last)


class StepLogger(keras.callbacks.Callback):
    """Writes a table of the losses' means over every few steps.

    Keras reports means since the start of the epoch. Here each row is the mean over its own steps
    only, recovered from those running means in double precision: steps 21-40 do not contain steps
    1-20, and a row may span the border of two epochs. All batches must have the same size, as
    training batches do; every logged metric must be a mean. Logs are read where a row or an epoch
    ends, no sooner: reading a tensor waits for its batch.

    Columns: `epoch` (from 1, of the row's last step), `first_step`, `last_step` (from 1, over the
    whole run), `learning_rate` (of the last step), then all metrics. The last row of a run may
    cover fewer steps.

    Args:
        path: str or path of the file; its folder is created. Tabs separate the columns of `.tsv`,
            commas those of any other file.
        every: int >= 1, steps per row. Defaults to 20.
        append: bool, whether to continue an existing file of an interrupted run.
            Defaults to `False`.
        on_row: function `(last step, dict from columns to floats)` that is called with every row.

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

    def __init__(
        self,
        path: str | Path,
        every: int = 20,
        append: bool = False,
        on_row: Callable[[int, dict[str, float]], None] | None = None,
    ):
        super().__init__()
        every = whole(1).check("`every`", every)
        self.path = Path(path)
        self.every = int(every)
        self.append = append
        self.on_row = on_row

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.append:
            self.path.unlink(missing_ok=True)
        # Batches of the epoch, and the logs after them.
        self._unread: tuple[int, dict] | None = None
        self._names: list[str] | None = None
        self._row_start: int | None = None
        self._clear()
        self._start_epoch(0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self._row_start is None:  # only now have callbacks that restore a run done so
            self._row_start = batches_done(self.model.optimizer)
        self._start_epoch(epoch)

    def _start_epoch(self, epoch):
        self._read()
        self._epoch = epoch
        self._epoch_steps = 0
        self._epoch_sums: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._unread = batch + 1, logs or {}
        if self._steps + batch + 1 - self._epoch_steps >= self.every:
            self._read()
            self._write()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._read()
        if self._steps:
            self._write()

    def get_state(self) -> dict:
        """Returns what `set_state` needs to continue in the middle of a row: a dict for JSON."""
        self._read()
        return {name: getattr(self, name) for name in self._STATE}

    def set_state(self, state: dict) -> None:
        """Continues from where `get_state` was called; in an epoch, only after `on_epoch_begin`."""
        for name in self._STATE:
            setattr(self, name, state[name])
        self._unread = None

    def _clear(self):
        self._steps = 0
        self._sums = {}

    def _read(self):
        """Takes the sums since the epoch's start, and adds what they grew by to the row's."""
        if self._unread is None:
            return
        (epoch_steps, logs), self._unread = self._unread, None
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
