"""The first stage as a detector of its own: where might an object be, of whatever class?"""

import dataclasses
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from libra_keras.data.images import InputPolicy
from libra_keras.models.detector import Detector
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.inputs import Batch, images_and_sizes
from libra_keras.models.rpn_head import RPNHead
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class RegionProposalNetwork(Detector):
    """Finds boxes that may hold an object: a backbone, a pyramid, and a proposal head.

    It knows one class, `"object"`, so it trains on data of any classes. Its proposals can be
    written to a file with `libra_keras.data.write_proposals`, for `FastRCNN` or other programs.
    Plain and Libra RPN are the same class with other parts: the neck with or without a
    `BalancedFeaturePyramid`, the head with a random or an IoU-balanced sampler.

    Args:
        backbone: layer or model from normalised images to a dict or list of feature maps.
        neck: layer, or list of layers applied one after the other, from the backbone's outputs to
            a dict or list of pyramid levels, finest first.
        rpn: `RPNHead`; reads all levels.
        normalization: layer `(images, image_sizes)` that scales pixels. Defaults to
            `ImageNormalization()`, RGB as torchvision's weights expect it, or to
            `ImageNormalization.none()` if the backbone is a `BackboneAdapter` of a network that
            scales pixels itself.
        input_policy: `InputPolicy`, how `detect` and the data pipeline size images.
        seed: int; with the count of steps it determines which anchors are sampled.

    Raises:
        TypeError: if classes are given.

    Call arguments:
        x: dict of `"images"` `(B, H, W, 3)`, RGB in 0..255, padded at the right and the bottom to
            multiples of 32, and `"image_sizes"` `(B, 2)`, height and width before padding. Images
            on their own suffice if none is padded.
        training: bool.

    Returns:
        Dict of the raw outputs `"rpn"`, and, unless training, the proposals: `"boxes"`
        `(B, P, 4)` in pixels of the padded image, `"scores"` `(B, P)` and `"mask"` `(B, P)`, false
        in padding; best first. `predict` returns the proposals only.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import libra_rpn_small
    >>> model = libra_rpn_small()
    >>> found = model.predict({"images": np.zeros((1, 64, 96, 3), "uint8")}, verbose=0)
    >>> sorted(found), found["boxes"].shape
    (['boxes', 'mask', 'scores'], (1, 200, 4))

    Reference: [Ren et al., 2015](https://arxiv.org/abs/1506.01497), section 3.1;
    [Pang et al., 2019](https://arxiv.org/abs/1904.02701), table 3.
    """

    LOSSES = ("rpn_class_loss", "rpn_box_loss")
    OUTPUTS = ("boxes", "scores", "mask")
    PARTS = ("rpn",)

    def __init__(
        self,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer | list[keras.layers.Layer],
        rpn: RPNHead,
        normalization: keras.layers.Layer | None = None,
        input_policy: InputPolicy | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        unknown = sorted({"num_classes", "class_names"} & kwargs.keys())
        if unknown:
            raise TypeError(
                "A region proposal network knows no classes: it finds objects of any class. "
                f"Received: {', '.join(unknown)}"
            )
        super().__init__(backbone, neck, normalization, input_policy, ["object"], seed, **kwargs)
        self.rpn = rpn
        self.build((None, None, None, 3))

    @classmethod
    def of(cls, detector: Detector, num: int | None = None) -> Self:
        """Returns the first stage of a two-stage detector; its layers are shared, not copied.

        Args:
            detector: `FasterRCNN`, or another detector with an `rpn`.
            num: int, maximum number of proposals per image. Defaults to the detector's own; any
                other value copies the head, and lets at least as many anchors of a level enter NMS.

        Raises:
            ValueError: if the detector has no such stage, or `num` is not positive.

        Example:

        >>> from libra_keras.models import RegionProposalNetwork, faster_rcnn_small
        >>> model = RegionProposalNetwork.of(faster_rcnn_small(num_classes=6), num=50)
        >>> model.rpn.settings.post_nms
        50
        """
        rpn = getattr(detector, "rpn", None)
        if rpn is None:
            raise ValueError(
                "Only a detector with a first stage, an `rpn`, can propose boxes. "
                f"Received: {type(detector).__name__}"
            )
        if num is not None:
            rpn = _with_most(rpn, num)
        parts = detector.normalization, detector.input_policy, detector.seed
        return cls(detector.backbone, detector.neck, rpn, *parts, dtype=detector.dtype_policy)

    @property
    def num_classes(self) -> int:
        """1: an object, of whatever class."""
        return 1

    def heads(self) -> list[keras.layers.Layer]:
        """Returns the layers that read the pyramid."""
        return [self.rpn]

    def call(self, x: Batch, training: bool = False) -> dict[str, Any]:
        images, image_sizes = images_and_sizes(x)
        outputs = {"rpn": self.rpn(self.pyramid(images, image_sizes, training))}
        if training:
            return outputs
        return {**outputs, **self.rpn.propose(outputs["rpn"], image_sizes)._asdict()}

    def compute_losses(
        self, x: Batch, truth: GroundTruth, y_pred: dict[str, Any], training: bool
    ) -> tuple[Tensor, ...]:
        """Returns the class and box losses of the sampled anchors."""
        _, image_sizes = images_and_sizes(x)
        make_keys = self.key_maker(ops.shape(truth.labels)[0], stage=0)
        return self.rpn.compute_losses(y_pred["rpn"], truth, image_sizes, make_keys)

    def propose(self, x: Batch) -> dict[str, np.ndarray]:
        """Returns a batch's proposals as `predict_on_batch` does: a dict of arrays.

        Args:
            x: as in `call`.
        """
        return self.predict_on_batch(x)

    def detect(  # type: ignore[override]  # no tiles: nobody merges proposals
        self,
        images: Any,
        score_threshold: float = 0.0,
        batch_size: int = 1,
        exif_rotation: bool = False,
    ) -> Any:  # a dict, or a list of them
        """Proposes boxes in images of any kind and size, in each image's own pixels.

        Args:
            images, batch_size, exif_rotation: as in `Detector.detect`.
            score_threshold: float in 0..1; lower scores are left out. Defaults to 0, which keeps
                all.

        Returns:
            As `Detector.detect`; all labels are 0, and all names `"object"`.
        """
        return super().detect(images, score_threshold, batch_size, exif_rotation)

    def get_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().get_config().items() if key != "class_names"}


def _with_most(rpn, num):
    """A copy of a head that proposes up to `num` boxes an image."""
    if num < 1:
        raise ValueError(f"`num` must be at least 1. Received: num={num}")
    entering = max(num, rpn.settings.pre_nms_test)
    settings = dataclasses.replace(rpn.settings, pre_nms_test=entering, post_nms=num)
    parts = {"settings": settings, "sampler": rpn.sampler, "box_loss": rpn.box_loss}
    copy = type(rpn).from_config({**rpn.get_config(), **parts})
    copy.build([rpn.shared_conv.kernel.shape[2:3]])
    copy.set_weights(rpn.get_weights())
    return copy
