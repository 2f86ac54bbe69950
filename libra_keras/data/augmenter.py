"""The variations of a training run's images: drawn for each place, and made."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image

from libra_keras.data.augmentation import Augmentation
from libra_keras.data.colors import color_map, recolored
from libra_keras.data.images import RESIZE_KERNELS, InputPolicy, size_of
from libra_keras.data.random_streams import (
    COLORS,
    FUNCTIONS,
    SCALE,
    SHORT_SIDES,
    VERTICAL_FLIP,
    stream,
)
from libra_keras.data.user_functions import Sample, applied
from libra_keras.data.views import View

NO_COLORS = Augmentation().color_ranges


class Shrinking(InputPolicy):
    """A policy that enlarges no image: what is read, and cached, where scales are drawn later."""

    def get_config(self) -> dict:
        """Returns the arguments, and what distinguishes cache entries from a plain policy's."""
        return {**super().get_config(), "enlarges": False}

    def fitted_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns `(height, width)` of an image after resizing."""
        # Both sides grow, or neither does.
        return min(super().fitted_size(height, width), (height, width))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an image is used: what all its draws depend on, beside the seed."""

    epoch: int
    step: int
    slot: int


class Augmenter:
    """Varies the images of a run according to an `Augmentation`; an empty one only resizes."""

    def __init__(self, augmentation: Augmentation, policy: InputPolicy, seed: int):
        self.augmentation = augmentation
        self.seed = seed
        self._policies = augmentation.policies(policy)
        self._shrinking = None
        if augmentation.scale != (1.0, 1.0):
            self._shrinking = _largest(self._policies, max(1.0, augmentation.scale[1]))

    @property
    def readings(self) -> list[InputPolicy]:
        """The policies that images are read by, and cached."""
        return [self._shrinking] if self._shrinking else self._policies

    def reading(self, place: Place) -> InputPolicy:
        """Returns that of a batch."""
        return self._shrinking or self.policy(place)

    def policy(self, place: Place) -> InputPolicy:
        """Returns the policy of a batch."""
        if len(self._policies) == 1:
            return self._policies[0]
        rng = stream(self.seed, SHORT_SIDES, place.epoch, place.step)
        return self._policies[rng.integers(len(self._policies))]

    def view(self, original: tuple[int, int], place: Place, turns: int) -> View:
        """Draws what is seen of an image that is to be turned."""
        policy, down, along = self.policy(place), 0.0, 0.0
        height, width = policy.fitted_size(*original)
        if self.augmentation.scale != (1.0, 1.0):
            share, down, along = self._uniform(SCALE, place, 3)
            factor = _between(self.augmentation.scale, share)
            height, width = (max(1, int(side * factor + 0.5)) for side in (height, width))
        is_odd = turns % 2 == 1
        padded = policy.bucket_size(*(original[::-1] if is_odd else original))
        most = padded[::-1] if is_odd else padded
        rows, columns = min(height, most[0]), min(width, most[1])
        top, left = int(down * (height - rows + 1)), int(along * (width - columns + 1))
        chance = self.augmentation.vertical_flip
        is_upside_down = bool(chance and self._uniform(VERTICAL_FLIP, place, 1)[0] < chance)
        window = (top, left, rows, columns)
        return View(original, (height, width), window, padded, turns, is_upside_down)

    def pixels(self, image: np.ndarray | Image.Image, view: View, place: Place) -> np.ndarray:
        """Returns uint8 `(h, w, 3)`, the pixels of a view in other colours."""
        kernel = RESIZE_KERNELS[self._policies[0].resize]
        ranges = self.augmentation.color_ranges
        if ranges == NO_COLORS:
            return np.asarray(view.image(image, kernel))
        shares = self._uniform(COLORS, place, len(ranges))
        colors = color_map(*map(_between, ranges, shares))
        # Resizing commutes with an affine map, but for rounding: the smaller image takes less time.
        if np.prod(size_of(image)) < np.prod(view.size):
            return np.asarray(view.image(recolored(image, colors), kernel))
        return np.asarray(recolored(view.image(image, kernel), colors))

    def applied(self, sample: Sample, place: Place, file: Any, num_classes: int) -> Sample:
        """Returns what the functions make of a sample, one after the other."""
        for i, function in enumerate(self.augmentation.functions):
            own = {key: np.array(value) for key, value in sample.items()}  # theirs to write to
            rng = stream(self.seed, FUNCTIONS, *dataclasses.astuple(place), i)
            sample = applied(function, own, rng, file, num_classes)
        return sample

    def _uniform(self, kind, place, count):
        return stream(self.seed, kind, *dataclasses.astuple(place)).random(count)


def _largest(policies, factor):
    """A `Shrinking` policy of the largest size that a view can be of."""
    largest = max(policies, key=lambda policy: policy.short_side)
    sides = {name: round(factor * getattr(largest, name)) for name in ("short_side", "long_side")}
    return Shrinking(**{**dataclasses.asdict(largest), **sides})


def _between(bounds, share):
    return bounds[0] + (bounds[1] - bounds[0]) * share
