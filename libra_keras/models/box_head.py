"""The second stage: what is in each proposal, and where exactly?"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from libra_keras.functional import replicas
from libra_keras.functional.boxes import encode
from libra_keras.functional.gathering import take_rows
from libra_keras.layers import MultilevelROIAlign
from libra_keras.models.detections import select_detections
from libra_keras.models.distributed import replicated_mean
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.head import Head
from libra_keras.models.proposals import Proposals
from libra_keras.models.settings import CLASSES, BoxHeadSettings
from libra_keras.models.targets import match_proposals, mean_per_image, sample_targets
from libra_keras.samplers import RandomSampler, Sampler
from libra_keras.samplers.sampler import check_sampler
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class BoxHead(Head):
    """Classifies proposals and refines their boxes with two fully connected layers.

    Args:
        num_classes: int K, classes without the background.
        settings: `BoxHeadSettings`, sizes and thresholds.
        sampler: sampler that draws the proposals to train on. Defaults to 512 random ones, at most
            a quarter of them positive. Libra R-CNN draws balanced ones. For one that needs losses
            (`OHEMSampler`) the head runs on all proposals first, without gradient.
        box_loss: element-wise box loss whose `call` sums the last axis. Defaults to L1; Libra
            R-CNN uses `BalancedL1Loss`.
        roi_align: layer that cuts fixed-size features out of a pyramid. Defaults to
            `MultilevelROIAlign()`.
        box_loss_weight: float >= 0, what the box loss is multiplied by. Defaults to 1.
        data_format: `"channels_last"`, or `None` for Keras' setting, under which a head on its own
            cannot be built if that is `"channels_first"`.

    Call arguments:
        pyramid: list of tensors `(B, H_l, W_l, C)`, finest first.
        boxes: float32 `(B, N, 4)`, pixels of the padded batch image.

    Returns:
        Tuple of class logits `(B, N, K + 1)`, background last, and deltas `(B, N, K, 4)`.

    Example:

    >>> import keras
    >>> from libra_keras.layers import MultilevelROIAlign
    >>> from libra_keras.models import BoxHead, BoxHeadSettings
    >>> head = BoxHead(6, BoxHeadSettings(channels=16), roi_align=MultilevelROIAlign(strides=(8,)))
    >>> boxes = keras.ops.convert_to_tensor([[[0.0, 0.0, 32.0, 32.0]]])
    >>> logits, deltas = head([keras.ops.ones((1, 8, 8, 4))], boxes)
    >>> tuple(logits.shape), tuple(deltas.shape)
    ((1, 1, 7), (1, 1, 6, 4))

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1612.03144), section 4.2;
    [Pang et al., 2019](https://arxiv.org/abs/1904.02701), sections 3.1 and 3.3.
    """

    PARTS = ("settings", "sampler", "box_loss", "roi_align")
    SETTINGS = BoxHeadSettings

    def __init__(
        self,
        num_classes: int,
        settings: BoxHeadSettings | None = None,
        sampler: Sampler | None = None,
        box_loss: keras.losses.Loss | None = None,
        roi_align: MultilevelROIAlign | None = None,
        box_loss_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        # Boxes are pixels: the automatic cast of mixed precision would round them.
        super().__init__(settings, box_loss, box_loss_weight, autocast=False, **kwargs)
        num_classes = self.num_classes = CLASSES.check("`num_classes`", num_classes)
        self.sampler = sampler or RandomSampler(num=512, positive_fraction=0.25)
        check_sampler(self.sampler, gives_losses=True)
        self.roi_align = roi_align or MultilevelROIAlign(dtype=self.dtype_policy)
        self.hidden = [
            self._dense(self.settings.channels, activation="relu", name=f"shared_fc_{i}")
            for i in range(2)
        ]
        small = keras.initializers.RandomNormal
        self.class_logits = self._dense(num_classes + 1, kernel_initializer=small(stddev=0.01))
        self.box_deltas = self._dense(4 * num_classes, kernel_initializer=small(stddev=0.001))
        self.positives = replicated_mean("positives")  # sampled ones, per image

    def _dense(self, units, **options):
        own = {"trainable": self.trainable, "dtype": self.dtype_policy}
        return keras.layers.Dense(units, **own, **options)

    def build(self, input_shape):
        super().build(input_shape)
        if not self.hidden[0].built:  # a reloaded layer comes back built
            size, width = self.roi_align.output_size, self.settings.channels
            self.hidden[0].build((None, size * size * input_shape[0][-1]))
            self.hidden[1].build((None, width))
            self.class_logits.build((None, width))
            self.box_deltas.build((None, width))
        self.roi_align.built = True  # it has no weights
        self.built = True

    def call(self, pyramid: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        features = self.roi_align(pyramid, boxes)  # (B, N, S, S, C)
        inputs = self.hidden[0].kernel.shape[0]
        hidden = ops.reshape(features, (-1, inputs))
        for layer in self.hidden:
            hidden = layer(hidden)
        shape = ops.shape(features)[:2]
        logits = ops.reshape(self.class_logits(hidden), (*shape, self.num_classes + 1))
        return logits, ops.reshape(self.box_deltas(hidden), (*shape, self.num_classes, 4))

    def detect(
        self, pyramid: list[Tensor], proposals: Proposals, image_sizes: Tensor
    ) -> dict[str, Tensor]:
        """Returns a batch's detections: a dict of padded arrays, see `select_detections`.

        Args:
            pyramid: list of tensors `(B, H_l, W_l, C)`, finest first.
            proposals: `Proposals`.
            image_sizes: int tensor `(B, 2)`, height and width before padding.
        """
        logits, deltas = self(pyramid, proposals.boxes)
        return select_detections(logits, deltas, proposals, image_sizes, self.settings)

    def compute_losses(
        self,
        pyramid: list[Tensor],
        proposals: Proposals,
        truth: GroundTruth,
        make_keys: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Returns the mean classification and box losses of the sampled proposals.

        Both are sums over the global batch, divided by its number of sampled proposals, even though
        only positives have a box loss.

        Args:
            pyramid: list of tensors `(B, H_l, W_l, C)`, finest first.
            proposals: `Proposals`.
            truth: `GroundTruth`.
            make_keys: function of a number N that returns keys `(B, N)` in [0, 1).
        """
        candidates, found = match_proposals(proposals, truth, self.settings.positive_iou)
        keys = make_keys(ops.shape(candidates)[1])
        losses = None
        if getattr(self.sampler, "needs_losses", False):
            losses = self._losses_of_all(pyramid, candidates, found, truth)
        indices, targets = sample_targets(found, truth, self.sampler, keys, losses)
        sampled = ops.stop_gradient(take_rows(candidates, indices))
        # Nothing is sampled from the blank image of a replica without images.
        present = ops.cast(ops.any(targets.weights > 0, axis=1), "float32")
        self.positives.update_state(mean_per_image(targets.is_positive, present))
        logits, deltas = self(pyramid, sampled)
        normaliser = replicas.sum_over_replicas(ops.sum(targets.weights))
        normaliser = ops.maximum(normaliser, 1.0)  # a batch without any proposal
        return (
            self._class_loss(logits, targets) / normaliser,
            self.box_loss_weight * self._box_loss(deltas, sampled, targets) / normaliser,
        )

    def _losses_of_all(self, pyramid, candidates, found, truth):
        """Classification loss of every candidate `(B, N)`, without gradient."""
        pyramid = [ops.stop_gradient(level) for level in pyramid]
        logits, _ = self(pyramid, ops.stop_gradient(candidates))
        labels = take_rows(truth.labels, found.matched_gt)
        return ops.stop_gradient(self._cross_entropy(logits, labels, found.is_positive))

    def _cross_entropy(self, logits, labels, is_positive):
        labels = ops.where(is_positive, labels, self.num_classes)
        logits = ops.cast(logits, "float32")
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def _class_loss(self, logits, targets):
        loss = self._cross_entropy(logits, targets.labels, targets.is_positive)
        return ops.sum(loss * targets.weights)

    def _box_loss(self, deltas, sampled, targets):
        by_class = ops.reshape(deltas, (-1, self.num_classes, 4))
        own = take_rows(by_class, ops.reshape(targets.labels, (-1, 1)))
        own = ops.reshape(own, ops.shape(sampled))
        goal = encode(targets.boxes, sampled, self.settings.stds)
        # Background has no box: equal zeros on both sides keep its loss and gradient at 0.
        mask = targets.is_positive[..., None]
        own = ops.where(mask, ops.cast(own, "float32"), 0.0)
        loss = self.box_loss.call(ops.where(mask, goal, 0.0), own)
        return ops.sum(loss * targets.weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}
