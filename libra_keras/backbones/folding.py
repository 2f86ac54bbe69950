"""Convolutions whose batch normalisation was folded into them beforehand."""

import contextlib

_given = {}


@contextlib.contextmanager
def folded_into(values):
    """Within this context layers convolve with what was folded before, not with their weights.

    For export: a graph that is traced here holds neither statistics nor the arithmetic of folding.
    The switch is one for the whole process.

    Args:
        values: dict from `ConvBatchNorm` to what its `folded()` gave: kernel and bias, as tensors
            or variables.

    Example:

    >>> import numpy as np
    >>> from libra_keras.backbones import ConvBatchNorm
    >>> from libra_keras.backbones.folding import folded_into
    >>> layer, x = ConvBatchNorm(1), np.ones((1, 1, 1, 2), "float32")
    >>> layer.build(x.shape)
    >>> with folded_into({layer: (np.full((1, 1, 2, 1), 3.0), np.array([0.5]))}):
    ...     float(layer(x)[0, 0, 0, 0])
    6.5
    """
    own = {id(layer): pair for layer, pair in values.items()}
    _given.update(own)
    try:
        yield
    finally:
        for key in own:
            del _given[key]


def given(layer):
    """Returns the kernel and bias that a layer is to use, or `None` for its own.

    Example:

    >>> from libra_keras.backbones import ConvBatchNorm
    >>> from libra_keras.backbones.folding import folded_into, given
    >>> layer = ConvBatchNorm(1)
    >>> with folded_into({layer: ("kernel", "bias")}):
    ...     given(layer)
    ('kernel', 'bias')
    """
    return _given.get(id(layer))
