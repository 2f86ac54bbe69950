"""RoIAlign on a feature pyramid, as a layer."""

from collections.abc import Sequence
from typing import Any

import keras

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.native import has_sparse_pooling
from libra_keras.functional.roi_align import multilevel_roi_align
from libra_keras.layers.channels_last import ChannelsLast
from libra_keras.layers.pyramids import Pyramid, asked_of, unpack
from libra_keras.ranges import POSITIVE, whole
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class MultilevelROIAlign(ChannelsLast):
    """Cuts a fixed grid of features out of the pyramid for each box.

    A box is pooled from the one level that suits its size: with the default strides and scale,
    boxes below 112 pixels from stride 4, below 224 from stride 8, below 448 from stride 16. The
    layer has no weights, and the boxes get no gradient.

    Args:
        output_size: int S, bins along each side.
        sampling_ratio: int, bilinear samples per bin along each axis; 0 takes one per cell,
            rounded up, which is what mmdetection's configurations from version 2 on use.
        strides: pixels per cell of each level that is used, finest first.
        finest_scale: float, pixels; boxes up to twice this scale use the finest level.
        aligned: bool; false is the half-cell-shifted convention of older weights.
        max_sampling_ratio: int, limit for `sampling_ratio=0`; see `functional.roi_align`.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which the layer cannot
            be built if that is `"channels_first"`.

    Call arguments:
        pyramid: dict `{"P2": ..., "P5": ...}`, list or tuple, finest first, of tensors
            `(B, H_l, W_l, C)`, one for each stride. More, coarser levels are ignored. H and W
            may be unknown.
        boxes: float tensor `(B, N, 4)`, pixels. Always float32: do not pass float16 coordinates.

    Returns:
        Tensor `(B, N, S, S, C)` in the dtype of the pyramid.

    Raises:
        ValueError: if an argument is out of range, there are fewer levels than strides, their
            channels differ, their names are not those that the layer was built for, or an input has
            another shape or kind.

    Example:

    >>> import numpy as np
    >>> from libra_keras.layers import MultilevelROIAlign
    >>> sizes = {"P2": 64, "P3": 32, "P4": 16, "P5": 8, "P6": 4}
    >>> pyramid = {name: np.ones((1, n, n, 16), "float32") for name, n in sizes.items()}
    >>> boxes = np.array([[[10, 20, 50, 90], [0, 0, 256, 256]]], "float32")
    >>> tuple(MultilevelROIAlign()(pyramid, boxes).shape)
    (1, 2, 7, 7, 16)

    Reference: [He et al., 2017](https://arxiv.org/abs/1703.06870), section 3; choice of level:
    [Lin et al., 2017](https://arxiv.org/abs/1612.03144), equation 1.
    """

    def __init__(
        self,
        output_size: int = 7,
        sampling_ratio: int = 2,
        strides: Sequence[float] = (4, 8, 16, 32),
        finest_scale: float = 56.0,
        aligned: bool = True,
        max_sampling_ratio: int = 16,
        **kwargs: Any,
    ) -> None:
        # Coordinates must not become float16: at 1000 pixels it counts in half pixels.
        super().__init__(**{"autocast": False, **kwargs})
        is_list = isinstance(strides, (tuple, list))
        if not is_list or not strides:
            raise ValueError(
                f"`strides` must be one positive number per level. Received: strides={strides}"
            )
        self.output_size = whole(1).check("`output_size`", output_size)
        self.sampling_ratio = whole(0).check("`sampling_ratio`", sampling_ratio)
        self.strides = tuple(POSITIVE.check("`strides`", stride) for stride in strides)
        self.finest_scale = POSITIVE.check("`finest_scale`", finest_scale)
        self.aligned = aligned
        self.max_sampling_ratio = whole(1).check("`max_sampling_ratio`", max_sampling_ratio)
        # The twin that TensorFlow uses has no XLA kernel; `jit_compile="auto"` reads this.
        self.supports_jit = not has_sparse_pooling()
        self._names = None  # of the levels that are used, if they came in a dict

    def build(self, pyramid_shape: Pyramid, boxes_shape: Any = None) -> None:
        super().build(pyramid_shape)
        names, _ = unpack(pyramid_shape)
        self._names = names and names[: len(self.strides)]

    def _levels(self, pyramid, boxes):
        """The levels that are used, if all that came is what this was built for."""
        names, levels = unpack(pyramid)
        count = len(self.strides)
        if len(levels) < count:
            raise ValueError(
                f"`pyramid` must have a level for each of the strides {self.strides}. "
                f"Received: {len(levels)} levels"
            )
        names, levels = names and names[:count], levels[:count]
        if None not in (names, self._names) and names != self._names:
            raise ValueError(
                "The finest levels of `pyramid` must be those that the layer was built for, "
                f"{', '.join(self._names)}. Received: {', '.join(names)}"
            )
        maps = asked_of(names, levels, ["C"] * count)
        check_arguments({**maps, "boxes (B, N, 4)": boxes})
        return levels

    def call(self, pyramid: Pyramid, boxes: Tensor) -> Tensor:
        return multilevel_roi_align(
            self._levels(pyramid, boxes),
            boxes,
            strides=self.strides,
            output_size=self.output_size,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
            finest_scale=self.finest_scale,
            max_sampling_ratio=self.max_sampling_ratio,
        )

    def compute_output_spec(self, pyramid: Pyramid, boxes: Tensor) -> Any:
        self._levels(pyramid, boxes)
        return super().compute_output_spec(pyramid, boxes)

    def compute_output_shape(
        self, pyramid_shape: Pyramid, boxes_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        _, levels = unpack(pyramid_shape)
        return (*boxes_shape[:2], self.output_size, self.output_size, levels[0][-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "sampling_ratio": self.sampling_ratio,
            "strides": self.strides,
            "finest_scale": self.finest_scale,
            "aligned": self.aligned,
            "max_sampling_ratio": self.max_sampling_ratio,
        }
