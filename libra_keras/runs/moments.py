"""Moments of a run: when it stops, and when weights are kept."""

import dataclasses
import math
import time
from collections.abc import Iterable
from numbers import Real

import keras

from libra_keras.runs.config import DeviceConfig


class TimeIsUp(Exception):
    """Raised in the fit of a run whose time is up, once it is saved; `train` then returns."""


class EarlyStop(keras.callbacks.Callback):
    """Ends a run after `patience` evaluations in a row without a better `monitor`; 0 never does.
    It must come after the evaluation."""

    def __init__(self, monitor: str, patience: int):
        super().__init__()
        self.monitor = monitor
        self.patience = patience
        self._best, self._worse = -math.inf, 0

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor, math.nan)
        if math.isnan(value):  # this epoch was not evaluated
            return
        if value > self._best:
            self._best, self._worse = value, 0
        else:
            self._worse += 1
        if self.patience and self._worse >= self.patience:
            self.model.stop_training = True

    def get_state(self):
        """Returns what `set_state` needs to continue: a dict for JSON."""
        return {"best": self._best, "worse": self._worse}

    def set_state(self, state):
        """Continues where `get_state` was called."""
        self._best, self._worse = state["best"], state["worse"]


@dataclasses.dataclass(frozen=True)
class Moments:
    """The time, as returned by `time.time()`, at which a run stops, and the fractions in (0, 1] of
    the run after which its weights are kept."""

    stop_by: float | None = None
    keep_at: tuple[float, ...] = ()

    def __post_init__(self):
        if self.stop_by is not None and math.isnan(_number("stop_by", self.stop_by)):
            raise ValueError("`stop_by` must be a time, as `time.time()` returns. Received: nan")
        for fraction in self.keep_at:
            if not 0 < _number("keep_at", fraction) <= 1:
                raise ValueError(f"`keep_at` must lie in (0, 1]. Received: {fraction}")

    @property
    def is_time(self) -> bool:
        """Whether the run must stop."""
        return self.stop_by is not None and time.time() >= self.stop_by

    def kept(self, steps: int) -> dict[int, list[str]]:
        """Returns the steps of a run after which weights are kept, with the files' names."""
        found: dict[int, list[str]] = {}
        for fraction in sorted(self.keep_at):
            step = math.ceil(round(fraction * steps, 6))  # 0.7 * 10 is a little more than 7
            found.setdefault(step, []).append(f"kept-{fraction:g}.weights.h5")
        return found


def moments_of(devices: DeviceConfig, stop_by: float | None, keep_at: Iterable[float]) -> Moments:
    """Returns the moments of a run; a cluster cannot stop by a time: its workers would wait."""
    if stop_by is not None and devices.cluster:
        raise ValueError("`stop_by` cannot be used in a cluster: the other workers would wait")
    if not isinstance(keep_at, Iterable) or isinstance(keep_at, str):
        raise TypeError(f"`keep_at` must be a tuple of fractions. Received: {keep_at!r}")
    return Moments(stop_by, tuple(keep_at))


def _number(name, value):
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number. Received: {value!r}")
    return value
