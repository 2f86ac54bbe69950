"""Backbones only: ResNets and ResNeXts of torchvision, timm, detectron2 and keras.applications."""

import re
from pathlib import Path

import numpy as np

from libra_keras.backbones import ResNet
from libra_keras.backbones.resnet import BLOCKS
from libra_keras.convert.canonical import COUNTER, COUNTER_REASON, Canonical, renamed
from libra_keras.files.reading import check_regular, explained
from libra_keras.files.weights import array_sizes

_CLASSIFIER = "the classifier of ImageNet"
_UNUSED = [(COUNTER, COUNTER_REASON), (r"fc\.(weight|bias)", _CLASSIFIER)]

# Kernel and bias of each convolution (a stem, three a block, four shortcuts), and the four arrays
# of the batch normalisation behind it.
_DEPTH_OF_ARRAYS = {6 * (1 + 3 * sum(BLOCKS[depth]) + 4): depth for depth in (50, 101, 152)}

# How detectron2 names the ResNet of a detector.
_PREFIX = "backbone.bottom_up."
_DETECTRON2_RULES = [
    (rf"^{re.escape(_PREFIX)}", ""),
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res(\d)\.", lambda match: f"layer{int(match[1]) - 1}."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
]
_DETECTRON2_UNUSED = [
    (COUNTER, COUNTER_REASON),
    (rf"({re.escape(_PREFIX)})?(stem\.fc|linear)\..*", _CLASSIFIER),
]
_OF_DETECTOR = (rf"(?!{re.escape(_PREFIX)}).*", "of detectron2's detectors only the ResNet is read")


def is_backbone(tensors):
    """Whether the names are those of a ResNet as torchvision and timm write it."""
    return "conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors


def from_torch_backbone(checkpoint, style=None):
    """Takes a ResNet's or ResNeXt's tensors; the classifier is left out."""
    tensors, origin, unused = renamed(checkpoint.tensors, [], _UNUSED)
    result = Canonical(tensors, origin, unused, "torchvision or timm")
    result.style = style or ("caffe" if "caffe" in checkpoint.path.name else "pytorch")
    return result


def is_detectron2(tensors):
    """Whether the names are those of a network of detectron2."""
    return any(name in tensors for name in ("stem.conv1.weight", f"{_PREFIX}stem.conv1.weight"))


def from_detectron2(checkpoint, style=None):
    """Takes a ResNet's or ResNeXt's tensors."""
    tensors = checkpoint.tensors
    is_detector = f"{_PREFIX}stem.conv1.weight" in tensors
    unused = [*_DETECTRON2_UNUSED, _OF_DETECTOR] if is_detector else _DETECTRON2_UNUSED
    source = "detectron2, the ResNet of a detector" if is_detector else "detectron2"
    result = Canonical(*renamed(tensors, _DETECTRON2_RULES, unused), source)
    result.tensors |= _left_out_statistics(result)
    # Those that came from Caffe2 have their statistics in `weight` and `bias`, and means of 0: they
    # read blue, green, red, and ResNets among them have a block's stride in its first convolution.
    is_of_caffe = not np.any(result.tensors.get("bn1.running_mean", 1))
    is_grouped = _is_grouped(result.tensors)
    result.style = style or ("caffe" if is_of_caffe and not is_grouped else "pytorch")
    if is_of_caffe and result.style == "pytorch":
        # Its means and deviations are those of torchvision's, in the other order.
        result.replace("conv1.weight", lambda kernel: kernel[:, ::-1])
        result.notes.append(
            "The first convolution expected blue, green, red; it now expects red, green, blue."
        )
    return result


def _left_out_statistics(result):
    """Means of 0 and variances of 1, which early files leave out."""
    found = {}
    for name, tensor in result.tensors.items():
        norm, _, kind = name.rpartition(".")
        if (
            kind == "weight"
            and np.ndim(tensor) == 1
            and f"{norm}.running_mean" not in result.tensors
        ):
            found[f"{norm}.running_mean"] = np.zeros_like(tensor)
            found[f"{norm}.running_var"] = np.ones_like(tensor) - np.float32(result.epsilon)
    return found


def _is_grouped(tensors):
    kernel = tensors.get("layer1.0.conv2.weight")
    return kernel is not None and np.ndim(kernel) == 4 and kernel.shape[0] != kernel.shape[1]


def from_keras_applications(path):
    """Reads a ResNet of keras.applications, whose depth the number of arrays tells."""
    if not Path(path).exists():
        raise ValueError(f"there is no file {path}")
    check_regular(path)
    with explained(path):
        arrays = [name for name in array_sizes(path) if not name.startswith("optimizer")]
    depth = _DEPTH_OF_ARRAYS.get(len(arrays))
    if depth is None:
        raise ValueError(
            f"{path} is not a ResNet50, ResNet101 or ResNet152 of keras.applications without its "
            "classifier (include_top=False)"
        )
    backbone = ResNet(depth, style="caffe", weights=path, data_format="channels_last")
    backbone.build((None, None, None, 3))
    notes = ["The biases of its convolutions, 0 up to rounding, are dropped."]
    return backbone, Canonical({}, {}, {}, "keras.applications", style="caffe", notes=notes)
