"""Schedules, optimizers and callbacks for training."""

from libra_keras.registration import register_classes
from libra_keras.training.callbacks import LearningRateLogger, StepLogger, learning_rate_at
from libra_keras.training.optimizers import SGD, AdamW
from libra_keras.training.schedules import WarmupMultiStep
from libra_keras.training.stop_nonfinite import StopOnNonFinite

__all__ = [
    "SGD",
    "AdamW",
    "LearningRateLogger",
    "StepLogger",
    "StopOnNonFinite",
    "WarmupMultiStep",
    "learning_rate_at",
]

register_classes()
