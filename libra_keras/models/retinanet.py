"""The one-stage detector."""

from collections.abc import Sequence
from typing import Any

import keras

from libra_keras.data.images import InputPolicy
from libra_keras.models.detector import Detector
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.inputs import Batch, images_and_sizes
from libra_keras.models.retina_head import RetinaHead
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class RetinaNet(Detector):
    """One-stage detector: a backbone, a pyramid, and a head that answers for every anchor.

    Plain and Libra RetinaNet are the same class with other parts: the neck with or without a
    `BalancedFeaturePyramid`, and the head with an L1 or a `BalancedL1Loss`. All weights exist as
    soon as the object does.

    Args:
        backbone: layer or model from normalised images to a dict or list of feature maps.
        neck: layer, or list of layers applied one after the other, from the backbone's outputs to
            a dict or list of pyramid levels, finest first, one for each of the head's strides.
        head: `RetinaHead`.
        normalization: layer `(images, image_sizes)` that scales pixels. Defaults to
            `ImageNormalization()`, RGB as torchvision's weights expect it, or to
            `ImageNormalization.none()` if the backbone is a `BackboneAdapter` of a network that
            scales pixels itself.
        input_policy: `InputPolicy`, how `detect` and the data pipeline size images.
        class_names: list of K strings, or `None`.
        seed: int, kept for consistency with the other detectors; nothing is sampled here.

    Call arguments:
        x: dict of `"images"` `(B, H, W, 3)`, RGB in 0..255, padded at the right and the bottom to
            multiples of 32, and `"image_sizes"` `(B, 2)`, height and width before padding. Images
            on their own suffice if none is padded.
        training: bool.

    Returns:
        Dict of the raw outputs `"pyramid"` and `"head"`, and, unless training, the detections
        `"boxes"` `(B, D, 4)` in pixels of the padded image, `"scores"` `(B, D)`, `"labels"`
        `(B, D)` (-1 is padding) and `"num_detections"` `(B,)`. `predict` returns the detections
        only.

    Raises:
        ValueError: if `class_names` does not have one name per class.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import libra_retinanet_small
    >>> model = libra_retinanet_small(num_classes=6)
    >>> images = np.zeros((1, 64, 96, 3), "uint8")
    >>> sorted(model.predict({"images": images}, verbose=0))
    ['boxes', 'labels', 'num_detections', 'scores']

    Reference: [Lin et al., 2017](https://arxiv.org/abs/1708.02002);
    [Pang et al., 2019](https://arxiv.org/abs/1904.02701), section 4.2.
    """

    LOSSES = ("class_loss", "box_loss")
    PARTS = ("head",)

    def __init__(
        self,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer | list[keras.layers.Layer],
        head: RetinaHead,
        normalization: keras.layers.Layer | None = None,
        input_policy: InputPolicy | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, neck, normalization, input_policy, class_names, seed, **kwargs)
        self.head = head
        self.build((None, None, None, 3))

    @property
    def num_classes(self) -> int:
        """Number of classes without the background."""
        return self.head.num_classes

    def heads(self) -> list[keras.layers.Layer]:
        """Returns the layers that read the pyramid."""
        return [self.head]

    def call(self, x: Batch, training: bool = False) -> dict[str, Any]:
        images, image_sizes = images_and_sizes(x)
        pyramid = self.pyramid(images, image_sizes, training)
        outputs = {"pyramid": pyramid, "head": self.head(pyramid)}
        if training:
            return outputs
        return {**outputs, **self.head.detect(outputs["head"], image_sizes)}

    def compute_losses(
        self, x: Batch, truth: GroundTruth, y_pred: dict[str, Any], training: bool
    ) -> tuple[Tensor, ...]:
        """Returns the class and box losses of all anchors."""
        _, image_sizes = images_and_sizes(x)
        return self.head.compute_losses(y_pred["head"], truth, image_sizes)
