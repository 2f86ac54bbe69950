"""Layers: what stands between a backbone and a detector's heads, each usable on its own."""

from libra_keras.layers.balanced_feature_pyramid import BalancedFeaturePyramid
from libra_keras.layers.feature_pyramid import FeaturePyramid, PathAggregationPyramid
from libra_keras.layers.image_normalization import ImageNormalization
from libra_keras.layers.multilevel_roi_align import MultilevelROIAlign
from libra_keras.layers.non_local_block import NonLocalBlock
from libra_keras.registration import register_classes

__all__ = [
    "BalancedFeaturePyramid",
    "FeaturePyramid",
    "ImageNormalization",
    "MultilevelROIAlign",
    "NonLocalBlock",
    "PathAggregationPyramid",
]

register_classes()
