"""The ResNets of detectron2, alone or in its detectors, whose other parts are not converted."""

import re

import numpy as np

from libra_keras.convert.canonical import COUNTER, COUNTER_REASON, Canonical, renamed

_PREFIX = "backbone.bottom_up."
_RULES = [
    (rf"^{re.escape(_PREFIX)}", ""),
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res(\d)\.", lambda match: f"layer{int(match[1]) - 1}."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
]
_UNUSED = [
    (COUNTER, COUNTER_REASON),
    (rf"({re.escape(_PREFIX)})?(stem\.fc|linear)\..*", "the classifier of ImageNet"),
]
_OF_DETECTOR = (rf"(?!{re.escape(_PREFIX)}).*", "of detectron2's detectors only the ResNet is read")


def is_detectron2(tensors):
    """Whether the names are those of a network of detectron2.

    Example:

    >>> from libra_keras.convert.detectron2 import is_detectron2
    >>> is_detectron2({"backbone.bottom_up.stem.conv1.weight": None})
    True
    """
    return any(name in tensors for name in ("stem.conv1.weight", f"{_PREFIX}stem.conv1.weight"))


def from_detectron2(checkpoint, style=None):
    """Takes a ResNet's or ResNeXt's tensors.

    Those that came from Caffe2 have their statistics in `weight` and `bias`, means of 0: they read
    blue, green, red, and ResNets among them have a block's stride in its first convolution.

    Args:
        checkpoint: `Checkpoint`.
        style: `"pytorch"` or `"caffe"`; by default the statistics say which.

    Returns:
        `Canonical`, whose names are those of torchvision's ResNets.

    Example:

    >>> from pathlib import Path
    >>> import numpy as np
    >>> from libra_keras.convert.checkpoint import Checkpoint
    >>> from libra_keras.convert.detectron2 import from_detectron2
    >>> tensors = {"stem.conv1.weight": np.zeros((64, 3, 7, 7)), "res2.0.conv1.norm.bias": [0.0]}
    >>> list(from_detectron2(Checkpoint(Path("a.pkl"), tensors, {}, "")).tensors)
    ['conv1.weight', 'layer1.0.bn1.bias']
    """
    tensors = checkpoint.tensors
    is_detector = f"{_PREFIX}stem.conv1.weight" in tensors
    unused = [*_UNUSED, _OF_DETECTOR] if is_detector else _UNUSED
    source = "detectron2, the ResNet of a detector" if is_detector else "detectron2"
    result = Canonical(*renamed(tensors, _RULES, unused), source)
    result.tensors |= _left_out_statistics(result)
    is_of_caffe = not np.any(result.tensors.get("bn1.running_mean", 1))
    is_grouped = _is_grouped(result.tensors)
    result.style = style or ("caffe" if is_of_caffe and not is_grouped else "pytorch")
    if is_of_caffe and result.style == "pytorch":
        # Its means and deviations are those of torchvision's, in the other order.
        result.replace("conv1.weight", lambda kernel: kernel[:, ::-1])
        result.notes.append("The first convolution read blue, green, red; now red, green, blue.")
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
