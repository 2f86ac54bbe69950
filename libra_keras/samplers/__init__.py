"""Samplers: which anchors or regions of interest a loss is computed on."""

from libra_keras.registration import register_classes
from libra_keras.samplers.box_matcher import SampledBoxMatcher, from_box_matcher
from libra_keras.samplers.combined_sampler import CombinedSampler
from libra_keras.samplers.instance_balanced_sampler import InstanceBalancedSampler
from libra_keras.samplers.iou_balanced_sampler import IoUBalancedSampler
from libra_keras.samplers.ohem_sampler import OHEMSampler
from libra_keras.samplers.random_sampler import RandomSampler

__all__ = [
    "CombinedSampler",
    "InstanceBalancedSampler",
    "IoUBalancedSampler",
    "OHEMSampler",
    "RandomSampler",
    "SampledBoxMatcher",
    "from_box_matcher",
]

register_classes()
