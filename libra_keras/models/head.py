"""What heads share: a box loss with its weight, their parts in a config, convolutions, anchors."""

from typing import Any, Self

import keras
from keras import ops

from libra_keras.functional.anchors import pyramid_anchors
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.layers.convolution import Conv2D
from libra_keras.losses import SmoothL1Loss
from libra_keras.models.settings import check_kind, live_parts
from libra_keras.ranges import NOT_NEGATIVE


def check_loss(name, loss):
    """Returns a loss; raises if it is none."""
    if not hasattr(loss, "call"):
        raise TypeError(f"`{name}` must be a keras.losses.Loss. Received: {loss!r:.80}")
    return loss


class Head(ChannelsLast):
    """Base of the heads."""

    PARTS: tuple[str, ...] = ()  # arguments of the constructor that are objects
    SETTINGS: type = object

    def __init__(self, settings, box_loss, box_loss_weight, **kwargs):
        super().__init__(**kwargs)
        self.settings = self.SETTINGS() if settings is None else settings
        check_kind("settings", self.settings, self.SETTINGS)
        self.box_loss = check_loss("box_loss", box_loss or SmoothL1Loss(beta=0.0))
        self.box_loss_weight = float(NOT_NEGATIVE.check("`box_loss_weight`", box_loss_weight))

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{part: serialize(getattr(self, part)) for part in self.PARTS},
            "box_loss_weight": self.box_loss_weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config({**config, **live_parts(config, cls.PARTS)})


class AnchorHead(Head):
    """Base of the heads that answer for every anchor."""

    def _conv(self, filters, kernel_size, **options):
        return Conv2D(
            filters,
            kernel_size,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            data_format="channels_last",
            trainable=self.trainable,
            dtype=self.dtype_policy,
            **options,
        )

    def _anchors(self, pyramid):
        sizes = [ops.shape(level)[1:3] for level in pyramid]
        settings = self.settings
        return pyramid_anchors(
            sizes, settings.strides, settings.scales, settings.ratios, settings.geometry
        )
