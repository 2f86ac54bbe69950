"""Which axis holds the channels: the last one, whatever Keras' setting is."""

from typing import Any, Self

import keras

from libra_keras.keras_private import layers_in


class ChannelsLast(keras.layers.Layer):
    """Base of layers of `(B, H, W, C)`: under Keras' setting `channels_first` they need
    `data_format`."""

    # Feature maps are `(B, C, H, W)` there, and a layer would take their width for channels, often
    # without any error.

    def __init__(self, *, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if data_format not in (None, "channels_last"):
            raise ValueError(
                '`data_format` must be "channels_last", the only one that is supported, or None. '
                f"Received: data_format={data_format!r}"
            )
        self.data_format = data_format or keras.config.image_data_format()

    def build(self, *_):
        if self.data_format != "channels_last":
            raise ValueError(
                f"{type(self).__name__} '{self.name}' takes (B, H, W, C), but Keras' setting "
                f"`image_data_format` was {self.data_format!r} when it was made. If its inputs "
                'are channels-last, pass `data_format="channels_last"`; if not, transpose them.'
            )
        keep_channels_last(self)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # Files that are older than the argument hold layers that had channels last in any case.
        return super().from_config({"data_format": "channels_last", **config})


def keep_channels_last(layer):
    """Tells a layer and all layers in it that their inputs have channels last."""
    for part in layers_in(layer):
        if isinstance(part, ChannelsLast):
            part.data_format = "channels_last"
