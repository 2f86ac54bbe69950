"""Our samplers behind the `BoxMatcher` of KerasCV and KerasHub."""

from typing import Any, Self

import keras
from keras import ops

from libra_keras.functional import replicas
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.matching import Match
from libra_keras.functional.random_keys import random_keys
from libra_keras.ranges import SEED
from libra_keras.samplers.sampler import Sampler, check_sampler
from libra_keras.typing import Tensor

POSITIVE, NEGATIVE, IGNORED = 1, -1, -2  # what the label encoders of both packages use


def from_box_matcher(
    similarity: Tensor,
    matched_columns: Tensor,
    matched_values: Tensor,
    positive_value: int = POSITIVE,
    negative_value: int = NEGATIVE,
) -> Match:
    """Translates the result of a `BoxMatcher` to the `Match` that our samplers take.

    Args:
        similarity: float tensor `(B, N, M)`, the overlaps that the matcher was given. Columns
            of padding must be 0 or below, as the packages' `compute_iou` makes them.
        matched_columns: int tensor `(B, N)`, first result of the matcher.
        matched_values: int tensor `(B, N)`, second result.
        positive_value: int, the matcher's value for boxes that found an object.
        negative_value: int, its value for boxes that are background. All others are ignored.

    Returns:
        A `functional.matching.Match`.

    Raises:
        ValueError: if an argument has another shape, or holds no numbers.

    Example:

    >>> from keras import ops
    >>> from libra_keras.samplers import from_box_matcher
    >>> overlaps = ops.convert_to_tensor([[[0.8, 0.0], [0.1, 0.2], [0.45, 0.3]]])
    >>> found = from_box_matcher(overlaps, [[0, 1, 0]], [[1, -1, -2]])
    >>> [ops.convert_to_numpy(part)[0].tolist() for part in (found.is_positive, found.is_negative)]
    [[True, False, False], [False, True, False]]
    """
    check_arguments(
        {
            "similarity (B, N, M)": similarity,
            "matched_columns (B, N)": matched_columns,
            "matched_values (B, N)": matched_values,
        }
    )
    similarity = ops.cast(similarity, "float32")
    # A column of zeros more: without objects there is nothing to take the maximum of.
    none = ops.zeros((*ops.shape(similarity)[:2], 1), "float32")
    max_iou = ops.max(ops.concatenate([similarity, none], axis=2), axis=2)
    values = ops.convert_to_tensor(matched_values)
    matched_gt = ops.cast(matched_columns, "int32")
    return Match(matched_gt, max_iou, values == positive_value, values == negative_value)


@keras.saving.register_keras_serializable(package="libra_keras")
class SampledBoxMatcher(keras.layers.Layer):
    """A `BoxMatcher` that leaves out of the loss all boxes except those that a sampler chose.

    It replaces the matcher in a label encoder of KerasCV or KerasHub, before the first step:
    `encoder.box_matcher = SampledBoxMatcher(encoder.box_matcher, sampler)`. Boxes that were not
    chosen get the value that means "ignore" there. Each call draws a new sample.

    Args:
        matcher: `keras_cv.layers.BoxMatcher`, `keras_hub.layers.BoxMatcher`, or any layer from
            overlaps `(B, N, M)` to columns and values `(B, N)`.
        sampler: such as `IoUBalancedSampler`.
        seed: int; with the count of calls it determines what is drawn.
        positive_value, negative_value, ignored_value: ints, the matcher's values.

    Call arguments:
        similarity: float tensor `(B, N, M)`.

    Returns:
        Tuple of `matched_columns` and `matched_values`, int32 `(B, N)`, as the matcher's.

    Raises:
        ValueError: if `similarity` does not have three axes, or does not hold numbers, or the
            sampler has no `num`.
        TypeError: if `sampler` is not a sampler, or requires losses.

    Example:

    >>> import keras
    >>> from keras import ops
    >>> from libra_keras.samplers import IoUBalancedSampler, SampledBoxMatcher
    >>> class Matcher(keras.layers.Layer):
    ...     def call(self, similarity):
    ...         best = ops.max(similarity, axis=2)
    ...         return ops.argmax(similarity, axis=2), ops.where(best < 0.5, -1, 1)
    >>> matcher = SampledBoxMatcher(Matcher(), IoUBalancedSampler(2, positive_fraction=0.5))
    >>> _, values = matcher(ops.convert_to_tensor([[[0.9], [0.3], [0.2], [0.6]]]))
    >>> sorted(ops.convert_to_numpy(values)[0].tolist())
    [-2, -2, -1, 1]

    Reference: [Pang et al., 2019](https://arxiv.org/abs/1904.02701), section 3.1, there for the
    regions of interest of a two-stage detector.
    """

    def __init__(
        self,
        matcher: keras.layers.Layer,
        sampler: Sampler,
        seed: int = 0,
        positive_value: int = POSITIVE,
        negative_value: int = NEGATIVE,
        ignored_value: int = IGNORED,
        **kwargs: Any,
    ) -> None:
        # In mixed precision the automatic cast would round overlaps across thresholds.
        super().__init__(autocast=False, **kwargs)
        check_sampler(sampler)
        self.matcher = matcher
        self.sampler = sampler
        self.seed = SEED.check("`seed`", seed)
        self.positive_value = positive_value
        self.negative_value = negative_value
        self.ignored_value = ignored_value
        self.calls = self.add_weight(
            name="calls", shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        check_arguments({"similarity (B, N, M)": similarity})
        columns, values = self.matcher(similarity)
        match = from_box_matcher(
            similarity, columns, values, self.positive_value, self.negative_value
        )
        batch, num = ops.shape(similarity)[:2]
        keys = random_keys(self.seed, self.calls, replicas.global_positions(batch), num)
        self.calls.assign(self.calls + 1)
        indices, _, weights = self.sampler(match, keys)
        chosen = _chosen(indices, weights, num)
        values = ops.cast(values, "int32")
        return ops.cast(columns, "int32"), ops.where(chosen, values, self.ignored_value)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "matcher": serialize(self.matcher),
            "sampler": serialize(self.sampler),
            "seed": self.seed,
            "positive_value": self.positive_value,
            "negative_value": self.negative_value,
            "ignored_value": self.ignored_value,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        for part in ("matcher", "sampler"):
            if isinstance(config[part], dict):
                config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)


def _chosen(indices, weights, num):
    """Which of `num` boxes have a row `(B, R)`. Padding rows, of weight 0, add 0 to box 0."""
    batch = ops.shape(indices)[0]
    places = indices + num * ops.arange(batch, dtype="int32")[:, None]
    hits = ops.scatter(ops.reshape(places, (-1, 1)), ops.reshape(weights, (-1,)), (batch * num,))
    return ops.reshape(hits, (batch, num)) > 0
