"""Residual networks with the numerics of torch, made for detectors."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from libra_keras.backbones.conv_batch_norm import (
    BATCH_NORMS,
    EPSILON,
    ConvBatchNorm,
    check_epsilon,
    divide_up,
)
from libra_keras.files.weights import load_weights
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.keras_private import imagenet_file
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.ranges import whole
from libra_keras.typing import Tensor

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BLOCKS[152] = (3, 8, 36, 3)
STYLES = ("pytorch", "caffe")
NETWORKS = {50: "ResNet50", 101: "ResNet101", 152: "ResNet152"}  # of keras.applications
LARGEST_BIAS = 1e-3


@keras.saving.register_keras_serializable(package="libra_keras")
class ResNet(ChannelsLast):
    """Turns images into features of four resolutions with a residual network.

    Depths 18 and 34 have blocks of two 3x3 convolutions, the others bottlenecks. The defaults suit
    a detector that is fine-tuned with few images at a time: batch normalisation uses moving
    statistics, and the stem and the first stage do not train.

    With `groups` the network is a ResNeXt: `ResNet(101, groups=64, base_width=4)` is
    ResNeXt-101-64x4d, `ResNet(50, groups=32, base_width=4)` is ResNeXt-50-32x4d.

    Args:
        depth: int, 18, 34, 50, 101 or 152. Defaults to 50.
        width: int, channels of the first stage; later stages double them. Defaults to 64.
        style: `"pytorch"` (the stride is in the 3x3 convolution of a bottleneck) or `"caffe"` (in
            its first 1x1 convolution, as in the paper). Weights fit only one of the two. Without
            effect for depths 18 and 34. Defaults to `"pytorch"`.
        batch_norm: `"frozen"` (moving statistics, always, and they never change), `"trainable"`
            or `"synchronized"` (statistics of the batch while training, of one or of all
            replicas). Frozen stages stay `"frozen"`. Defaults to `"frozen"`.
        train_affine: bool, whether scales and offsets of batch normalisation train, outside frozen
            stages. Defaults to `True`.
        frozen_stages: int, -1 (all trains), 0 (the stem does not), or 1..4 (nor do that many
            stages). Defaults to 1.
        weights: `None` (random), `"imagenet"` (downloaded once, or taken from where
            `LIBRA_KERAS_WEIGHTS` points), or the path of weights of
            `keras.applications.ResNet50/101/152(include_top=False)`; the latter two require
            `style="caffe"` and BGR images minus the mean. They are read once, when the layer is
            built. A saved model contains its weights, so `get_config` has `None` here.
        groups: int, number of groups of channels that the 3x3 convolution of a bottleneck is split
            into; 1 is a plain ResNet. Defaults to 1.
        base_width: int, channels of each group in the first stage, whatever `width` is; later
            stages double them. Without effect if `groups` is 1. Defaults to 4.
        epsilon: float, added to variances in batch normalisation. It belongs to the weights: 1e-5
            for torch's, 0 for torchvision's published detectors. Defaults to 1e-5.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        images: `(B, H, W, 3)`, normalised as the weights expect. H and W may be unknown.
        training: bool, whether batch statistics are used where `batch_norm` says so.

    Returns:
        Dict of `"C2"`..`"C5"`, `(B, ceil(H / s), ceil(W / s), C)` with strides s = 4, 8, 16, 32 and
        C = `width` * (1, 2, 4, 8), four times that with bottlenecks.

    Raises:
        ValueError: if an argument is none of the above, `weights` do not fit the network, or the
            images are not floats or have a different number of channels than it was built for.

    Example:

    >>> import numpy as np
    >>> from libra_keras.backbones import ResNet
    >>> features = ResNet(depth=18, width=8)(np.zeros((1, 75, 101, 3), "float32"))
    >>> {name: tuple(level.shape) for name, level in features.items()}
    {'C2': (1, 19, 26, 8), 'C3': (1, 10, 13, 16), 'C4': (1, 5, 7, 32), 'C5': (1, 3, 4, 64)}

    Reference: [He et al., 2016](https://arxiv.org/abs/1512.03385), table 1;
    [Xie et al., 2017](https://arxiv.org/abs/1611.05431), table 1. Numerics are those of
    mmdetection's `ResNet` and `ResNeXt`: symmetric padding, convolutions without bias.
    """

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        style: str = "pytorch",
        batch_norm: str = "frozen",
        train_affine: bool = True,
        frozen_stages: int = 1,
        weights: str | os.PathLike[str] | None = None,
        groups: int = 1,
        base_width: int = 4,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("depth", depth, tuple(BLOCKS))
        check_choice("style", style, STYLES)
        check_choice("batch_norm", batch_norm, BATCH_NORMS)
        check_choice("frozen_stages", frozen_stages, (-1, 0, 1, 2, 3, 4))
        check_epsilon(epsilon)
        width, groups, base_width = (
            whole(1).check(f"`{name}`", value)
            for name, value in (("width", width), ("groups", groups), ("base_width", base_width))
        )
        if weights is not None and (style, width, groups) != ("caffe", 64, 1):
            raise ValueError(
                '`weights` of keras.applications require `style="caffe"`, `width=64` and no '
                f"`groups`. Received: style={style!r}, width={width}, groups={groups}"
            )
        if groups > 1 and depth < 50:
            raise ValueError(
                "`groups` require bottlenecks, that is a depth of at least 50. "
                f"Received: groups={groups}, depth={depth}"
            )
        self.depth = depth
        self.width = width
        self.style = style
        self.batch_norm = batch_norm
        self.train_affine = train_affine
        self.frozen_stages = frozen_stages
        self.groups = groups
        self.base_width = base_width
        self.epsilon = epsilon
        self.initial_weights = weights  # Keras has its own property `weights`
        self.stem = self._conv(0, "stem", width, kernel_size=7, strides=2)
        self.blocks = [
            self._block(stage, index)
            for stage, num in enumerate(BLOCKS[depth], start=1)
            for index in range(num)
        ]

    def _conv(self, stage, name, filters, **kwargs):
        frozen = stage <= self.frozen_stages
        return ConvBatchNorm(
            filters,
            batch_norm="frozen" if frozen else self.batch_norm,
            train_kernel=not frozen,
            train_affine=self.train_affine and not frozen,
            epsilon=self.epsilon,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=name,
            **kwargs,
        )

    def _block(self, stage, index):
        width = self.width * 2 ** (stage - 1)
        stride = 2 if stage > 1 and index == 0 else 1
        if self.depth < 50:
            plan = [(3, width, stride), (3, width, 1)]  # kernel size, filters, stride
        else:
            strides = (1, stride) if self.style == "pytorch" else (stride, 1)
            inner = self._inner_width(width)
            plan = [(1, inner, strides[0]), (3, inner, strides[1]), (1, 4 * width, 1)]
        filters = plan[-1][1]
        convs = [
            self._conv(
                stage,
                f"conv{i}",
                channels,
                kernel_size=size,
                strides=step,
                relu=i < len(plan),  # the last ReLU comes after the addition
                groups=self.groups if size == 3 else 1,
            )
            for i, (size, channels, step) in enumerate(plan, start=1)
        ]
        downsample = None
        if index == 0 and (stage > 1 or filters != self.width):
            downsample = self._conv(stage, "downsample", filters, strides=stride, relu=False)
        name = f"stage{stage}_block{index}"
        own = {"trainable": self.trainable, "dtype": self.dtype_policy, "name": name}
        return ResidualBlock(convs, downsample, **own)

    def _inner_width(self, width):
        """Channels of the 3x3 convolution of a bottleneck in a stage of this width."""
        return width if self.groups == 1 else width * self.base_width // self.width * self.groups

    @property
    def stages(self) -> list[list[keras.layers.Layer]]:
        """List of the four stages, each a list of blocks."""
        return [
            [block for block in self.blocks if block.name.startswith(f"stage{stage}_")]
            for stage in range(1, 5)
        ]

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        if len(input_shape) != 4:
            raise ValueError(f"Images must be (B, H, W, C). Received: shape={input_shape}")
        axes = {-1: input_shape[-1]}
        self.input_spec = keras.layers.InputSpec(ndim=4, axes=axes, name="images")
        if self.initial_weights is not None:
            self._set_initial_values(imagenet_values(self.initial_weights, self.depth))
        self.stem.build(input_shape)
        shape = (None, None, None, self.width)
        for block in self.blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)

    def _set_initial_values(self, values):
        self.stem.initial_values = values(0, 0, 1)
        for stage, blocks in enumerate(self.stages, start=1):
            for index, block in enumerate(blocks):
                for number, conv in enumerate(block.convs, start=1):
                    conv.initial_values = values(stage, index, number)
                if block.downsample is not None:
                    block.downsample.initial_values = values(stage, index, 0)

    def call(self, images: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        check_arguments({"images float": images})
        x = self.stem(images, training=training)
        # Zeros may stand for the reference's -inf here: nothing after ReLU is smaller.
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = ops.max_pool(x, 3, 2, "valid", data_format="channels_last")
        features = {}
        for stage, blocks in enumerate(self.stages, start=1):
            # Also cuts the gradient with respect to the images, which detectors do not need.
            x = ops.stop_gradient(x) if stage == self.frozen_stages + 1 else x
            for block in blocks:
                x = block(x, training=training)
            features[f"C{stage + 1}"] = x
        return features

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> dict[str, tuple[int | None, ...]]:
        batch, height, width, _ = input_shape
        return {
            f"C{stage + 1}": (
                batch,
                divide_up(height, 2 ** (stage + 1)),
                divide_up(width, 2 ** (stage + 1)),
                blocks[-1].convs[-1].filters,
            )
            for stage, blocks in enumerate(self.stages, start=1)
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth": self.depth,
            "width": self.width,
            "style": self.style,
            "batch_norm": self.batch_norm,
            "train_affine": self.train_affine,
            "frozen_stages": self.frozen_stages,
            "weights": None,  # else loading a saved model would need the file again
            "groups": self.groups,
            "base_width": self.base_width,
            "epsilon": self.epsilon,
        }


class ResidualBlock(keras.layers.Layer):
    """Adds the output of some `ConvBatchNorm`, the last without ReLU, to their input; then ReLU."""

    def __init__(self, convs, downsample=None, **kwargs):
        super().__init__(**kwargs)
        self.convs = convs
        self.downsample = downsample

    def build(self, input_shape):
        if self.downsample is not None:
            self.downsample.build(input_shape)
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = conv.compute_output_shape(input_shape)

    def call(self, x, training=None):
        shortcut = x if self.downsample is None else self.downsample(x, training=training)
        for conv in self.convs:
            x = conv(x, training=training)
        return ops.relu(x + shortcut)

    def compute_output_shape(self, input_shape):
        for conv in self.convs:
            input_shape = conv.compute_output_shape(input_shape)
        return input_shape


def check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")


def imagenet_values(weights, depth):
    """Reads weights of `keras.applications`: a function of (stage, block, conv) to arrays."""
    # `(0, 0, 1)` is the stem; stages count from 1, blocks from 0, convolutions of a block from 1,
    # and convolution 0 is its shortcut. Biases, which are zero up to rounding, are dropped; the
    # epsilon of 1.001e-5 becomes ours, which changes nothing measurable.
    if depth not in NETWORKS:
        raise ValueError(
            f"ImageNet weights exist for depths {tuple(NETWORKS)}. Received: depth={depth}"
        )
    if weights != "imagenet" and not os.path.exists(weights):
        raise ValueError(
            '`weights` must be `None`, "imagenet" or the path of an existing file. '
            f"Received: weights={str(weights)!r}"
        )
    network = load(weights, NETWORKS[depth])

    def values(stage, block, conv):
        prefix = f"conv{stage + 1}_block{block + 1}_{conv}" if stage else "conv1"
        kernel, bias = network.get_layer(f"{prefix}_conv").get_weights()
        warn_of_bias(bias, f"{prefix}_conv")
        gamma, beta, mean, variance = network.get_layer(f"{prefix}_bn").get_weights()
        return {
            "kernel": kernel,
            "gamma": gamma,
            "beta": beta,
            "moving_mean": mean,
            "moving_variance": variance,
        }

    return values


def load(weights, name):
    """Builds the network of `keras.applications` called `name` with these weights."""
    weights = _imagenet_file(name) if weights == "imagenet" else os.fspath(weights)
    network = getattr(keras.applications, name)(False, weights=None, input_shape=(None, None, 3))
    try:
        load_weights(network, weights)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"`weights` must fit keras.applications.{name}(include_top=False): {error}"
        ) from error
    return network


def _imagenet_file(name):
    """The file that `keras.applications` would download, in the folder where it would be."""
    from libra_keras.files import downloads

    address, md5 = imagenet_file(name)
    file = downloads.PublishedFile(address, md5, "md5")
    return os.fspath(downloads.fetch(file, downloads.keras_home() / "models"))


def warn_of_bias(bias, name):
    largest = float(np.abs(bias).max())
    if largest > LARGEST_BIAS:
        warnings.warn(
            f"The bias of {name} is dropped although it reaches {largest:.3g}; "
            "these weights do not give the outputs of their network.",
            stacklevel=2,
        )
