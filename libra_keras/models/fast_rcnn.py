"""The second stage as a detector of its own, on proposals that come with the images."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from libra_keras.data.images import InputPolicy
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.replicas import with_an_image
from libra_keras.models.box_head import BoxHead
from libra_keras.models.detect import detect
from libra_keras.models.detector import Detector
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.inputs import Batch, images_and_sizes
from libra_keras.models.proposals import Proposals
from libra_keras.typing import Tensor


@keras.saving.register_keras_serializable(package="libra_keras")
class FastRCNN(Detector):
    """Classifies and refines given proposals: a backbone, a pyramid, and a box head.

    This is the set-up of the paper's ablations: all variants see the same proposals, so only the
    second stage differs. `libra_keras.data.with_proposals` adds those of a file to the examples of
    a data set; every batch then contains them.

    Args:
        backbone: layer or model from normalised images to a dict or list of feature maps.
        neck: layer, or list of layers applied one after the other, from the backbone's outputs to
            a dict or list of pyramid levels, finest first.
        box_head: `BoxHead`; reads the finest levels, as many as its RoIAlign has strides.
        normalization: layer `(images, image_sizes)` that scales pixels. Defaults to
            `ImageNormalization()`, RGB as torchvision's weights expect it, or to
            `ImageNormalization.none()` if the backbone is a `BackboneAdapter` of a network that
            scales pixels itself.
        input_policy: `InputPolicy`, how `detect` and the data pipeline size images.
        class_names: list of K strings, or `None`.
        seed: int; with the count of steps it determines which proposals are sampled.

    Call arguments:
        x: dict of `"images"` `(B, H, W, 3)`, RGB in 0..255, padded at the right and the bottom to
            multiples of 32; `"image_sizes"` `(B, 2)`, height and width before padding, which may be
            omitted if none is padded; `"proposals"` `(B, P, 4)` in pixels of the padded image; and,
            optionally, `"proposal_mask"` bool `(B, P)`, false in padding. Without it, boxes without
            an area, such as rows of zeros, are padding.
        training: bool.

    Returns:
        Dict of the raw output `"pyramid"`, and, unless training, the detections `"boxes"`
        `(B, D, 4)` in pixels of the padded image, `"scores"` `(B, D)`, `"labels"` `(B, D)` (-1 is
        padding) and `"num_detections"` `(B,)`. `predict` returns the detections only.

    Raises:
        ValueError: if `class_names` does not have one name per class, or a batch has no proposals.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import libra_fast_rcnn_small
    >>> model = libra_fast_rcnn_small(num_classes=6)
    >>> x = {"images": np.zeros((1, 64, 96, 3), "uint8")}
    >>> x["proposals"] = np.array([[[8, 8, 40, 40], [0, 0, 0, 0]]], "float32")
    >>> model.predict(x, verbose=0)["boxes"].shape
    (1, 50, 4)

    Reference: [Girshick, 2015](https://arxiv.org/abs/1504.08083);
    [Pang et al., 2019](https://arxiv.org/abs/1904.02701), tables 2 and 4 to 6.
    """

    LOSSES = ("class_loss", "box_loss")
    INPUTS = (*Detector.INPUTS, "proposals")
    PARTS = ("box_head",)

    def __init__(
        self,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer | list[keras.layers.Layer],
        box_head: BoxHead,
        normalization: keras.layers.Layer | None = None,
        input_policy: InputPolicy | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, neck, normalization, input_policy, class_names, seed, **kwargs)
        self.box_head = box_head
        self.build((None, None, None, 3))

    @property
    def num_classes(self) -> int:
        """Number of classes without the background."""
        return self.box_head.num_classes

    def heads(self) -> list[keras.layers.Layer]:
        """Returns the layers that read the pyramid."""
        return [self.box_head]

    def call(self, x: Batch, training: bool = False) -> dict[str, Any]:
        proposals = given_proposals(x)
        images, image_sizes = images_and_sizes(x)
        outputs = {"pyramid": self.pyramid(images, image_sizes, training)}
        if training:
            return outputs
        return {**outputs, **self.box_head.detect(outputs["pyramid"], proposals, image_sizes)}

    def compute_losses(
        self, x: Batch, truth: GroundTruth, y_pred: dict[str, Any], training: bool
    ) -> tuple[Tensor, ...]:
        """Returns the class and box losses of the sampled proposals and objects."""
        make_keys = self.key_maker(ops.shape(truth.labels)[0], stage=0)
        return self.box_head.compute_losses(y_pred["pyramid"], given_proposals(x), truth, make_keys)

    def detect(  # type: ignore[override]  # no tiles: proposals are of whole images
        self,
        images: Any,
        score_threshold: float = 0.05,
        batch_size: int = 1,
        exif_rotation: bool = False,
        proposals: Any = None,
    ) -> Any:  # a dict, or a list of them
        """Finds objects in images of any kind and size; boxes are in each image's own pixels.

        Args:
            images, score_threshold, batch_size, exif_rotation: as in `Detector.detect`.
            proposals: boxes `(n, 4)` in pixels of the image, or for a list of images a list of such
                arrays.

        Returns:
            As `Detector.detect`.

        Raises:
            ValueError: if there are no proposals, or not as many arrays as images.
        """
        if proposals is None:
            raise ValueError(
                "`FastRCNN.detect` requires `proposals=`: boxes (n, 4) in pixels of the image, "
                "or a list of such arrays for a list of images. Received: None"
            )
        return detect(self, images, score_threshold, batch_size, exif_rotation, proposals=proposals)


def given_proposals(x: Batch) -> Proposals:
    """Returns the `Proposals` that come with a batch, all with the score 1."""
    if not isinstance(x, dict) or "proposals" not in x:
        received = sorted(x) if isinstance(x, dict) else "images only"
        raise ValueError(
            "`FastRCNN` requires x['proposals'], boxes (B, P, 4) in pixels of the padded images; "
            f"`libra_keras.data.with_proposals` adds those of a file. Received: {received}"
        )
    check_arguments(
        {
            "x['proposals'] (B, P, 4)": x["proposals"],
            "x['proposal_mask'] (B, P) any": x.get("proposal_mask"),
        }
    )
    boxes = with_an_image(ops.cast(ops.convert_to_tensor(x["proposals"]), "float32"))
    mask = ops.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    if "proposal_mask" in x:
        mask = ops.logical_and(mask, with_an_image(ops.cast(x["proposal_mask"], "bool"), False))
    if not boxes.shape[1]:  # what gathers rows later needs one, be it of padding
        batch, num = ops.shape(boxes)[:2]
        # A graph of TensorFlow may learn the number with each batch only.
        more = 1 if boxes.shape[1] == 0 else ops.cast(ops.equal(num, 0), "int32")
        boxes = ops.concatenate([boxes, ops.zeros((batch, more, 4), "float32")], axis=1)
        mask = ops.concatenate([mask, ops.zeros((batch, more), "bool")], axis=1)
    # Whatever stands in padding must not reach a loss: NaN times 0 is NaN.
    boxes = ops.stop_gradient(ops.where(mask[..., None], boxes, 0.0))
    return Proposals(boxes, ops.cast(mask, "float32"), mask)
