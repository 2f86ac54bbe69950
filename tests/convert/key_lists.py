"""Names and shapes of the tensors in checkpoints, made from rules; needs no framework.

GENERATED, not taken from real files. The rules are those of the real lists: mmdetection's of three
published models, and torchvision's own; `test_key_lists.py` compares with them. What no real list
was there for (see `MMDETECTION`) follows from the same rules and from mmdetection's documentation.
timm's resnet50 and resnext50_32x4d have torchvision's names.

A list is a dict from name to shape, in the order of the file; 0-dimensional counters have ().
"""

import re

RESNETS = {
    "resnet50": ((3, 4, 6, 3), 1, 64),
    "resnet101": ((3, 4, 23, 3), 1, 64),
    "resnext50_32x4d": ((3, 4, 6, 3), 32, 4),
    "resnext101_64x4d": ((3, 4, 23, 3), 64, 4),
}


def resnet(name, counters=True):
    """Tensors of a network without its classifier; `counters`: of batches that norms have seen."""
    blocks, groups, base_width = RESNETS[name]
    keys = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64, counters)}
    channels = 64
    for stage, count in enumerate(blocks):
        width, out = (64 << stage) * base_width // 64 * groups, 256 << stage
        for block in range(count):
            prefix = f"layer{stage + 1}.{block}"
            keys |= _bottleneck(prefix, channels, width, out, groups, counters)
            channels = out
    return keys


