"""Backbones alone: ResNets and ResNeXts of torchvision and timm, ResNets of keras.applications."""

from pathlib import Path

from libra_keras.backbones import ResNet
from libra_keras.backbones.imagenet import NETWORKS
from libra_keras.convert.canonical import COUNTER, COUNTER_REASON, Canonical, renamed

_UNUSED = [(COUNTER, COUNTER_REASON), (r"fc\.(weight|bias)", "the classifier of ImageNet")]


def is_backbone(tensors):
    """Whether the names are those of a ResNet as torchvision and timm write it.

    Example:

    >>> from libra_keras.convert.backbones import is_backbone
    >>> is_backbone({"conv1.weight": None, "layer1.0.conv1.weight": None})
    True
    """
    return "conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors


def from_torch_backbone(checkpoint, style=None):
    """Takes a ResNet's or ResNeXt's tensors; the classifier is left out.

    Args:
        checkpoint: `Checkpoint`.
        style: `"pytorch"` or `"caffe"`; `None` takes the former unless the file's name says
            caffe.

    Returns:
        `Canonical`, whose names have no prefix.

    Example:

    >>> from pathlib import Path
    >>> from libra_keras.convert.backbones import from_torch_backbone
    >>> from libra_keras.convert.checkpoint import Checkpoint
    >>> tensors = {"conv1.weight": None, "fc.bias": None}
    >>> from_torch_backbone(Checkpoint(Path("a.pth"), tensors, {}, "")).unused
    {'fc.bias': 'the classifier of ImageNet'}
    """
    tensors, origin, unused = renamed(checkpoint.tensors, [], _UNUSED)
    result = Canonical(tensors, origin, unused, "torchvision or timm")
    result.style = style or ("caffe" if "caffe" in checkpoint.path.name else "pytorch")
    return result


def from_keras_applications(path):
    """Reads a ResNet of keras.applications, whichever of its three depths fits.

    Args:
        path: of a file written by `keras.applications.ResNet50(include_top=False)`, or 101 or 152.

    Returns:
        Tuple of the built `ResNet` and its `Canonical`, without tensors.

    Raises:
        ValueError: if there is no such file, or it is none of the three.

    Example:

    >>> from libra_keras.convert.backbones import from_keras_applications
    >>> from_keras_applications("missing.h5")
    Traceback (most recent call last):
    ValueError: there is no file missing.h5
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    problems = []
    for depth in NETWORKS:
        backbone = ResNet(depth, style="caffe", weights=path)
        try:
            backbone.build((None, None, None, 3))
        except ValueError as error:
            problems.append(error)
            continue
        notes = ["Its convolutions' biases, 0 up to rounding, are dropped."]
        return backbone, Canonical({}, {}, {}, "keras.applications", style="caffe", notes=notes)
    raise ValueError(
        f"{path} is no ResNet50, ResNet101 or ResNet152 of keras.applications without its "
        "classifier (include_top=False)"
    ) from problems[0]
