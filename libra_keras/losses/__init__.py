"""Losses: one pure function and one Keras loss each."""

from libra_keras.losses.box_losses import BalancedL1Loss, SmoothL1Loss, balanced_l1, smooth_l1
from libra_keras.losses.focal import FocalLoss, focal
from libra_keras.registration import register_classes

__all__ = ["BalancedL1Loss", "FocalLoss", "SmoothL1Loss", "balanced_l1", "focal", "smooth_l1"]

register_classes()
