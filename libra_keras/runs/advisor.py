"""A callback that looks at the numbers of a run and says once what somebody should look into."""

import math
import sys

import keras

from libra_keras.runs import advice

FEWEST = 20  # steps of an epoch whose quarters are long enough to be compared


class Advisor(keras.callbacks.Callback):
    """Prints warnings that a person can act on, each once; see `libra_keras.runs.advice`.

    Put it behind evaluation, whose metrics it reads in the logs.

    Args:
        losses: names of the terms of the loss, in the logs.
        recall: function without arguments that returns the share of objects that proposals cover
            and the number of images it was measured on; called after evaluations until it has led
            to a warning. `None` if there are no proposals.
        at_start: dict from subjects to sentences, or `None`, to be said now.

    Attributes:
        warnings: dict from the subject of a warning to its `"epoch"`, counted from 1 (0 is before
            the first), and its `"message"`.

    Example:

    >>> from libra_keras.runs.advisor import Advisor
    >>> advisor = Advisor(["class_loss", "box_loss"])
    >>> advisor.on_epoch_end(0, {"loss": 0.8, "class_loss": 0.6, "box_loss": 0.2})
    >>> advisor.on_epoch_end(1, {"loss": 8.0, "class_loss": 7.9, "box_loss": 0.1})
    >>> advisor.warnings["losses"]["message"][:30]
    'class_loss is 99% of the loss '
    """

    def __init__(self, losses=(), recall=None, at_start=None):
        super().__init__()
        self.losses = list(losses)
        self.recall = recall
        self.warnings = {}
        self._first = None  # mean of the loss over the first quarter of the run's first epoch
        self._late = None  # steps and mean of the loss at the last quarter's begin
        self._say(-1, at_start or {})

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._late = None

    def on_train_batch_end(self, batch, logs=None):
        steps = (self.params or {}).get("steps") or 0
        if steps < FEWEST:
            return
        if self._epoch == 0 and batch + 1 == steps // 4:
            self._first = float(logs["loss"])
        if batch + 1 == steps - steps // 4:
            self._late = batch + 1, float(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        found = {
            "losses": advice.drowning_term({name: logs[name] for name in self.losses}),
        }
        if self._first is not None and self._late is not None:
            found["stalled"] = advice.stalled_loss(self._first, self._last_quarter(logs))
        for name in ("rpn_positives", "positives"):
            found[name] = advice.few_positives(name, logs.get(name, math.nan))
        is_measured = any(name.startswith("val_") and math.isfinite(logs[name]) for name in logs)
        if is_measured and self.recall is not None and "recall" not in self.warnings:
            found["recall"] = advice.low_recall(*self.recall())
        self._say(epoch, found)

    def get_state(self):
        """Returns what `set_state` needs to go on: a dict for JSON."""
        return {"warnings": self.warnings, "first": self._first, "late": self._late}

    def set_state(self, state):
        """Goes on where `get_state` was called."""
        self.warnings = {**self.warnings, **state["warnings"]}
        self._first, self._late = state["first"], state["late"]

    def _last_quarter(self, logs):
        """The mean of the loss over the last quarter, from the means since the epoch's begin."""
        steps, mean = self._late
        total = self.params["steps"]
        return (logs["loss"] * total - mean * steps) / (total - steps)

    def _say(self, epoch, found):
        for subject, message in found.items():
            if message is not None and subject not in self.warnings:
                self.warnings[subject] = {"epoch": epoch + 1, "message": message}
                print(f"\nWarning: {message}.", file=sys.stderr, flush=True)
