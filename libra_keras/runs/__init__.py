"""A training run as a value, `TrainConfig`, and as an object, `Run`.

Importing it is cheap: configs do not require Keras, which `train` and `open` import when used.
"""

import importlib
from typing import TYPE_CHECKING

from libra_keras.runs.config import (
    DataConfig,
    DeviceConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from libra_keras.runs.defaults import resolve

if TYPE_CHECKING:
    from libra_keras.runs.fitting import NonFiniteLoss
    from libra_keras.runs.run import Run
    from libra_keras.runs.run import open_run as open
    from libra_keras.runs.stopping import Stopped
    from libra_keras.runs.training import train

_LATER = {
    "NonFiniteLoss": ("fitting", "NonFiniteLoss"),
    "Run": ("run", "Run"),
    "Stopped": ("stopping", "Stopped"),
    "open": ("run", "open_run"),
    "train": ("training", "train"),
}
__all__ = [
    "DataConfig",
    "DeviceConfig",
    "ModelConfig",
    "NonFiniteLoss",
    "OptimizerConfig",
    "Run",
    "RunConfig",
    "ScheduleConfig",
    "Stopped",
    "TrainConfig",
    "open",
    "resolve",
    "train",
]


def __getattr__(name):
    if name in _LATER:
        module, attribute = _LATER[name]
        return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
