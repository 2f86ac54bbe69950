"""Feature pyramid networks: levels of equal width from the stages of a backbone."""

import itertools
from typing import Any

import keras
from keras import ops

from libra_keras.functional.resize import resize_nearest
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.layers.convolution import Conv2D
from libra_keras.layers.pyramids import BuiltFor, Pyramid, level_number, pack, place, unpack
from libra_keras.ranges import whole

MOST_LEVELS = 20  # the coarsest has strides of a million pixels
_EXTRA_LEVELS = ("max_pool", "on_input", "on_lateral", "on_output")


@keras.saving.register_keras_serializable(package="libra_keras")
class FeaturePyramid(ChannelsLast):
    """Turns the stages of a backbone into pyramid levels of equal width.

    A 1x1 convolution brings each stage to `channels`; from the coarsest down, each is enlarged
    (nearest neighbours) to the exact size of the next finer one and added to it; a 3x3
    convolution makes the output level. Sizes need not halve exactly. Convolutions have biases and
    Xavier-uniform initialisation, and neither normalisation nor activation.

    Args:
        channels: int, channels of every output level.
        num_levels: int, total number of output levels, at least one for each stage used.
        start_level: int, position of the finest stage to use (RetinaNet: 1 starts at C3).
        extra_levels: how the levels beyond the stages are made, each half the size (rounded up) of
            the one before. `"max_pool"`: every second pixel of the last output (Faster R-CNN).
            `"on_input"`, `"on_lateral"`, `"on_output"`: a 3x3 convolution of stride 2 on the
            coarsest stage (RetinaNet), its 1x1 convolution, or its output level; further levels are
            convolved from the one before.
        extra_relu: bool, whether a ReLU stands between two extra convolutions: P7 is then made from
            `relu(P6)`, and P6 itself is left as it is. Without effect for `"max_pool"`. Defaults to
            `False`.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        pyramid: dict `{"C2": ..., "C5": ...}` or list, finest first, of tensors
            `(B, H_l, W_l, C_l)`; H and W may be unknown.

    Returns:
        Dict `{"P2": ...}`, numbered like the stages, or a list, as the input was: `num_levels`
        tensors `(B, H_l, W_l, channels)`.

    Raises:
        ValueError: if an argument is out of range, there are more stages than levels, or the layer
            is called with stages whose number, names or channels differ from those it was built
            for.

    Example:

    >>> import numpy as np
    >>> from libra_keras.layers import FeaturePyramid
    >>> sizes = {"C3": (12, 20), "C4": (6, 10), "C5": (3, 5)}
    >>> stages = {name: np.zeros((1, *size, 32), "float32") for name, size in sizes.items()}
    >>> levels = FeaturePyramid(channels=16)(stages)
    >>> {name: tuple(level.shape[1:]) for name, level in levels.items()}["P6"]
    (2, 3, 16)

    Source: [Lin et al., 2017](https://arxiv.org/abs/1612.03144), section 3; extra levels of
    RetinaNet: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 4. The
    RetinaNet paper and torchvision have the ReLU between two extra levels, mmdetection does not.
    """

    def __init__(
        self,
        channels: int = 256,
        num_levels: int = 5,
        start_level: int = 0,
        extra_levels: str = "max_pool",
        extra_relu: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if extra_levels not in _EXTRA_LEVELS:
            raise ValueError(
                f"`extra_levels` must be one of {_EXTRA_LEVELS}. Received: {extra_levels!r}"
            )
        # XLA resizes nothing between sizes that it does not know; `jit_compile="auto"` reads this.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.channels = whole(1).check("`channels`", channels)
        self.num_levels = whole(1, MOST_LEVELS).check("`num_levels`", num_levels)
        self.start_level = whole(0).check("`start_level`", start_level)
        self.extra_levels = extra_levels
        self.extra_relu = extra_relu
        self._built_for: Any = None  # `BuiltFor`, once it is built

    def build(self, input_shape: Pyramid) -> None:
        super().build(input_shape)
        self._built_for = BuiltFor(input_shape, unused=self.start_level)
        stages = self._used(unpack(input_shape)[1])
        wide = (None, None, None, self.channels)
        used = range(len(stages))
        self.lateral_convs = [self._conv(1, f"lateral_conv_{i}", stages[i]) for i in used]
        self.output_convs = [self._conv(3, f"output_conv_{i}", wide) for i in used]
        num_extra = self.num_levels - len(stages) if self.extra_levels != "max_pool" else 0
        first = stages[-1] if self.extra_levels == "on_input" else wide
        self.extra_convs = [
            self._conv(3, f"extra_conv_{i}", wide if i else first, strides=2, padding="valid")
            for i in range(num_extra)
        ]

    def _conv(self, size, name, input_shape, **kwargs):
        conv = Conv2D(
            self.channels,
            size,
            name=name,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            data_format="channels_last",
            **{"padding": "same", **kwargs},
        )
        conv.build((None, None, None, input_shape[-1]))
        return conv

    def _used(self, levels):
        used = levels[self.start_level :]
        if not 0 < len(used) <= self.num_levels:
            raise ValueError(
                f"`start_level` must leave between 1 and num_levels={self.num_levels} stages. "
                f"Received: start_level={self.start_level} with {len(levels)} stages"
            )
        return used

    def _stages(self, pyramid):
        """The names of all levels, and those that are used, if they are what this was built for."""
        names, levels = self._built_for.unpack(pyramid)
        return names, self._used(levels)

    def call(self, pyramid: Pyramid) -> Pyramid:
        names, stages = self._stages(pyramid)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, stages, strict=True)]
        merged = _top_down(laterals)
        outputs = [conv(x) for conv, x in zip(self.output_convs, merged, strict=True)]
        outputs = self._with_extra_levels(stages, laterals, outputs)
        return pack(pyramid, self._output_names(names), outputs)

    def _with_extra_levels(self, stages, laterals, outputs):
        if self.extra_levels == "max_pool":
            while len(outputs) < self.num_levels:
                outputs.append(outputs[-1][:, ::2, ::2])
            return outputs
        source = {"on_input": stages, "on_lateral": laterals, "on_output": outputs}
        level = source[self.extra_levels][-1]
        for i, conv in enumerate(self.extra_convs):
            level = ops.relu(level) if i and self.extra_relu else level
            # Padding of one pixel on every side: "same" pads even sizes at the bottom right only.
            level = conv(ops.pad(level, ((0, 0), (1, 1), (1, 1), (0, 0))))
            outputs.append(level)
        return outputs

    def _output_names(self, names):
        if names is None:
            return None
        first = level_number(names[self.start_level])
        return [f"P{first + i}" for i in range(self.num_levels)]

    def compute_output_spec(self, pyramid: Pyramid) -> Any:
        if self._built_for is not None:
            self._stages(pyramid)
        return super().compute_output_spec(pyramid)

    def compute_output_shape(self, input_shape: Pyramid) -> Pyramid:
        names, levels = unpack(input_shape)
        shapes = [(*shape[:3], self.channels) for shape in self._used(levels)]
        while len(shapes) < self.num_levels:
            batch, *size, channels = shapes[-1]
            halves = [None if n is None else (n + 1) // 2 for n in size]
            shapes.append((batch, *halves, channels))
        return pack(input_shape, self._output_names(names), shapes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "num_levels": self.num_levels,
            "start_level": self.start_level,
            "extra_levels": self.extra_levels,
            "extra_relu": self.extra_relu,
        }


@keras.saving.register_keras_serializable(package="libra_keras")
class PathAggregationPyramid(FeaturePyramid):
    """Turns the stages of a backbone into pyramid levels that also get features of all finer ones.

    After the levels of a `FeaturePyramid`, before its extra ones: from the finest up, a 3x3
    convolution of stride 2 brings each level, already summed, to the size of the next coarser one
    and is added to it. Another 3x3 convolution makes the output levels; the finest level is left
    as it is. Convolutions have biases and Xavier-uniform initialisation, and neither normalisation
    nor activation. Sizes of stages must halve, rounded up, as those of backbones do.

    Followed by a `BalancedFeaturePyramid` it is the balanced PAFPN of Libra R-CNN's table 5.

    Args:
        channels, num_levels, start_level, extra_levels, extra_relu, data_format: see
            `FeaturePyramid`. With `"max_pool"` and `"on_output"`, extra levels are made from the
            coarsest output level of this layer.

    Call arguments:
        pyramid: dict `{"C2": ..., "C5": ...}` or list, finest first, of tensors
            `(B, H_l, W_l, C_l)`; H and W may be unknown.

    Returns:
        Dict `{"P2": ...}`, numbered like the stages, or a list, as the input was: `num_levels`
        tensors `(B, H_l, W_l, channels)`.

    Raises:
        ValueError: as in `FeaturePyramid`, or if the sizes of stages do not halve.

    Example:

    >>> import numpy as np
    >>> from libra_keras.layers import PathAggregationPyramid
    >>> sizes = {"C3": (12, 20), "C4": (6, 10), "C5": (3, 5)}
    >>> stages = {name: np.zeros((1, *size, 32), "float32") for name, size in sizes.items()}
    >>> levels = PathAggregationPyramid(channels=16, num_levels=4)(stages)
    >>> {name: tuple(level.shape[1:]) for name, level in levels.items()}["P6"]
    (2, 3, 16)

    Source: [Liu et al., 2018](https://arxiv.org/abs/1803.01534), section 3.1, as implemented in
    mmdetection's `PAFPN`: no ReLU follows the convolutions.
    """

    def build(self, input_shape: Pyramid) -> None:
        super().build(input_shape)
        wide = (None, None, None, self.channels)
        steps = range(len(self.lateral_convs) - 1)
        self.downsample_convs = [
            self._conv(3, f"downsample_conv_{i}", wide, strides=2, padding="valid") for i in steps
        ]
        self.aggregation_convs = [self._conv(3, f"aggregation_conv_{i}", wide) for i in steps]

    def _stages(self, pyramid):
        names, stages = super()._stages(pyramid)
        for i, (finer, coarser) in enumerate(itertools.pairwise(stages), self.start_level):
            for size, own in zip(finer.shape[1:3], coarser.shape[1:3], strict=True):
                # What is not known passes; a coarser level of 1 would be broadcast in silence.
                if isinstance(size, int) and isinstance(own, int) and own != -(-size // 2):
                    raise ValueError(
                        f"`{place(names, i + 1)}` must have half the height and width of "
                        f"`{place(names, i)}`, rounded up. Received: shape="
                        f"{tuple(coarser.shape)} after {tuple(finer.shape)}"
                    )
        return names, stages

    def _with_extra_levels(self, stages, laterals, outputs):
        return super()._with_extra_levels(stages, laterals, self._bottom_up(outputs))

    def _bottom_up(self, levels):
        """Adds to each level the reduced, already summed, next finer one; then convolves it."""
        merged = levels[:1]
        for conv, coarser in zip(self.downsample_convs, levels[1:], strict=True):
            # Padding of one pixel on every side: "same" pads even sizes at the bottom right only.
            finer = ops.pad(merged[-1], ((0, 0), (1, 1), (1, 1), (0, 0)))
            merged.append(coarser + conv(finer))
        pairs = zip(self.aggregation_convs, merged[1:], strict=True)
        return [merged[0], *(conv(level) for conv, level in pairs)]


def _top_down(laterals):
    """Adds to each level the enlarged, already summed, next coarser one."""
    merged = [laterals[-1]]
    for finer in reversed(laterals[:-1]):
        merged.append(finer + resize_nearest(merged[-1], ops.shape(finer)[1:3]))
    return merged[::-1]
