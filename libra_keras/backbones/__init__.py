"""Backbones: networks that turn images into features of several resolutions."""

from libra_keras.backbones.adapter import BackboneAdapter
from libra_keras.backbones.conv_batch_norm import ConvBatchNorm
from libra_keras.backbones.resnet import ResNet
from libra_keras.registration import register_classes

__all__ = ["BackboneAdapter", "ConvBatchNorm", "ResNet"]

register_classes()
