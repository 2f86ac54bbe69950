"""Which axis holds the channels: the last one, whatever Keras' setting is."""

import keras


class ChannelsLast(keras.layers.Layer):
    """Base of the layers that take images or feature maps `(B, H, W, C)`, and no others.

    Under Keras' setting `channels_first` feature maps are `(B, C, H, W)` unless somebody says
    otherwise. A layer of ours would take their width for channels, often without any error. So it
    refuses to be built there before it is told that its inputs have channels last.

    Args:
        data_format: `"channels_last"`, or `None` for Keras' setting at this moment,
            `keras.config.image_data_format()`. A layer inside another one, or inside a detector,
            is told by that. Defaults to `None`.
        **kwargs: as of `keras.layers.Layer`.

    Raises:
        ValueError: if `data_format` is something else, or it is `None`, Keras' setting is
            `"channels_first"`, and the layer is built.

    Example:

    >>> from libra_keras.layers import NonLocalBlock
    >>> from libra_keras.layers.channels_last import ChannelsLast
    >>> isinstance(NonLocalBlock(), ChannelsLast)
    True
    >>> NonLocalBlock(data_format="channels_last").get_config()["data_format"]
    'channels_last'
    """

    def __init__(self, *, data_format=None, **kwargs):
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
                'have channels last, say so with `data_format="channels_last"`; if not, transpose '
                "them."
            )
        keep_channels_last(self)

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format}

    @classmethod
    def from_config(cls, config):
        # Files that are older than the argument hold layers that had channels last in any case.
        return super().from_config({"data_format": "channels_last", **config})


def keep_channels_last(layer):
    """Tells a layer and all layers in it that their inputs have channels last.

    Example:

    >>> from libra_keras.layers import NonLocalBlock
    >>> from libra_keras.layers.channels_last import keep_channels_last
    >>> block = NonLocalBlock()
    >>> keep_channels_last(block)
    >>> block.data_format
    'channels_last'
    """
    for part in layer._flatten_layers():
        if isinstance(part, ChannelsLast):
            part.data_format = "channels_last"
