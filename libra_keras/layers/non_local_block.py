"""Non-local block: every position of a feature map sees every other one."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.attention import attend, weights
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.ranges import whole
from libra_keras.typing import Tensor

_FORMS = {  # of the weights, by mode
    "embedded_gaussian": "softmax",
    "gaussian": "softmax",
    "dot_product": "product",
    "concatenation": "relu",
}
_MODES = tuple(_FORMS)
_STARTS = ("zeros", "xavier")


@keras.saving.register_keras_serializable(package="libra_keras")
class NonLocalBlock(ChannelsLast):
    """Adds to every position a weighted mean over all positions: `x + conv_out(weights @ g(x))`.

    `theta`, `phi`, `g` (from C channels to `C // reduction`) and `conv_out` (back to C) are 1x1
    convolutions with biases. Weights, softmax and both matrix products are float32, also under
    mixed precision. Positions of padded image borders take part like any other. Above 5,792
    positions, or as `block` says, the weights are made in blocks, and made again for the gradient;
    all at once they would take `4 * B * (H * W) ** 2` bytes.

    Args:
        reduction: int >= 1, C over the number of inner channels (at least one is kept).
        mode: how position i weighs position j. `"embedded_gaussian"`: softmax over j of
            `theta_i . phi_j`. `"gaussian"`: softmax of `x_i . x_j`. `"dot_product"`:
            `theta_i . phi_j / number of j`. `"concatenation"`:
            `relu(w . [theta_i, phi_j]) / number of j` with a learned w.
        use_scale: bool, whether `"embedded_gaussian"` divides the products by the square root of
            the inner channels. It has no effect in the other modes.
        sub_sample: bool, whether positions j are 2x2 max-pooled first (H and W at least 2).
        start: `"zeros"`: `conv_out` is 0, so that an untrained block returns its input; the
            others are normal with deviation 0.01. `"xavier"`: all are Xavier-uniform, as in the
            paper's models; biases are 0.
        block: int >= 1, at most how many positions i are weighed at once. Defaults to all of them
            up to 2 ** 25 pairs of positions i and j (H * W up to 5,792, or 11,585 with
            `sub_sample`), else to as many as make 2 ** 24 pairs, 64 MiB an image. It has no effect
            in the mode `"dot_product"`, which makes no weights, and in exports to ONNX, OpenVINO
            and LiteRT, which weigh all at once.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        x: tensor `(B, H, W, C)`; H and W may be unknown.

    Returns:
        Tensor of the shape of `x`.

    Raises:
        ValueError: if an argument is out of range, `x` does not have four axes and a known C, or
            the layer is called with a different number of channels than it was built for, or with
            non-floats.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from libra_keras.layers import NonLocalBlock
    >>> x = np.random.default_rng(0).normal(size=(1, 4, 6, 8)).astype("float32")
    >>> bool(np.all(ops.convert_to_numpy(NonLocalBlock()(x)) == x))
    True

    Source: [Wang et al., 2018](https://arxiv.org/abs/1711.07971), sections 3.2 and 3.3. The
    blocks of Libra R-CNN have `reduction=1, use_scale=False`.
    """

    def __init__(
        self,
        reduction: int = 2,
        mode: str = "embedded_gaussian",
        use_scale: bool = True,
        sub_sample: bool = False,
        start: str = "zeros",
        block: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mode not in _MODES:
            raise ValueError(f"`mode` must be one of {_MODES}. Received: mode={mode!r}")
        if start not in _STARTS:
            raise ValueError(f"`start` must be one of {_STARTS}. Received: start={start!r}")
        self.reduction = whole(1).check("`reduction`", reduction)
        self.mode = mode
        self.use_scale = use_scale
        self.sub_sample = sub_sample
        self.start = start
        self.block = None if block is None else whole(1).check("`block`", block)

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "`x` must have shape (B, H, W, C) with a known C. "
                f"Received: shape={tuple(input_shape)}"
            )
        channels = input_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels}, name="x")
        inner = max(channels // self.reduction, 1)
        # One for each: an initializer gives the same numbers whenever it is called.
        small = functools.partial(keras.initializers.RandomNormal, stddev=0.01)
        self.g = self._conv("g", channels, inner, small())
        if self.mode != "gaussian":
            self.theta = self._conv("theta", channels, inner, small())
            self.phi = self._conv("phi", channels, inner, small())
        if self.mode == "concatenation":
            he = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
            self.concat_project = self._conv("concat_project", 2 * inner, 1, he, use_bias=False)
        self.conv_out = self._conv("conv_out", inner, channels, "zeros")

    def _conv(self, name, inputs, outputs, initializer, use_bias=True):
        conv = keras.layers.Conv2D(
            outputs,
            1,
            use_bias=use_bias,
            kernel_initializer=initializer if self.start == "zeros" else "glorot_uniform",
            data_format="channels_last",
            name=name,
            trainable=self.trainable,
            dtype=self.dtype_policy,
        )
        conv.build((None, None, None, inputs))
        return conv

    def call(self, x: Tensor) -> Tensor:
        check_arguments({"x float": x})
        values = _positions(self._pooled(self.g(x)))
        queries, keys = self._queries_and_keys(x)
        mixed = attend(queries, keys, values, _FORMS[self.mode], self.block)
        mixed = ops.reshape(mixed, (*ops.shape(x)[:3], values.shape[-1]))
        return x + self.conv_out(ops.cast(mixed, self.compute_dtype))

    def attention(self, x: Tensor) -> Tensor:
        """Returns the weights `(B, H * W, positions j)` of a built block, in float32.

        Args:
            x: tensor `(B, H, W, C)`. Positions are row by row; those of j are `H * W`, or
                `(H // 2) * (W // 2)` with `sub_sample`.
        """
        queries, keys = self._queries_and_keys(x)
        return weights(queries, keys, _FORMS[self.mode])

    def _queries_and_keys(self, x):
        """What the weights are made of, `(B, positions, channels)`."""
        if self.mode == "gaussian":
            return _positions(x), _positions(self._pooled(x))
        theta, phi = _positions(self.theta(x)), _positions(self._pooled(self.phi(x)))
        inner = theta.shape[-1]
        if self.mode == "concatenation":  # a weighted sum over both halves is two sums
            kernel = ops.cast(self.concat_project.kernel[0, 0], "float32")  # (2 * inner, 1)
            return ops.matmul(theta, kernel[:inner]), ops.matmul(phi, kernel[inner:])
        if self.mode == "embedded_gaussian" and self.use_scale:
            theta = theta * inner**-0.5
        return theta, phi

    def _pooled(self, x):
        if not self.sub_sample:
            return x
        return ops.max_pool(x, 2, 2, padding="valid", data_format="channels_last")

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "reduction": self.reduction,
            "mode": self.mode,
            "use_scale": self.use_scale,
            "sub_sample": self.sub_sample,
            "start": self.start,
            "block": self.block,
        }


def _positions(x):
    """(B, H, W, C) -> (B, H * W, C), in float32: what follows sums over many positions."""
    batch, height, width, _ = ops.shape(x)
    return ops.cast(ops.reshape(x, (batch, height * width, x.shape[-1])), "float32")
