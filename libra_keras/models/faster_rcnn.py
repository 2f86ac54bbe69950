"""The two-stage detector."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from libra_keras.data.images import InputPolicy
from libra_keras.models.box_head import BoxHead
from libra_keras.models.detector import Detector
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.inputs import Batch, images_and_sizes
from libra_keras.models.proposals import Proposals
from libra_keras.models.rpn_head import RPNHead
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class FasterRCNN(Detector):
    """Two-stage detector: a backbone, a pyramid, proposals, and a box head.

    Plain and Libra R-CNN are the same class with other parts: the neck with or without a
    `BalancedFeaturePyramid`, the box head with a random or a balanced sampler and with an L1 or a
    `BalancedL1Loss`. All weights exist as soon as the object does.

    Args:
        backbone: layer or model from normalised images to a dict or list of feature maps.
        neck: layer, or list of layers applied one after the other, from the backbone's outputs to
            a dict or list of pyramid levels, finest first.
        rpn: `RPNHead`; reads all levels.
        box_head: `BoxHead`; reads the finest levels, as many as its RoIAlign has strides.
        normalization: layer `(images, image_sizes)` that scales pixels. Defaults to
            `ImageNormalization()`, RGB as torchvision's weights expect it, or to
            `ImageNormalization.none()` if the backbone is a `BackboneAdapter` of a network that
            scales pixels itself.
        input_policy: `InputPolicy`, how `detect` and the data pipeline size images.
        class_names: list of K strings, or `None`.
        seed: int; with the count of steps it determines which boxes are sampled.

    Call arguments:
        x: dict of `"images"` `(B, H, W, 3)`, RGB in 0..255, padded at the right and the bottom to
            multiples of 32, and `"image_sizes"` `(B, 2)`, height and width before padding. Images
            on their own suffice if none is padded.
        training: bool.

    Returns:
        Dict of the raw outputs `"pyramid"` and `"rpn"`, and, unless training, `"proposals"` and
        the detections `"boxes"` `(B, D, 4)` in pixels of the padded image, `"scores"` `(B, D)`,
        `"labels"` `(B, D)` (-1 is padding) and `"num_detections"` `(B,)`. `predict` returns the
        detections only.

    Raises:
        ValueError: if `class_names` does not have one name per class.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> model = libra_faster_rcnn_small(num_classes=6)
    >>> images = np.zeros((1, 64, 96, 3), "uint8")
    >>> sorted(model.predict({"images": images}, verbose=0))
    ['boxes', 'labels', 'num_detections', 'scores']

    Reference: [Ren et al., 2015](https://arxiv.org/abs/1506.01497);
    [Lin et al., 2017](https://arxiv.org/abs/1612.03144);
    [Pang et al., 2019](https://arxiv.org/abs/1904.02701).
    """

    LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
    PARTS = ("rpn", "box_head")

    def __init__(
        self,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer | list[keras.layers.Layer],
        rpn: RPNHead,
        box_head: BoxHead,
        normalization: keras.layers.Layer | None = None,
        input_policy: InputPolicy | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, neck, normalization, input_policy, class_names, seed, **kwargs)
        self.rpn = rpn
        self.box_head = box_head
        self.build((None, None, None, 3))

    @property
    def num_classes(self) -> int:
        """Number of classes without the background."""
        return self.box_head.num_classes

    def heads(self) -> list[keras.layers.Layer]:
        """Returns the layers that read the pyramid."""
        return [self.rpn, self.box_head]

    def call(self, x: Batch, training: bool = False) -> dict[str, Any]:
        images, image_sizes = images_and_sizes(x)
        pyramid = self.pyramid(images, image_sizes, training)
        outputs = {"pyramid": pyramid, "rpn": self.rpn(pyramid)}
        if training:
            return outputs
        proposals = self.rpn.propose(outputs["rpn"], image_sizes)
        detections = self.box_head.detect(pyramid, proposals, image_sizes)
        return {**outputs, "proposals": proposals._asdict(), **detections}

    def compute_losses(
        self, x: Batch, truth: GroundTruth, y_pred: dict[str, Any], training: bool
    ) -> tuple[Tensor, ...]:
        """Returns the class and box losses of both stages."""
        _, image_sizes = images_and_sizes(x)
        make_rpn_keys, make_box_keys = (
            self.key_maker(ops.shape(truth.labels)[0], stage) for stage in (0, 1)
        )
        rpn_losses = self.rpn.compute_losses(y_pred["rpn"], truth, image_sizes, make_rpn_keys)
        if training or "proposals" not in y_pred:
            proposals = self.rpn.propose(y_pred["rpn"], image_sizes, training=training)
        else:
            proposals = Proposals(**y_pred["proposals"])
        box_losses = self.box_head.compute_losses(
            y_pred["pyramid"], proposals, truth, make_box_keys
        )
        return *rpn_losses, *box_losses

    def propose(self, x: Batch) -> dict[str, Tensor]:
        """Returns the first stage's proposals for a batch.

        Args:
            x: as in `call`.

        Returns:
            Dict of `"boxes"` `(B, P, 4)` in pixels of the padded image, `"scores"` `(B, P)` and
            `"mask"` `(B, P)`, best first.
        """
        images, image_sizes = images_and_sizes(x)
        outputs = self.rpn(self.pyramid(images, image_sizes))
        return self.rpn.propose(outputs, image_sizes)._asdict()
