"""One set of names, mmdetection 3's, for checkpoints of all sources and for our variables."""

import dataclasses
import re

import numpy as np

from libra_keras.layers import PathAggregationPyramid
from libra_keras.models import RetinaNet

COUNTER = r"(.*\.)?num_batches_tracked"
COUNTER_REASON = "counts batches; moving averages here have a fixed momentum"


@dataclasses.dataclass
class Canonical:
    """The values of a checkpoint under mmdetection 3's names, and what else it says."""

    tensors: dict  # in torch's layout
    origin: dict  # from a name in `tensors` to that in the file
    unused: dict  # from a name in the file to the reason why nothing needs it
    source: str  # what wrote the file, for people
    geometry: str = "continuous"  # as of `RPNSettings`
    style: str = "pytorch"  # as of `ResNet`
    epsilon: float = 1e-5  # of batch normalisation
    class_names: list | None = None
    extra_relu: bool = False  # between the pyramid's two extra levels
    # What a configuration in the file says: what functions of `convert.mmdetection` return.
    normalization: dict | None = None
    image_sides: tuple | None = None
    anchors: dict = dataclasses.field(default_factory=dict)
    box_stds: tuple | None = None
    notes: list = dataclasses.field(default_factory=list)  # sentences that a user should read

    def has(self, prefix):
        """Whether a name starts with `prefix`."""
        return any(name.startswith(prefix) for name in self.tensors)

    @property
    def is_libra(self):
        """Whether a balanced pyramid follows the pyramid: mmdetection's neck is a list then."""
        # Without a refiner it has no tensors, but the first part of a list has a number.
        return any(name.startswith(("neck.0.", "neck.1.")) for name in self.origin.values())

    def count(self, prefix):
        """Number of different integers that follow `prefix` in names."""
        found = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in self.tensors)
        return len({match[1] for match in found if match})

    def shape(self, name, *sides):
        """Returns the shape of a tensor, checked against the sides that are known."""
        # Before a network is built: a few numbers of a damaged file could otherwise ask for one
        # that no memory holds.
        if name not in self.tensors:
            raise ValueError(
                f"it has no tensor {name} (as mmdetection 3 calls it), which every network that "
                "can be converted has"
            )
        found = tuple(self.tensors[name].shape)
        fits = len(found) == len(sides) and all(
            side > 0 and expected in (None, side)
            for side, expected in zip(found, sides, strict=False)
        )
        if not fits:
            expected = ", ".join("any" if side is None else str(side) for side in sides)
            raise ValueError(f"{self.origin.get(name, name)} is {found}; expected ({expected})")
        return found

    def replace(self, name, change):
        """Replaces a tensor, if it is there, by what `change` makes of it."""
        if name in self.tensors:
            self.tensors[name] = change(self.tensors[name])


def renamed(tensors, rules, unused):
    """Sorts the tensors of a file into those that are placed, by their new names, and others."""
    placed, origin, left = {}, {}, {}
    for name, tensor in tensors.items():
        reason = next((why for pattern, why in unused if re.fullmatch(pattern, name)), None)
        if reason is not None:
            left[name] = reason
            continue
        if np.ndim(tensor) == 0:
            raise ValueError(f"{name} is a single number, and no layer has one")
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in placed:
            raise ValueError(
                f"{origin[new]} and {name} would both be {new}: these are not the layers of a "
                "detector that can be converted"
            )
        placed[new], origin[new] = tensor, name
    return placed, origin, left


def place(variables, canonical):
    """Assigns every tensor to its variable, after all have been checked."""
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
    """Returns torch's layout of an array as ours: HWIO convolutions, (in, out) matrices."""
    if array.ndim == 4:
        return np.transpose(array, (2, 3, 1, 0))
    if not name.endswith("bbox_head.shared_fcs.0.weight"):
        return array.T
    # It reads features flattened as channels, rows, columns there, and as rows, columns, channels
    # here.
    out, inputs = array.shape
    channels = inputs // 49  # 7x7 bins; anything else comes out misshaped
    if channels * 49 != inputs:
        return array.T
    return np.transpose(array.reshape(out, channels, 7, 7), (2, 3, 1, 0)).reshape(-1, out)


def named_variables(model):
    """Returns the variables of a detector by mmdetection's names."""
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
    """Returns the variables of a `ResNet` by torch's names."""
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
