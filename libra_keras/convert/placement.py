"""Puts the values of a checkpoint into our variables, all of them or none."""

import numpy as np

from libra_keras.layers import PathAggregationPyramid
from libra_keras.models import RetinaNet


def place(variables, canonical):
    """Assigns every tensor to its variable, after all have been checked.

    Args:
        variables: dict from mmdetection's names to Keras variables, as of `named_variables`.
        canonical: `Canonical`.

    Raises:
        ValueError: if a variable has no tensor, a tensor no variable, or a shape differs; the
            message lists them all.

    Example:

    >>> import numpy as np
    >>> from libra_keras.convert.canonical import Canonical
    >>> from libra_keras.convert.placement import place
    >>> place({}, Canonical({"mask_head.conv.weight": np.zeros(3)}, {}, {}, ""))
    Traceback (most recent call last):
    ValueError: 1 tensor(s) do not fit:
      surplus: mask_head.conv.weight
    """
    values = {name: in_our_layout(name, tensor) for name, tensor in canonical.tensors.items()}
    wrong = _differences(variables, values, canonical)
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        raise ValueError(f"{len(wrong)} tensor(s) do not fit:{lines}")
    for name, variable in variables.items():
        variable.assign(values[name])


def _differences(variables, values, canonical):
    def in_file(name):
        return canonical.origin.get(name, name)

    missing = [f"missing: {name}" for name in variables if name not in values]
    surplus = [f"surplus: {in_file(name)}" for name in values if name not in variables]
    misshaped = [
        f"misshaped: {in_file(name)} is {_shapes(canonical.tensors[name], values[name])}; "
        f"expected {tuple(variable.shape)}"
        for name, variable in variables.items()
        if name in values and tuple(variable.shape) != values[name].shape
    ]
    return [*missing, *surplus, *misshaped]


def _shapes(tensor, value):
    becomes = "" if tensor.shape == value.shape else f", which becomes {value.shape}"
    return f"{tensor.shape}{becomes}"


def in_our_layout(name, array):
    """Returns torch's layout of an array as ours: HWIO convolutions, (in, out) matrices.

    The first fully connected layer reads features flattened as channels, rows, columns there, and
    as rows, columns, channels here.

    Args:
        name: str, mmdetection's name.
        array: NumPy array.

    Example:

    >>> import numpy as np
    >>> from libra_keras.convert.placement import in_our_layout
    >>> in_our_layout("backbone.conv1.weight", np.zeros((64, 3, 7, 7))).shape
    (7, 7, 3, 64)
    """
    if array.ndim == 4:
        return np.transpose(array, (2, 3, 1, 0))
    if not name.endswith("bbox_head.shared_fcs.0.weight"):
        return array.T
    out, inputs = array.shape
    channels = inputs // 49  # 7x7 bins; anything else comes out misshaped
    if channels * 49 != inputs:
        return array.T
    return np.transpose(array.reshape(out, channels, 7, 7), (2, 3, 1, 0)).reshape(-1, out)


def named_variables(model):
    """Returns the variables of a detector by mmdetection's names.

    Args:
        model: `FasterRCNN`, `FastRCNN`, `RetinaNet` or `RegionProposalNetwork` with a `ResNet`.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.convert.placement import named_variables
    >>> from libra_keras.models import rpn_resnet50
    >>> variables = named_variables(rpn_resnet50(backbone=ResNet(50, width=8)))
    >>> tuple(variables["rpn_head.rpn_cls.weight"].shape)
    (1, 1, 256, 3)
    """
    layers = {**_neck_layers(model.neck), **_head_layers(model)}
    found = {}
    for name, layer in layers.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = layer.kernel, layer.bias
    return {**found, **backbone_variables(model.backbone, "backbone.")}


def _neck_layers(neck):
    fpn = neck[0]
    lists = {"lateral_convs": fpn.lateral_convs, "fpn_convs": [*fpn.output_convs, *fpn.extra_convs]}
    if isinstance(fpn, PathAggregationPyramid):
        lists |= {"downsample_convs": fpn.downsample_convs, "pafpn_convs": fpn.aggregation_convs}
    named = {
        f"neck.0.{kind}.{i}.conv": conv for kind, convs in lists.items()
        for i, conv in enumerate(convs)
    }  # fmt: skip
    refiner = neck[1].refiner if len(neck) > 1 else None
    if refiner is None:
        return named
    if not hasattr(refiner, "conv_out"):
        return {**named, "neck.1.refine.conv": refiner}
    parts = ("g", "theta", "phi", "conv_out")
    return {**named, **{f"neck.1.refine.{part}.conv": getattr(refiner, part) for part in parts}}


def _head_layers(model):
    if isinstance(model, RetinaNet):
        return _retina_layers(model.head)
    found = {}
    if hasattr(model, "rpn"):
        found["rpn_head.rpn_conv"] = model.rpn.shared_conv
        found["rpn_head.rpn_cls"] = model.rpn.logits_conv
        found["rpn_head.rpn_reg"] = model.rpn.deltas_conv
    if hasattr(model, "box_head"):
        head = model.box_head
        named = {
            "shared_fcs.0": head.hidden[0],
            "shared_fcs.1": head.hidden[1],
            "fc_cls": head.class_logits,
            "fc_reg": head.box_deltas,
        }
        found |= {f"roi_head.bbox_head.{name}": layer for name, layer in named.items()}
    return found


def _retina_layers(head):
    return {
        **{f"bbox_head.cls_convs.{i}.conv": conv for i, conv in enumerate(head.class_convs)},
        **{f"bbox_head.reg_convs.{i}.conv": conv for i, conv in enumerate(head.box_convs)},
        "bbox_head.retina_cls": head.class_logits,
        "bbox_head.retina_reg": head.box_deltas,
    }


def backbone_variables(backbone, prefix=""):
    """Returns the variables of a `ResNet` by torch's names.

    Args:
        backbone: `ResNet`, built.
        prefix: str, put before the names.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.convert.placement import backbone_variables
    >>> backbone = ResNet(18, width=8)
    >>> backbone.build((None, None, None, 3))
    >>> list(backbone_variables(backbone))[:2]
    ['conv1.weight', 'bn1.weight']
    """
    convs = {("conv1", "bn1"): backbone.stem}
    for stage, blocks in enumerate(backbone.stages, start=1):
        for index, block in enumerate(blocks):
            block_name = f"layer{stage}.{index}"
            for number, conv in enumerate(block.convs, start=1):
                convs[f"{block_name}.conv{number}", f"{block_name}.bn{number}"] = conv
            if block.downsample is not None:
                convs[f"{block_name}.downsample.0", f"{block_name}.downsample.1"] = block.downsample
    found = {}
    for (conv, norm), layer in convs.items():
        found[f"{prefix}{conv}.weight"] = layer.kernel
        found[f"{prefix}{norm}.weight"] = layer.gamma
        found[f"{prefix}{norm}.bias"] = layer.beta
        found[f"{prefix}{norm}.running_mean"] = layer.moving_mean
        found[f"{prefix}{norm}.running_var"] = layer.moving_variance
    return found
