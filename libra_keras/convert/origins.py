"""Tells by the names of its tensors which network a checkpoint is of that cannot be converted."""

import re

# Patterns of names, and what has such names; the first that fits.
ORIGINS = [
    (r"(model\.)?model\.\d+\.(conv|bn|cv\d|m|dfl)\b", "a YOLO of ultralytics"),
    (r"(conv1|res_conv1|res\d_\d+_branch\w+?)(_bn)?_[wbs]", "a network of Caffe2 (Detectron)"),
    (r"backbone\.bottom_up\.|proposal_generator\.|roi_heads\.res5\.", "a network of detectron2"),
    (r"(model\.)?(backbone\.(conv_encoder|model)|encoder|decoder)\.", "a transformer such as DETR"),
    (r".*(\.attn\.|cls_token|patch_embed)", "a transformer of images such as ViT or Swin"),
    (r"(backbone|neck|bbox_head|roi_head|rpn_head)\.", "another detector, such as mmdetection's"),
    (r"features\.(\d+|conv0|denseblock\d)\.", "a network of torchvision that is no ResNet"),
    (r"(module|model|net|backbone)\.", "a network inside of another, whose name comes first"),
]


def origin(names):
    """Returns what names of tensors look like, or `None`.

    Args:
        names: strings.

    Example:

    >>> from libra_keras.convert.origins import origin
    >>> origin(["model.0.conv.weight", "model.0.bn.weight"])
    'a YOLO of ultralytics'
    """
    for pattern, description in ORIGINS:
        if any(re.match(pattern, name) for name in names):
            return description
    return None
