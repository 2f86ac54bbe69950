"""Puts the weights of the reference's small detectors into ours, name by name."""

import json

import numpy as np

from libra_keras.backbones import ResNet
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
    variables = named_variables(model)
    arrays = {key: value for key, value in arrays.items() if "num_batches" not in key}
    if set(variables) != set(arrays):
        raise ValueError(json.dumps(sorted(set(variables) ^ set(arrays)), indent=1))
    for name, variable in variables.items():
        variable.assign(in_our_layout(name, arrays[name]))


def in_our_layout(name, array):
    """Torch's layout of an array as ours: HWIO convolutions, (in, out) matrices."""
    if array.ndim == 4:
        return np.transpose(array, (2, 3, 1, 0))
    if name.endswith("shared_fcs.0.weight"):  # flattened channels, rows, columns there
        out = array.shape[0]
        return np.transpose(array.reshape(out, -1, 7, 7), (2, 3, 1, 0)).reshape(-1, out)
    return array.T


def named_variables(model):
    """Our variables by the reference's names."""
    heads = _retina_layers if isinstance(model, RetinaNet) else _two_stage_layers
    found = {}
    for name, layer in {**_neck_layers(*model.neck), **heads(model)}.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = layer.kernel, layer.bias
    return {**found, **backbone_variables(model.backbone)}


def _neck_layers(fpn, bfp):
    output_convs = [*fpn.output_convs, *fpn.extra_convs]
    parts = ("g", "theta", "phi", "conv_out")
    return {
        **{f"neck.0.lateral_convs.{i}.conv": conv for i, conv in enumerate(fpn.lateral_convs)},
        **{f"neck.0.fpn_convs.{i}.conv": conv for i, conv in enumerate(output_convs)},
        **{f"neck.1.refine.{part}.conv": getattr(bfp.refiner, part) for part in parts},
    }


def _two_stage_layers(model):
    return {
        "rpn_head.rpn_conv": model.rpn.shared_conv,
        "rpn_head.rpn_cls": model.rpn.logits_conv,
        "rpn_head.rpn_reg": model.rpn.deltas_conv,
        "roi_head.bbox_head.shared_fcs.0": model.box_head.hidden[0],
        "roi_head.bbox_head.shared_fcs.1": model.box_head.hidden[1],
        "roi_head.bbox_head.fc_cls": model.box_head.class_logits,
        "roi_head.bbox_head.fc_reg": model.box_head.box_deltas,
    }


def _retina_layers(model):
    head = model.head
    return {
        **{f"bbox_head.cls_convs.{i}.conv": conv for i, conv in enumerate(head.class_convs)},
        **{f"bbox_head.reg_convs.{i}.conv": conv for i, conv in enumerate(head.box_convs)},
        "bbox_head.retina_cls": head.class_logits,
        "bbox_head.retina_reg": head.box_deltas,
    }


def backbone_variables(backbone):
    """The backbone's part of `named_variables`."""
    convs = {("conv1", "bn1"): backbone.stem}
    for stage, blocks in enumerate(backbone.stages, start=1):
        for index, block in enumerate(blocks):
            prefix = f"layer{stage}.{index}"
            for number, conv in enumerate(block.convs, start=1):
                convs[f"{prefix}.conv{number}", f"{prefix}.bn{number}"] = conv
            if block.downsample is not None:
                convs[f"{prefix}.downsample.0", f"{prefix}.downsample.1"] = block.downsample
    found = {}
    for (conv, norm), layer in convs.items():
        found[f"backbone.{conv}.weight"] = layer.kernel
        found[f"backbone.{norm}.weight"] = layer.gamma
        found[f"backbone.{norm}.bias"] = layer.beta
        found[f"backbone.{norm}.running_mean"] = layer.moving_mean
        found[f"backbone.{norm}.running_var"] = layer.moving_variance
    return found


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
