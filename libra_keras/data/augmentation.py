"""How images are varied during training: the options, and the presets."""

import dataclasses
from typing import Any

import numpy as np

from libra_keras.data.images import InputPolicy
from libra_keras.data.user_functions import Function

PRESETS = ("none", "default", "strong")
MOST_SIZES = 5  # JAX compiles a training step for each, times two orientations
MULTI_SCALE = (0.8, 0.9, 1.0)  # of the policy's short side
STRIDE = 32  # short sides of a preset are multiples of it, so that little is padded
# After SSD's photometric distortion: brightness by 32 of 255 levels (a factor here, where SSD adds
# them), hue by 18 of 360 degrees.
SSD_COLORS: dict[str, Any] = {
    "brightness": (0.875, 1.125),
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "hue": (-0.05, 0.05),
}
HALF_COLORS: dict[str, Any] = {
    "brightness": (0.9375, 1.0625),
    "contrast": (0.75, 1.25),
    "saturation": (0.75, 1.25),
    "hue": (-0.025, 0.025),
}
FACTORS = ("scale", "brightness", "contrast", "saturation")
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How images and their boxes are varied during training, in addition to mirroring.

    What is drawn is a pure function of the run's seed, the epoch, the step and the image's place
    in the batch, and each kind of variation has its own numbers: adding one changes no other, an
    interrupted run continues bit for bit, and all backends see the same pixels. Values are drawn
    uniformly from their ranges. The order is: crop and resize, rotate, flip, colours, functions;
    then the image is mirrored with the probability `flip` of `training_batches`, and padded.

    Args:
        short_sides: tuple of at most five ints. Each batch takes one of them as the short side of
            its `InputPolicy`, whose long side is scaled to match. JAX compiles a training step for
            each, times two if there are images of both orientations. Empty (default): the
            policy's own.
        scale: factor by which an image is enlarged or shrunk, such as `(0.5, 2.0)`, after resizing
            to its usual size. What exceeds the padded size of its batch is cropped at a random
            place; what is missing is padded. A box is dropped if less than a quarter of it is left,
            or a side of at most 1 pixel; others are clipped. An image that has lost all its boxes
            is learned from as background.
        brightness: factor of all pixels.
        contrast: factor of the distance from mid-grey.
        saturation: factor of the distance from the grey of the same luma.
        hue: share of the colour circle by which hues are rotated, such as `(-0.05, 0.05)`.
        vertical_flip: float in [0, 1], the probability that an image is flipped upside down, for
            images without a natural top, such as those of microscopes and satellites.
        quarter_turns: float in [0, 1], the probability that an image is rotated by a random number
            of quarter turns, 0 to 3; at 1, all four are equally likely. A landscape image that
            becomes a portrait one joins a batch of these; to fill batches, fewer images than one
            batch holds are rotated differently than drawn.
        functions: tuple of `function(sample, rng) -> sample`, called in this order. A sample is a
            dict of `"images"` uint8 `(H, W, 3)` RGB, `"boxes"` float32 `(n, 4)` in pixels of this
            image, not yet mirrored and padded, and `"labels"` int32 `(n,)`; the result must have
            the same keys, dtypes and image size. Rows with the label -1 are left out, and so are
            the smallest boxes beyond `max_boxes`. `rng` is the function's own NumPy generator; the
            promise above does not hold for functions that draw from anything else. Threads call
            functions concurrently. `dialects.as_function` makes one from Keras' layers.

    Raises:
        ValueError: if there are too many short sides, or a number is out of its range.
        TypeError: if a function cannot be called.

    Example:

    >>> import numpy as np
    >>> from libra_keras import data
    >>> def grey(sample, rng):
    ...     mean = sample["images"].mean(-1, keepdims=True).astype("uint8")
    ...     return {**sample, "images": np.tile(mean, 3)}
    >>> augment = data.Augmentation(scale=(0.5, 2.0), functions=(grey,))
    >>> policy = data.InputPolicy(320, 320)
    >>> batches = data.training_batches(data.shapes(4), policy, 4, kind="py", augment=augment)
    >>> x, y = batches[0]
    >>> x["images"].shape, bool((x["images"][..., 0] == x["images"][..., 1]).all())
    ((4, 320, 320, 3), True)

    Reference: scale as in large-scale jittering, [Ghiasi et al. 2021](
    https://arxiv.org/abs/2012.07177); colours as in [SSD](https://arxiv.org/abs/1512.02325), all
    of them in every image, and by one affine map, after which pixels are clipped once.
    """

    short_sides: tuple[int, ...] = ()
    scale: Range = (1.0, 1.0)
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)
    vertical_flip: float = 0.0
    quarter_turns: float = 0.0
    functions: tuple[Function, ...] = ()

    def __post_init__(self):
        for name in ("short_sides", *FACTORS, "hue", "functions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_sides()
        for name in (*FACTORS, "hue"):
            self._check_range(name, low=-0.5 if name == "hue" else 0.0)
        if self.scale[0] == 0:
            raise ValueError(f"`scale` must be positive. Received: {self.scale}")
        for name in ("vertical_flip", "quarter_turns"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in 0..1. Received: {getattr(self, name)}")
        for function in self.functions:
            if not callable(function):
                raise TypeError(f"`functions` must be functions. Received: {function!r}")

    def _check_sides(self):
        own = self.short_sides
        are_ints = all(isinstance(side, int | np.integer) and side > 0 for side in own)
        if not are_ints or len(set(own)) < len(own) or len(own) > MOST_SIZES:
            raise ValueError(
                f"`short_sides` must be at most {MOST_SIZES} positive ints, each once. "
                f"Received: {own}"
            )

    def _check_range(self, name, low):
        own = getattr(self, name)
        if len(own) != 2 or not low <= own[0] <= own[1] < np.inf:
            raise ValueError(f"`{name}` must be (low, high), from {low:g}. Received: {own}")

    @classmethod
    def preset(cls, name: str, short_side: int = 800) -> "Augmentation":
        """Returns a named set of variations.

        `"none"` varies nothing. `"default"` is multi-scale training as usual for detectors of this
        family, on 0.8, 0.9 and 1.0 of the short side, rounded to multiples of 32 (Detectron2 uses
        640 to 800 pixels), and half of SSD's colour changes. `"strong"` is large-scale jittering by
        0.5 to 2.0 and all of SSD's colour changes, for long runs or little data. None of them flips
        an image upside down.

        Args:
            name: str, one of those.
            short_side: int, that of the `InputPolicy`. Defaults to 800.

        Raises:
            ValueError: if the name is unknown.

        Example:

        >>> from libra_keras.data import Augmentation
        >>> Augmentation.preset("default").short_sides, Augmentation.preset("strong").scale
        ((640, 736, 800), (0.5, 2.0))
        """
        if name not in PRESETS:
            raise ValueError(f"A preset must be one of {', '.join(PRESETS)}. Received: {name!r}")
        if name == "none":
            return cls()
        if name == "strong":
            return cls(scale=(0.5, 2.0), **SSD_COLORS)
        return cls(short_sides=_near(short_side), **HALF_COLORS)

    def policies(self, policy: InputPolicy) -> list[InputPolicy]:
        """Returns the policies that batches alternate between."""
        return [
            dataclasses.replace(
                policy,
                short_side=int(side),
                long_side=int(policy.long_side * side / policy.short_side + 0.5),
            )
            for side in self.short_sides or (policy.short_side,)
        ]

    @property
    def color_ranges(self) -> tuple[Range, Range, Range, Range]:
        """The ranges of brightness, contrast, saturation and hue."""
        return self.brightness, self.contrast, self.saturation, self.hue


def as_augmentation(augment: Augmentation | str | None, policy: InputPolicy) -> Augmentation:
    """Returns an augmentation, that of a preset's name, or the one that varies nothing."""
    if augment is None or isinstance(augment, str):
        return Augmentation.preset(augment or "none", policy.short_side)
    if not isinstance(augment, Augmentation):
        raise TypeError(f"`augment` must be an Augmentation, a name or None. Received: {augment!r}")
    return augment


def _near(short_side):
    """Short sides in the proportions of `MULTI_SCALE`; the largest is the given one."""
    sides = [max(STRIDE, int(short_side * share / STRIDE + 0.5) * STRIDE) for share in MULTI_SCALE]
    return tuple(sorted({*(side for side in sides if side < short_side), short_side}))
