"""The first stage: where might an object be?"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from libra_keras.functional import native, replicas
from libra_keras.functional.boxes import encode
from libra_keras.functional.gathering import take, take_rows
from libra_keras.models.distributed import replicated_mean
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.head import AnchorHead
from libra_keras.models.inputs import is_image
from libra_keras.models.proposals import Proposals, select_proposals
from libra_keras.models.settings import RPNSettings
from libra_keras.models.targets import match_anchors, mean_per_image, sample_targets
from libra_keras.samplers import RandomSampler, Sampler
from libra_keras.samplers.sampler import check_sampler
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class RPNHead(AnchorHead):
    """Scores and shifts the anchors of every pyramid level; one small network serves all levels.

    Args:
        settings: `RPNSettings`, sizes and thresholds.
        sampler: sampler that draws the anchors to train on. Defaults to 256 random ones, half of
            them positive where there are that many.
        box_loss: element-wise box loss whose `call` sums the last axis. Defaults to L1.
        box_loss_weight: float >= 0, what the box loss is multiplied by. Defaults to 1.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which a head on its own
            cannot be built if that is `"channels_first"`.

    Call arguments:
        pyramid: list of L tensors `(B, H_l, W_l, C)`, finest first.

    Returns:
        Dict of lists with one entry per level: `"logits"` `(B, N_l)`, `"deltas"` `(B, N_l, 4)` and
        `"anchors"` `(N_l, 4)` in pixels; N_l counts rows, then columns, then anchors of a cell.

    Raises:
        TypeError: if `sampler` or `box_loss` is none, or the sampler requires losses.
        ValueError: if the sampler has no `num`, or the weight is negative.

    Example:

    >>> import keras
    >>> from libra_keras.models import RPNHead, RPNSettings
    >>> head = RPNHead(RPNSettings(channels=8, strides=(8, 16)))
    >>> outputs = head([keras.ops.ones((1, 4, 6, 8)), keras.ops.ones((1, 2, 3, 8))])
    >>> [tuple(logits.shape) for logits in outputs["logits"]]
    [(1, 72), (1, 18)]

    Reference: [Ren et al., 2015](https://arxiv.org/abs/1506.01497), section 3.1.
    """

    PARTS = ("settings", "sampler", "box_loss")
    SETTINGS = RPNSettings

    def __init__(
        self,
        settings: RPNSettings | None = None,
        sampler: Sampler | None = None,
        box_loss: keras.losses.Loss | None = None,
        box_loss_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, box_loss, box_loss_weight, **kwargs)
        self.sampler = sampler or RandomSampler(num=256, positive_fraction=0.5)
        check_sampler(self.sampler)
        self.shared_conv = self._conv(self.settings.channels, 3, activation="relu")
        self.logits_conv = self._conv(self.settings.num_anchors, 1)
        self.deltas_conv = self._conv(4 * self.settings.num_anchors, 1)
        self.positives = replicated_mean("rpn_positives")  # sampled ones, per image

    def build(self, input_shape):
        super().build(input_shape)
        channels = input_shape[0][-1]
        if not self.shared_conv.built:  # a reloaded layer comes back built
            self.shared_conv.build((None, None, None, channels))
            self.logits_conv.build((None, None, None, self.settings.channels))
            self.deltas_conv.build((None, None, None, self.settings.channels))
        self.built = True

    def call(self, pyramid: list[Tensor]) -> dict[str, list[Tensor]]:
        hidden = [self.shared_conv(level) for level in pyramid]
        batch = ops.shape(pyramid[0])[0]
        return {
            "logits": [ops.reshape(self.logits_conv(level), (batch, -1)) for level in hidden],
            "deltas": [ops.reshape(self.deltas_conv(level), (batch, -1, 4)) for level in hidden],
            "anchors": self._anchors(pyramid),
        }

    def propose(
        self, outputs: dict[str, list[Tensor]], image_sizes: Tensor, training: bool = False
    ) -> Proposals:
        """Returns the `Proposals` of a batch; no gradient flows through them.

        Args:
            outputs: what `call` returned.
            image_sizes: int tensor `(B, 2)`, height and width before padding.
            training: bool, whether the training number of anchors enters NMS.
        """
        settings = self.settings
        return select_proposals(
            [ops.stop_gradient(logits) for logits in outputs["logits"]],
            [ops.stop_gradient(deltas) for deltas in outputs["deltas"]],
            outputs["anchors"],
            image_sizes,
            settings,
            settings.pre_nms_train if training else settings.pre_nms_test,
        )

    def compute_losses(
        self,
        outputs: dict[str, list[Tensor]],
        truth: GroundTruth,
        image_sizes: Tensor,
        make_keys: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Returns the mean classification and box losses of the sampled anchors of the batch.

        Both are sums over the global batch, divided by its number of sampled anchors (counting at
        least one positive and one negative per image, as mmdetection does).

        Args:
            outputs: what `call` returned.
            truth: `GroundTruth`.
            image_sizes: int tensor `(B, 2)`, height and width before padding.
            make_keys: function of a number N that returns keys `(B, N)` in [0, 1).
        """
        anchors = ops.concatenate(outputs["anchors"], axis=0)
        # One kernel: the overlaps, the largest tensor of a step, are never written to memory twice.
        match = native.compiled(match_anchors, settings=self.settings)
        found = match(anchors, truth.boxes, truth.mask, image_sizes)
        keys = make_keys(ops.shape(anchors)[0])
        indices, targets = sample_targets(found, truth, self.sampler, keys)
        logits = _gather(outputs["logits"], indices)
        deltas = _gather(outputs["deltas"], indices)
        normaliser = replicas.sum_over_replicas(_sampled_count(targets, image_sizes))
        is_positive = ops.cast(targets.is_positive, "float32")
        chosen = is_positive * targets.weights
        self.positives.update_state(mean_per_image(chosen, is_image(image_sizes)))
        class_loss = ops.binary_crossentropy(is_positive, logits, from_logits=True)
        # Negatives have no box: equal zeros on both sides keep their loss and gradient at 0.
        mask = targets.is_positive[..., None]
        sampled = take(anchors, indices)
        goal = encode(targets.boxes, sampled)
        box_loss = self.box_loss.call(ops.where(mask, goal, 0.0), ops.where(mask, deltas, 0.0))
        return (
            ops.sum(class_loss * targets.weights) / normaliser,
            self.box_loss_weight * ops.sum(box_loss * targets.weights) / normaliser,
        )


def _gather(levels, indices):
    """Rows `indices` (B, n) of the levels' concatenation, in float32."""
    rows = ops.concatenate(levels, axis=1)
    return ops.cast(take_rows(rows, indices), "float32")


def _sampled_count(targets, image_sizes):
    positives = ops.cast(targets.is_positive, "float32") * targets.weights
    negatives = targets.weights - positives
    least = is_image(image_sizes)
    positives = ops.maximum(ops.sum(positives, axis=1), least)
    return ops.sum(positives + ops.maximum(ops.sum(negatives, axis=1), least))
