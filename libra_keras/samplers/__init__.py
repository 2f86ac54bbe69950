"""Samplers: which anchors or regions of interest a loss is computed on."""

from libra_keras.registration import register_classes
from libra_keras.samplers.balanced_samplers import (
    CombinedSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
)
from libra_keras.samplers.box_matcher import SampledBoxMatcher, from_box_matcher
from libra_keras.samplers.ohem_sampler import OHEMSampler
from libra_keras.samplers.sampler import RandomSampler, Sampler

__all__ = [
    "CombinedSampler",
    "InstanceBalancedSampler",
    "IoUBalancedSampler",
    "OHEMSampler",
    "RandomSampler",
    "SampledBoxMatcher",
    "Sampler",
    "from_box_matcher",
]

register_classes()
