"""Checkpoints of torchvision's `fasterrcnn_resnet50_fpn` and `retinanet_resnet50_fpn`."""

import re

import numpy as np

from libra_keras.convert.canonical import COUNTER, COUNTER_REASON, Canonical, renamed
from libra_keras.data.known_classes import COCO_CATEGORIES

_COCO_OUTPUTS = 91  # ids of COCO's categories go up to 90; 0 is the background
# The published files, by the start of their hash (which their names end in): they were trained
# without an epsilon, and torchvision sets it to 0 when it loads them.
PUBLISHED = {
    "258fb6c6": "fasterrcnn_resnet50_fpn, COCO_V1",
    "eeacb38b": "retinanet_resnet50_fpn, COCO_V1",
}


def _halved(match):
    """Before 0.13 the head's convolutions were counted 0, 2, 4, 6, with their ReLUs between."""
    return f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}"


_RULES = [
    (r"^backbone\.body\.", "backbone."),
    # Before 0.13 convolutions were not wrapped: the index 0 of the wrapper is optional.
    (r"^backbone\.fpn\.inner_blocks\.(\d+)(?:\.0)?\.", r"neck.0.lateral_convs.\1.conv."),
    (r"^backbone\.fpn\.layer_blocks\.(\d+)(?:\.0)?\.", r"neck.0.fpn_convs.\1.conv."),
    (r"^rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)$", r"rpn_head.rpn_conv.\1"),
    (r"^rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_head.bbox_head.shared_fcs.0."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_head.bbox_head.shared_fcs.1."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "roi_head.bbox_head.fc_cls."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_head.bbox_head.fc_reg."),
    (r"^(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)$", _halved),
    (r"^head\.classification_head\.conv\.(\d+)\.0\.", r"bbox_head.cls_convs.\1.conv."),
    (r"^head\.regression_head\.conv\.(\d+)\.0\.", r"bbox_head.reg_convs.\1.conv."),
    (r"^head\.classification_head\.cls_logits\.", "bbox_head.retina_cls."),
    (r"^head\.regression_head\.bbox_reg\.", "bbox_head.retina_reg."),
]


def is_torchvision(tensors):
    """Whether the names are those of a detector of torchvision."""
    return "backbone.body.conv1.weight" in tensors


def from_torchvision(checkpoint, class_names=None, epsilon=None):
    """Brings a checkpoint of torchvision to mmdetection's names and order of classes."""
    rules = [*_RULES, *_extra_level_rules(checkpoint.tensors)]
    tensors, origin, unused = renamed(checkpoint.tensors, rules, [(COUNTER, COUNTER_REASON)])
    result = Canonical(tensors, origin, unused, "torchvision", geometry="torchvision")
    result.extra_relu = True
    result.epsilon = _epsilon(checkpoint, epsilon, result.notes)
    _choose_classes(result, class_names)
    return result


def _extra_level_rules(tensors):
    """P6 and P7 are numbered after the levels of the backbone."""
    found = (re.match(r"backbone\.fpn\.layer_blocks\.(\d+)\.", name) for name in tensors)
    levels = len({match[1] for match in found if match})
    return [
        (rf"^backbone\.fpn\.extra_blocks\.p{6 + i}\.", f"neck.0.fpn_convs.{levels + i}.conv.")
        for i in range(2)
    ]


def _epsilon(checkpoint, epsilon, notes):
    if epsilon is not None:
        return epsilon
    published = PUBLISHED.get(checkpoint.sha256[:8])
    if published:
        notes.append(f"These are torchvision's published weights ({published}): epsilon 0.")
        return 0.0
    notes.append(
        "Batch normalisation has epsilon 1e-5. If the detector was fine-tuned from torchvision's "
        "COCO weights, it was trained with 0: pass `--batch-norm-epsilon 0`."
    )
    return 1e-5


def _choose_classes(result, class_names):
    """Drops the outputs that belong to no class, and puts the background last."""
    head, retina = "roi_head.bbox_head", "bbox_head"
    anchors = len(result.tensors.get(f"{retina}.retina_reg.bias", ())) // 4
    logits = result.tensors.get(f"{retina}.retina_cls.bias")
    if logits is not None and anchors and len(logits) % anchors == 0:
        outputs = len(logits) // anchors
    else:
        outputs = len(result.tensors.get(f"{head}.fc_cls.bias", ()))
    kept, result.class_names = _kept(outputs, class_names, result.notes)
    for kind in ("weight", "bias"):
        result.replace(f"{head}.fc_cls.{kind}", lambda x: x[[*kept, 0]])
        result.replace(f"{head}.fc_reg.{kind}", lambda x: _flat(_grouped(x, outputs, 4)[kept]))
        result.replace(
            f"{retina}.retina_cls.{kind}", lambda x: _flat(_grouped(x, anchors, outputs)[:, kept])
        )


def _kept(outputs, class_names, notes):
    """Which outputs stay, and what they are called."""
    if outputs == _COCO_OUTPUTS and (class_names is None or len(class_names) == 80):
        notes.append("Of 91 outputs, those of COCO's 80 categories and the background are kept.")
        return np.array(list(COCO_CATEGORIES)), list(COCO_CATEGORIES.values())
    return np.arange(1, outputs), class_names


def _grouped(x, groups, each):
    """Splits the first axis in two."""
    if groups * each != len(x):
        raise ValueError(f"the class layers have {len(x)} outputs instead of {groups} x {each}")
    return x.reshape(groups, each, *x.shape[1:])


def _flat(x):
    """Joins the first two axes."""
    return x.reshape(-1, *x.shape[2:])
