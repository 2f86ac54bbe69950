"""Puts the weights of the reference's small detectors into ours, name by name."""

import json

import numpy as np

from libra_keras.backbones import ResNet
from libra_keras.layers import BalancedFeaturePyramid, FeaturePyramid, MultilevelROIAlign
from libra_keras.losses import BalancedL1Loss
from libra_keras.models import BoxHead, BoxHeadSettings, FasterRCNN, RPNHead, RPNSettings


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
    fpn, bfp = model.neck
    layers = {
        **{f"neck.0.lateral_convs.{i}.conv": conv for i, conv in enumerate(fpn.lateral_convs)},
        **{f"neck.0.fpn_convs.{i}.conv": conv for i, conv in enumerate(fpn.output_convs)},
        **{
            f"neck.1.refine.{part}.conv": getattr(bfp.refiner, part)
            for part in ("g", "theta", "phi", "conv_out")
        },
        "rpn_head.rpn_conv": model.rpn.shared_conv,
        "rpn_head.rpn_cls": model.rpn.logits_conv,
        "rpn_head.rpn_reg": model.rpn.deltas_conv,
        "roi_head.bbox_head.shared_fcs.0": model.box_head.hidden[0],
        "roi_head.bbox_head.shared_fcs.1": model.box_head.hidden[1],
        "roi_head.bbox_head.fc_cls": model.box_head.class_logits,
        "roi_head.bbox_head.fc_reg": model.box_head.box_deltas,
    }
    found = {}
    for name, layer in layers.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = layer.kernel, layer.bias
    return {**found, **backbone_variables(model.backbone)}


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
