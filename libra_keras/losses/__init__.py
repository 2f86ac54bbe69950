"""Losses: one pure function and one Keras loss each."""

from libra_keras.losses.balanced_l1 import BalancedL1Loss, balanced_l1
from libra_keras.losses.focal import FocalLoss, focal
from libra_keras.losses.smooth_l1 import SmoothL1Loss, smooth_l1
from libra_keras.registration import register_classes

__all__ = ["BalancedL1Loss", "FocalLoss", "SmoothL1Loss", "balanced_l1", "focal", "smooth_l1"]

register_classes()
