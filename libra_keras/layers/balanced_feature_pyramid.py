"""Balanced feature pyramid: give every level the same, averaged semantics."""

from typing import Any, Self

import keras
from keras import ops

from libra_keras.functional.resize import adaptive_max_pool, resize_nearest
from libra_keras.layers.channels_last import ChannelsLast, keep_channels_last
from libra_keras.layers.convolution import Conv2D
from libra_keras.layers.non_local_block import NonLocalBlock
from libra_keras.layers.pyramids import BuiltFor, Pyramid, pack, unpack
from libra_keras.ranges import whole

_REFINERS = ("conv", "non_local")


@keras.saving.register_keras_serializable(package="libra_keras")
class BalancedFeaturePyramid(ChannelsLast):
    """Adds to each pyramid level a refined average of all levels.

    A plain feature pyramid lets a level see mostly its neighbours. Here all levels are brought
    to the size of one of them (finer ones by adaptive max pooling, coarser ones by nearest
    neighbours), averaged, optionally refined, brought back to their own sizes in the same two
    ways, and added to the input. Sizes need not halve exactly.

    Args:
        refine_level: int, position (finest = 0) of the level whose size is used for averaging.
            Defaults to 2, the middle of P2..P6; the paper's RetinaNet uses 1 of P3..P7: both P4.
        refiner: what refines the average. `None`: nothing. `"conv"`: a 3x3 convolution with
            ReLU. `"non_local"`: `NonLocalBlock(reduction=1, use_scale=False)`, the paper's
            choice; to start it as the published models did, pass
            `NonLocalBlock(reduction=1, use_scale=False, start="xavier")`. Or any
            `keras.layers.Layer` that keeps the shape of its input.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        pyramid: dict `{"P2": ..., "P6": ...}` or list, finest first, of tensors
            `(B, H_l, W_l, C)`; H and W may be unknown.

    Returns:
        The same structure, keys and shapes.

    Raises:
        ValueError: if the levels' channels differ, `refine_level` is not a level, the refiner is
            unknown, has channels first or changes the number of channels, or the layer is called
            with levels whose number, names or channels differ from those it was built for.

    Example: without a refiner, a constant pyramid doubles.

    >>> import numpy as np
    >>> from libra_keras.layers import BalancedFeaturePyramid
    >>> levels = [np.ones((1, size, size, 4), "float32") for size in (13, 7, 4)]
    >>> balanced = BalancedFeaturePyramid(refine_level=1)(levels)
    >>> [(level.shape[1], float(level[0, 0, 0, 0])) for level in balanced]
    [(13, 2.0), (7, 2.0), (4, 2.0)]

    Source: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), section 3.2. As in the
    authors' code, and unlike the text, *all* levels given are averaged, P6 included.
    """

    def __init__(
        self,
        refine_level: int = 2,
        refiner: str | keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        named = isinstance(refiner, str)
        if named and refiner not in _REFINERS:
            raise ValueError(
                f"`refiner` must be None, one of {_REFINERS} or a layer. Received: {refiner!r}"
            )
        if not (named or refiner is None or isinstance(refiner, keras.layers.Layer)):
            raise TypeError(
                f"`refiner` must be None, one of {_REFINERS} or a layer. Received: {refiner!r}"
            )
        # XLA resizes nothing between sizes that it does not know; `jit_compile="auto"` reads this.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.refine_level = whole(0).check("`refine_level`", refine_level)
        self.refiner = refiner if isinstance(refiner, keras.layers.Layer) else None
        self._refiner_name = refiner if isinstance(refiner, str) else None
        self._built_for: Any = None  # `BuiltFor`, once it is built
        if self.data_format == "channels_last":
            keep_channels_last(self)

    def build(self, input_shape: Pyramid) -> None:
        super().build(input_shape)
        self._built_for = BuiltFor(input_shape, channels="C")
        _, shapes = unpack(input_shape)
        if not 0 <= self.refine_level < len(shapes):
            raise ValueError(
                f"`refine_level` must be one of the {len(shapes)} levels (0 is the finest). "
                f"Received: refine_level={self.refine_level}"
            )
        if self._refiner_name is not None:
            self.refiner = self._named_refiner(shapes[0][-1])
        if getattr(self.refiner, "data_format", None) == "channels_first":
            raise ValueError(
                '`refiner` must have `data_format="channels_last"`. '
                f"Received: {self.refiner!r} with data_format='channels_first'"
            )
        if self.refiner is not None and not self.refiner.built:  # a reloaded one is built
            self.refiner.build(tuple(shapes[self.refine_level]))
        if self.refiner is not None and not self.trainable:
            self.refiner.trainable = False  # it may have been made before this layer was frozen

    def _named_refiner(self, channels):
        if self._refiner_name == "non_local":
            return NonLocalBlock(
                reduction=1,
                use_scale=False,
                data_format="channels_last",
                name="refiner",
                dtype=self.dtype_policy,
            )
        return Conv2D(
            channels,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, mode="fan_out", distribution="untruncated_normal"
            ),
            data_format="channels_last",
            name="refiner",
            dtype=self.dtype_policy,
        )

    def call(self, pyramid: Pyramid) -> Pyramid:
        names, levels = self._built_for.unpack(pyramid)
        balanced = self._refined(self._average(levels))
        outputs = [
            level + self._scatter(balanced, i, ops.shape(level)[1:3])
            for i, level in enumerate(levels)
        ]
        return pack(pyramid, names, outputs)

    def _average(self, levels):
        size = ops.shape(levels[self.refine_level])[1:3]
        gathered = [self._gather(level, i, size) for i, level in enumerate(levels)]
        return sum(gathered[1:], gathered[0]) / len(gathered)

    def _gather(self, level, i, size):
        if i == self.refine_level:
            return level
        return (adaptive_max_pool if i < self.refine_level else resize_nearest)(level, size)

    def _scatter(self, balanced, i, size):
        if i == self.refine_level:
            return balanced
        return (resize_nearest if i < self.refine_level else adaptive_max_pool)(balanced, size)

    def _refined(self, balanced):
        if self.refiner is None:
            return balanced
        refined = self.refiner(balanced)
        same_rank = len(refined.shape) == len(balanced.shape)
        pairs = zip(refined.shape, balanced.shape, strict=False)
        if not same_rank or any(a != b for a, b in pairs if None not in (a, b)):
            raise ValueError(
                "`refiner` must keep the shape of its input. "
                f"Received: {tuple(refined.shape)} from {tuple(balanced.shape)}"
            )
        return ops.cast(refined, balanced.dtype)  # the refiner may compute with another one

    def compute_output_spec(self, pyramid: Pyramid) -> Any:
        if self._built_for is not None:
            self._built_for.unpack(pyramid)
        return super().compute_output_spec(pyramid)

    def compute_output_shape(self, input_shape: Pyramid) -> Pyramid:
        names, shapes = unpack(input_shape)
        return pack(input_shape, names, [tuple(shape) for shape in shapes])

    def get_config(self) -> dict[str, Any]:
        refiner = self._refiner_name or keras.saving.serialize_keras_object(self.refiner)
        return {**super().get_config(), "refine_level": self.refine_level, "refiner": refiner}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        refiner = config.get("refiner")
        if isinstance(refiner, dict):
            refiner = keras.saving.deserialize_keras_object(refiner)
        return super().from_config({**config, "refiner": refiner})
