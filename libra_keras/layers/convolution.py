"""Keras' convolution, faster with one image on CPUs."""

import keras
from keras import ops

from libra_keras.functional import native
from libra_keras.typing import Tensor


# Keras' own name: files of weights call the layers of a list by their class.
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, which outside training computes wide kernels in parts.

    See `native.by_filters`. Channels must be last.

    Example:

    >>> from keras import ops
    >>> from libra_keras.layers.convolution import Conv2D
    >>> tuple(Conv2D(256, 3)(ops.ones((1, 8, 8, 4))).shape)
    (1, 6, 6, 256)
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if training or self.groups > 1 or not self.use_bias:
            return super().call(inputs)

        def convolve(kernel, bias):
            return self.activation(native.add_bias(self.convolution_op(inputs, kernel), bias))

        kernel, bias = (ops.convert_to_tensor(x) for x in (self.kernel, self.bias))
        return native.by_filters(convolve, inputs, kernel, bias)