def _bottleneck(prefix, channels, width, out, groups, counters):
    shapes = (width, channels, 1, 1), (width, width // groups, 3, 3), (out, width, 1, 1)
    keys = {}
    for i, shape in enumerate(shapes, 1):
        keys |= {f"{prefix}.conv{i}.weight": shape}
        keys |= _norm(f"{prefix}.bn{i}", shape[0], counters)
    if prefix.endswith(".0"):
        keys |= {f"{prefix}.downsample.0.weight": (out, channels, 1, 1)}
        keys |= _norm(f"{prefix}.downsample.1", out, counters)
    return keys


def _norm(name, channels, counters):
    kinds = ("weight", "bias", "running_mean", "running_var")
    keys = {f"{name}.{kind}": (channels,) for kind in kinds}
    return keys | ({f"{name}.num_batches_tracked": ()} if counters else {})


def layer(name, *shape):
    """Weight and bias of one convolution or one matrix."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _prefixed(prefix, keys):
    return {f"{prefix}.{name}": shape for name, shape in keys.items()}


# --- torchvision


def torchvision_classifier(network):
    """`torchvision.models.resnet50()` and the like; timm's files have the same names."""
    return resnet(network) | layer("fc", 1000, 2048)


def torchvision_faster_rcnn(counters=False):
    """`fasterrcnn_resnet50_fpn` of 91 classes; `counters`: with norms that are not frozen."""
    keys = _prefixed("backbone.body", resnet("resnet50", counters))
    keys |= _torchvision_fpn((256, 512, 1024, 2048))
    keys |= layer("rpn.head.conv.0.0", 256, 256, 3, 3)
    keys |= layer("rpn.head.cls_logits", 3, 256, 1, 1) | layer("rpn.head.bbox_pred", 12, 256, 1, 1)
    keys |= layer("roi_heads.box_head.fc6", 1024, 12544)
    keys |= layer("roi_heads.box_head.fc7", 1024, 1024)
    keys |= layer("roi_heads.box_predictor.cls_score", 91, 1024)
    return keys | layer("roi_heads.box_predictor.bbox_pred", 364, 1024)


def torchvision_retinanet(counters=False):
    """`retinanet_resnet50_fpn` of 91 classes."""
    keys = _prefixed("backbone.body", resnet("resnet50", counters))
    keys |= _torchvision_fpn((512, 1024, 2048))
    keys |= layer("backbone.fpn.extra_blocks.p6", 256, 256, 3, 3)
    keys |= layer("backbone.fpn.extra_blocks.p7", 256, 256, 3, 3)
    branches = {"classification_head": ("cls_logits", 819), "regression_head": ("bbox_reg", 36)}
    for branch, (last, outputs) in branches.items():
        for i in range(4):
            keys |= layer(f"head.{branch}.conv.{i}.0", 256, 256, 3, 3)
        keys |= layer(f"head.{branch}.{last}", outputs, 256, 3, 3)
    return keys


def _torchvision_fpn(channels):
    keys = {}
    for i, inputs in enumerate(channels):
        keys |= layer(f"backbone.fpn.inner_blocks.{i}.0", 256, inputs, 1, 1)
    for i in range(len(channels)):
        keys |= layer(f"backbone.fpn.layer_blocks.{i}.0", 256, 256, 3, 3)
    return keys


def before_0_13(name):
    """The older name of a tensor of torchvision's detectors: that of the published files.

    A convolution was not yet a block with an activation, and RetinaNet's activations had numbers.
    """
    name = re.sub(r"((?:inner|layer)_blocks\.\d+)\.0\.", r"\1.", name)
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(
        r"(_head\.conv)\.(\d+)\.0\.", lambda m: f"{m.group(1)}.{2 * int(m.group(2))}.", name
    )


# --- mmdetection


def fpn(prefix, channels, extra=()):
    """Lateral and output convolutions; `extra`: input channels of levels of stride 2."""
    keys = {}
    for i, inputs in enumerate(channels):
        keys |= layer(f"{prefix}.lateral_convs.{i}.conv", 256, inputs, 1, 1)
    for i, inputs in enumerate([256] * len(channels) + list(extra)):
        keys |= layer(f"{prefix}.fpn_convs.{i}.conv", 256, inputs, 3, 3)
    return keys


def pafpn(prefix):
    """The path aggregation pyramid: three convolutions down, three more out."""
    keys = fpn(prefix, C2_TO_C5)
    for branch in ("downsample_convs", "pafpn_convs"):
        for i in range(3):
            keys |= layer(f"{prefix}.{branch}.{i}.conv", 256, 256, 3, 3)
    return keys


def refiner(prefix, output="conv_out"):
    """The non-local block of a balanced pyramid."""
    names = ("g", output, "theta", "phi")
    return {k: v for n in names for k, v in layer(f"{prefix}.{n}.conv", 256, 256, 1, 1).items()}


def rpn_head():
    keys = layer("rpn_head.rpn_conv", 256, 256, 3, 3) | layer("rpn_head.rpn_cls", 3, 256, 1, 1)
    return keys | layer("rpn_head.rpn_reg", 12, 256, 1, 1)


def box_head(prefix, boxes=80):
    """Two shared layers; 81 rows of scores, and four numbers for each of `boxes` classes."""
    keys = layer(f"{prefix}.fc_cls", 81, 1024) | layer(f"{prefix}.fc_reg", 4 * boxes, 1024)
    keys |= layer(f"{prefix}.shared_fcs.0", 1024, 12544)
    return keys | layer(f"{prefix}.shared_fcs.1", 1024, 1024)


def retina_head():
    keys = {}
    for branch in ("cls_convs", "reg_convs"):
        for i in range(4):
            keys |= layer(f"bbox_head.{branch}.{i}.conv", 256, 256, 3, 3)
    keys |= layer("bbox_head.retina_cls", 720, 256, 3, 3)
    return keys | layer("bbox_head.retina_reg", 36, 256, 3, 3)


C2_TO_C5 = (256, 512, 1024, 2048)
C3_TO_C5, P6_AND_P7 = C2_TO_C5[1:], (2048, 256)


def _backbone(network="resnet50"):
    return _prefixed("backbone", resnet(network))


def _libra_faster_rcnn(network):
    neck = fpn("neck.0", C2_TO_C5) | refiner("neck.1.refine")
    return _backbone(network) | neck | rpn_head() | box_head("roi_head.bbox_head")


def _faster_rcnn(neck):
    return _backbone() | neck | rpn_head() | box_head("roi_head.bbox_head")


def _first_era():
    """mmdetection 1.x: the background is row 0 of the scores, and has four numbers of a box."""
    neck = fpn("neck.0", C2_TO_C5) | refiner("neck.1.refine")
    return _backbone() | neck | rpn_head() | box_head("bbox_head", boxes=81)


def _libra_retinanet():
    neck = fpn("neck.0", C3_TO_C5, P6_AND_P7) | refiner("neck.1.refine")
    return _backbone() | neck | retina_head()


MMDETECTION = {  # the first three are compared with lists of real files
    "libra-faster-rcnn_r50": lambda: _libra_faster_rcnn("resnet50"),
    "libra-faster-rcnn_x101-64x4d": lambda: _libra_faster_rcnn("resnext101_64x4d"),
    "libra-retinanet_r50": _libra_retinanet,
    "libra-faster-rcnn_r101": lambda: _libra_faster_rcnn("resnet101"),
    "faster-rcnn_r50": lambda: _faster_rcnn(fpn("neck", C2_TO_C5)),
    "faster-rcnn_r50_pafpn": lambda: _faster_rcnn(pafpn("neck")),
    "retinanet_r50": lambda: _backbone() | fpn("neck", C3_TO_C5, P6_AND_P7) | retina_head(),
    "rpn_r50": lambda: _backbone() | fpn("neck", C2_TO_C5) | rpn_head(),
    "libra_faster_rcnn_r50 of 1.x": _first_era,
    "libra_retinanet_r50 of 1.x": _libra_retinanet,  # sigmoids have no background: nothing moved
}


def first_release(keys):
    """The names of the first release (2019): `conv_mask` instead of `conv_out`."""
    return {name.replace(".conv_out.", ".conv_mask."): shape for name, shape in keys.items()}
