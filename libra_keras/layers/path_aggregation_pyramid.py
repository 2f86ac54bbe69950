"""Path aggregation: a feature pyramid with a second way, from the finest level back up."""

import itertools

import keras
from keras import ops

from libra_keras.layers.feature_pyramid import FeaturePyramid
from libra_keras.layers.pyramids import place


@keras.saving.register_keras_serializable(package="libra_keras")
class PathAggregationPyramid(FeaturePyramid):
    """Turns the stages of a backbone into pyramid levels that also hear from all finer ones.

    After the levels of a `FeaturePyramid`, before its extra ones: from the finest up, a 3x3
    convolution of stride 2 brings each level, already summed, to the size of the next coarser one
    and is added to it. Another 3x3 convolution makes the output levels; the finest level is left
    as it is. Convolutions have biases, Xavier-uniform start, and neither normalisation nor
    activation. Sizes of stages must halve, rounded up, as those of backbones do.

    Followed by a `BalancedFeaturePyramid` it is the balanced PAFPN of Libra R-CNN's table 5.

    Args:
        channels, num_levels, start_level, extra_levels, extra_relu, data_format: as of
            `FeaturePyramid`. Extra levels by `"max_pool"` and `"on_output"` are made from the
            coarsest level that comes out here.

    Call arguments:
        pyramid: dict `{"C2": ..., "C5": ...}` or list, finest first, of tensors
            `(B, H_l, W_l, C_l)`; H and W may be unknown.

    Returns:
        Dict `{"P2": ...}`, numbered like the stages, or a list, as the input was: `num_levels`
        tensors `(B, H_l, W_l, channels)`.

    Raises:
        ValueError: as `FeaturePyramid`, or if the sizes of stages do not halve.

    Example:

    >>> import numpy as np
    >>> from libra_keras.layers import PathAggregationPyramid
    >>> sizes = {"C3": (12, 20), "C4": (6, 10), "C5": (3, 5)}
    >>> stages = {name: np.zeros((1, *size, 32), "float32") for name, size in sizes.items()}
    >>> levels = PathAggregationPyramid(channels=16, num_levels=4)(stages)
    >>> {name: tuple(level.shape[1:]) for name, level in levels.items()}["P6"]
    (2, 3, 16)

    Source: [Liu et al., 2018](https://arxiv.org/abs/1803.01534), section 3.1, as mmdetection's
    `PAFPN` has it: no ReLU follows the convolutions.
    """

    def build(self, input_shape):
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
