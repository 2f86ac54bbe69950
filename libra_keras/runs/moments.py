"""Moments of a run that its config does not name: when it stops, and when its weights are kept."""

import dataclasses
import math
import time
from collections.abc import Iterable
from numbers import Real

from libra_keras.runs.config import DeviceConfig


class TimeIsUp(Exception):
    """Raised in the fit of a run whose time has come, once it is saved; `train` returns then."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """When a run stops for want of time, and when its weights are kept.

    Attributes:
        stop_by: time, as `time.time()` gives it, or `None`.
        keep_at: fractions of the run, in (0, 1].

    Raises:
        TypeError: if one of them is no number.
        ValueError: if `stop_by` is NaN, or a fraction is out of range.

    Example:

    >>> from libra_keras.runs.moments import Moments
    >>> Moments(keep_at=(0.5, 5 / 6)).kept(steps=9)
    {5: ['kept-0.5.weights.h5'], 8: ['kept-0.833333.weights.h5']}
    """

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
        found = {}
        for fraction in sorted(self.keep_at):
            step = math.ceil(round(fraction * steps, 6))  # 0.7 * 10 is a little more than 7
            found.setdefault(step, []).append(f"kept-{fraction:g}.weights.h5")
        return found


def moments_of(devices: DeviceConfig, stop_by: float | None, keep_at: Iterable[float]) -> Moments:
    """Returns the moments of a run on the devices of its config.

    Args:
        devices: `DeviceConfig`.
        stop_by, keep_at: as of `Moments`.

    Raises:
        TypeError: as `Moments` does.
        ValueError: as `Moments` does; or if a cluster is to stop, whose workers would wait.

    Example:

    >>> from libra_keras.runs import DeviceConfig
    >>> from libra_keras.runs.moments import moments_of
    >>> moments_of(DeviceConfig(), stop_by=None, keep_at=[0.5]).keep_at
    (0.5,)
    """
    if stop_by is not None and devices.cluster:
        raise ValueError("`stop_by` is not for a cluster: the other workers would wait for the one")
    if not isinstance(keep_at, Iterable) or isinstance(keep_at, str):
        raise TypeError(f"`keep_at` must be a tuple of fractions. Received: {keep_at!r}")
    return Moments(stop_by, tuple(keep_at))


def _number(name, value):
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be a number. Received: {value!r}")
    return value
