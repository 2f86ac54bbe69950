"""The one stage of a one-stage detector: what is at each anchor, and where exactly?"""

import math
from typing import Any

import keras
from keras import ops

from libra_keras.functional import native, replicas
from libra_keras.functional.boxes import encode
from libra_keras.functional.gathering import take_rows
from libra_keras.losses import FocalLoss
from libra_keras.models.detections import select_dense_detections
from libra_keras.models.distributed import replicated_mean
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.head import AnchorHead, check_loss
from libra_keras.models.inputs import is_image
from libra_keras.models.settings import CLASSES, RetinaHeadSettings
from libra_keras.models.targets import Targets, match_anchors, mean_per_image
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class RetinaHead(AnchorHead):
    """Classifies and shifts the anchors of every pyramid level with two small networks.

    The two branches have equal shapes and share nothing; each serves all levels. All anchors are
    trained: the focal loss, not a sampler, keeps the background from prevailing.

    Args:
        num_classes: int K, classes without the background.
        settings: `RetinaHeadSettings`, sizes and thresholds.
        class_loss: element-wise loss of logits whose `call` sums the last axis. Defaults to
            `FocalLoss()`. On TensorFlow it is compiled by XLA.
        box_loss: element-wise box loss whose `call` sums the last axis. Defaults to L1; Libra
            RetinaNet uses `BalancedL1Loss(beta=0.11)`.
        box_loss_weight: float >= 0, what the box loss is multiplied by. Defaults to 1.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which a head on its own
            cannot be built if that is `"channels_first"`.

    Call arguments:
        pyramid: list of L tensors `(B, H_l, W_l, C)`, finest first.

    Returns:
        Dict of lists with one entry per level: `"logits"` `(B, N_l, K)`, `"deltas"` `(B, N_l, 4)`
        and `"anchors"` `(N_l, 4)` in pixels; N_l counts rows, then columns, then anchors of a
        cell.

    Raises:
        ValueError: if `num_classes` is not positive.

    Example:

    >>> import keras
    >>> from libra_keras.models import RetinaHead, RetinaHeadSettings
    >>> head = RetinaHead(6, RetinaHeadSettings(channels=8, num_convs=1, strides=(8, 16)))
    >>> outputs = head([keras.ops.ones((1, 4, 6, 8)), keras.ops.ones((1, 2, 3, 8))])
    >>> [tuple(logits.shape) for logits in outputs["logits"]]
    [(1, 216, 6), (1, 54, 6)]

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002), section 4.
    """

    PARTS = ("settings", "class_loss", "box_loss")
    SETTINGS = RetinaHeadSettings

    def __init__(
        self,
        num_classes: int,
        settings: RetinaHeadSettings | None = None,
        class_loss: keras.losses.Loss | None = None,
        box_loss: keras.losses.Loss | None = None,
        box_loss_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, box_loss, box_loss_weight, **kwargs)
        num_classes = self.num_classes = CLASSES.check("`num_classes`", num_classes)
        self.class_loss = check_loss("class_loss", class_loss or FocalLoss())
        prior, num_anchors = self.settings.prior_probability, self.settings.num_anchors
        self.class_convs = self._branch("class_conv")
        self.box_convs = self._branch("box_conv")
        self.class_logits = self._conv(
            num_anchors * num_classes,
            3,
            name="class_logits",
            bias_initializer=keras.initializers.Constant(math.log(prior / (1.0 - prior))),
        )
        self.box_deltas = self._conv(4 * num_anchors, 3, name="box_deltas")
        self.positives = replicated_mean("positives")  # anchors, per image

    def _branch(self, name):
        settings = self.settings
        return [
            self._conv(settings.channels, 3, name=f"{name}_{i}", activation="relu")
            for i in range(settings.num_convs)
        ]

    def build(self, input_shape):
        super().build(input_shape)
        first, inner = input_shape[0][-1], self.settings.channels
        if not self.class_logits.built:  # a reloaded layer comes back built
            for convs in (self.class_convs, self.box_convs):
                for i, conv in enumerate(convs):
                    conv.build((None, None, None, inner if i else first))
            self.class_logits.build((None, None, None, inner))
            self.box_deltas.build((None, None, None, inner))
        self.built = True

    def call(self, pyramid: list[Tensor]) -> dict[str, list[Tensor]]:
        return {
            "logits": self._answers(pyramid, self.class_convs, self.class_logits, self.num_classes),
            "deltas": self._answers(pyramid, self.box_convs, self.box_deltas, 4),
            "anchors": self._anchors(pyramid),
        }

    def _answers(self, pyramid, convs, last, length):
        """What a branch says of each anchor: a list of `(B, N_l, length)`."""
        batch = ops.shape(pyramid[0])[0]
        answers = []
        for hidden in pyramid:
            for conv in convs:
                hidden = conv(hidden)
            answers.append(ops.reshape(last(hidden), (batch, -1, length)))
        return answers

    def detect(self, outputs: dict[str, list[Tensor]], image_sizes: Tensor) -> dict[str, Tensor]:
        """Returns a batch's detections: a dict of padded arrays, see `select_dense_detections`.

        Args:
            outputs: what `call` returned.
            image_sizes: int tensor `(B, 2)`, height and width before padding.
        """
        return select_dense_detections(
            outputs["logits"], outputs["deltas"], outputs["anchors"], image_sizes, self.settings
        )

    def compute_losses(
        self, outputs: dict[str, list[Tensor]], truth: GroundTruth, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the classification and box losses of all anchors of the batch.

        Both are sums over the global batch, divided by its number of positive anchors (counting at
        least one per image, as mmdetection does).

        Args:
            outputs: what `call` returned.
            truth: `GroundTruth`.
            image_sizes: int tensor `(B, 2)`, height and width before padding.
        """
        anchors = ops.concatenate(outputs["anchors"], axis=0)
        # One kernel: the overlaps are never written to memory.
        find = native.compiled(find_dense_targets, settings=self.settings)
        targets = find(anchors, truth.boxes, truth.labels, truth.mask, image_sizes)
        self.positives.update_state(mean_per_image(targets.is_positive, is_image(image_sizes)))
        normaliser = replicas.sum_over_replicas(_positive_count(targets, image_sizes))
        # Compiled once for the numbers of a loss, which may have been changed in place.
        values = repr(self.class_loss.get_config())
        class_loss = native.compiled(_sum_of_class_losses, loss=self.class_loss, values=values)
        labels = ops.where(targets.is_positive, targets.labels, -1)
        return (
            class_loss(labels, targets.weights, *outputs["logits"]) / normaliser,
            self.box_loss_weight
            * self._sum_of_box_losses(outputs["deltas"], anchors, targets)
            / normaliser,
        )

    def _sum_of_box_losses(self, level_deltas, anchors, targets):
        deltas = ops.cast(ops.concatenate(level_deltas, axis=1), "float32")
        # The others have no box: equal zeros on both sides keep their loss and gradient at 0.
        mask = targets.is_positive[..., None]
        goal = encode(targets.boxes, anchors, self.settings.stds)
        goal, deltas = ops.where(mask, goal, 0.0), ops.where(mask, deltas, 0.0)
        return ops.sum(self.box_loss.call(goal, deltas))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def find_dense_targets(anchors, gt_boxes, gt_labels, gt_mask, image_sizes, settings):
    """Looks up what every anchor `(N, 4)` should answer; ignored ones have the weight 0."""
    found = match_anchors(anchors, gt_boxes, gt_mask, image_sizes, settings)
    labels = take_rows(gt_labels, found.matched_gt)
    boxes = take_rows(gt_boxes, found.matched_gt)
    trained = ops.logical_or(found.is_positive, found.is_negative)
    return Targets(labels, boxes, found.is_positive, ops.cast(trained, "float32"))


def _sum_of_class_losses(labels, weights, *level_logits, loss, values):
    """Sum over levels of logits `(B, N_l, K)`, which are not joined, since that would copy the
    largest tensor of a step; labels and weights are `(B, sum of N_l)`.
    """
    total, start = 0.0, 0
    for logits in level_logits:
        stop = start + ops.shape(logits)[1]
        classes = ops.arange(logits.shape[-1], dtype="int32")
        is_present = labels[:, start:stop, None] == classes
        total += ops.sum(loss.call(is_present, logits) * weights[:, start:stop])
        start = stop
    return total


def _positive_count(targets, image_sizes):
    positives = ops.sum(ops.cast(targets.is_positive, "float32"), axis=1)
    return ops.sum(ops.maximum(positives, is_image(image_sizes)))
