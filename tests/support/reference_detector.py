"""Puts the weights of the reference's small detectors into ours, name by name."""

import numpy as np

from libra_keras.backbones import ResNet
from libra_keras.convert.canonical import Canonical, in_our_layout, named_variables, place
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid, MultilevelROIAlign
from libra_keras.losses import BalancedL1Loss
from libra_keras.models import (
    BoxHead,
    BoxHeadSettings,
    FasterRCNN,
    RetinaHead,
    RetinaHeadSettings,
    RetinaNet,
    RPNHead,
    RPNSettings,
)

__all__ = ["in_our_layout", "named_variables"]  # for the tests that import from here


def small_libra_faster_rcnn(depth, width, **parts):
    """The architecture of `libra_frcnn_r50b8` (50, 8) and `libra_frcnn_r18b16` (18, 16)."""
    rpn_settings = RPNSettings(channels=32, **parts.get("rpn_settings", {}))
    return FasterRCNN(
        backbone=ResNet(depth, width=width),
        neck=[FeaturePyramid(32), BalancedFeaturePyramid(2, refiner="non_local")],
        rpn=RPNHead(rpn_settings, sampler=parts.get("rpn_sampler")),
        box_head=BoxHead(
            80,
            BoxHeadSettings(channels=64, max_candidates=4000),
            sampler=parts.get("box_sampler"),
            box_loss=BalancedL1Loss(),
            roi_align=MultilevelROIAlign(sampling_ratio=0),
        ),
    )


def small_libra_retinanet():
    """The architecture of `libra_retina_r50b8`."""
    return RetinaNet(
        backbone=ResNet(50, width=8),
        neck=[
            FeaturePyramid(32, start_level=1, extra_levels="on_input"),
            BalancedFeaturePyramid(1, refiner="non_local"),
        ],
        head=RetinaHead(
            20,
            RetinaHeadSettings(channels=32, pre_nms=300),
            box_loss=BalancedL1Loss(beta=0.11),
        ),
    )


def load_reference_weights(model, arrays):
    """Assigns every torch array to its variable; raises if one side has more than the other."""
    arrays = {key: value for key, value in arrays.items() if "num_batches" not in key}
    place(named_variables(model), Canonical(arrays, {}, {}, "mmdetection"))


def rgb_batch(images, height, width):
    """BGR images, padded to one size, as our models take them."""
    batch = np.zeros((len(images), height, width, 3), "uint8")
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image[..., ::-1]
    return {"images": batch, "image_sizes": np.array([i.shape[:2] for i in images], "int32")}


def training_batch(golden, case):
    """The two images of a case of a `_train` file, and their objects."""
    x = rgb_batch([golden[f"{case}/image{i}_bgr_u8"] for i in (0, 1)], 128, 160)
    boxes, labels = np.zeros((2, 6, 4), "float32"), np.full((2, 6), -1, "int32")
    for i in (0, 1):
        count = len(golden[f"{case}/gt_labels{i}"])
        boxes[i, :count] = golden[f"{case}/gt_bboxes{i}"]
        labels[i, :count] = golden[f"{case}/gt_labels{i}"]
    return x, {"boxes": boxes, "labels": labels}
