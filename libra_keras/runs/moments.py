"""Moments of a run: when it stops, and when weights are kept."""

import dataclasses
import math
import signal
import sys
import threading
import time
from collections.abc import Iterable
from numbers import Real
from typing import Any

import keras

from libra_keras.runs.config import DeviceConfig

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Raised when a run has been told to stop, and is in order.

    Args:
        signum: the signal; by default that of Ctrl-C.

    Attributes:
        status: int, the exit status that shells expect: 128 + the signal.

    Example:

    >>> import signal
    >>> from libra_keras.runs import Stopped
    >>> Stopped(signal.SIGINT).status
    130
    """

    def __init__(self, signum: int = signal.SIGINT):
        super().__init__()
        self.status = 128 + signum


class TimeIsUp(Exception):
    """Raised in the fit of a run whose time has come, once it is saved; `train` returns then."""


class StopSignals:
    """Context in which Ctrl-C (SIGINT) and SIGTERM raise `Stopped`, the first one not while `held`;
    outside of a program's main thread, where Python handles no signals, nothing changes."""

    def __init__(self, promise: str = "Stops after this step, and saves the run"):
        self.promise = promise  # what is said when a signal waits
        self.held = False
        self.received = None
        self._before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        return self

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def release(self) -> None:
        """Ends `held`; raises `Stopped` if a signal is waiting."""
        self.held = False
        if self.received is not None:
            raise Stopped(self.received)

    def _receive(self, signum, frame):
        if not self.held or self.received is not None:
            raise Stopped(signum)
        self.received = signal.Signals(signum)
        print(f"\n{self.promise}; once more stops at once.", file=sys.stderr, flush=True)


class EarlyStop(keras.callbacks.Callback):
    """Ends a run after `patience` evaluations in a row without a better `monitor`; 0 never does.
    It belongs behind the evaluation."""

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
        """Returns what `set_state` needs to go on: a dict for JSON."""
        return {"best": self._best, "worse": self._worse}

    def set_state(self, state):
        """Goes on where `get_state` was called."""
        self._best, self._worse = state["best"], state["worse"]


@dataclasses.dataclass(frozen=True)
class Moments:
    """The time, as `time.time()` gives it, at which a run stops, and the fractions in (0, 1] of it
    after which its weights are kept."""

    stop_by: float | None = None
    keep_at: tuple[float, ...] = ()

    def __post_init__(self):
        if self.stop_by is not None and math.isnan(_number("stop_by", self.stop_by)):
            raise ValueError("`stop_by` must be a time, as `time.time()` gives it. Received: nan")
        for fraction in self.keep_at:
            if not 0 < _number("keep_at", fraction) <= 1:
                raise ValueError(f"`keep_at` must lie in (0, 1]. Received: {fraction}")

    @property
    def is_time(self) -> bool:
        """Whether the run is to stop."""
        return self.stop_by is not None and time.time() >= self.stop_by

    def kept(self, steps: int) -> dict[int, list[str]]:
        """Returns the steps of a run after which weights are kept, with the files' names."""
        found: dict[int, list[str]] = {}
        for fraction in sorted(self.keep_at):
            step = math.ceil(round(fraction * steps, 6))  # 0.7 * 10 is a little more than 7
            found.setdefault(step, []).append(f"kept-{fraction:g}.weights.h5")
        return found


def moments_of(devices: DeviceConfig, stop_by: float | None, keep_at: Iterable[float]) -> Moments:
    """Returns the moments of a run; a cluster cannot stop by a time, for its workers would wait."""
    if stop_by is not None and devices.cluster:
        raise ValueError("`stop_by` is not for a cluster: the other workers would wait for the one")
    if not isinstance(keep_at, Iterable) or isinstance(keep_at, str):
        raise TypeError(f"`keep_at` must be a tuple of fractions. Received: {keep_at!r}")
    return Moments(stop_by, tuple(keep_at))


def _number(name, value):
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number. Received: {value!r}")
    return value
