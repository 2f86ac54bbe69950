"""Backbones alone: ResNets and ResNeXts of torchvision and timm, ResNets of keras.applications."""

from pathlib import Path

from libra_keras.backbones import ResNet
from libra_keras.backbones.resnet import BLOCKS
from libra_keras.convert.canonical import COUNTER, COUNTER_REASON, Canonical, renamed

_UNUSED = [(COUNTER, COUNTER_REASON), (r"fc\.(weight|bias)", "the classifier of ImageNet")]

# Kernel and bias of each convolution (a stem, three a block, four shortcuts), and the four arrays
# of the batch normalisation behind it.
_DEPTH_OF_ARRAYS = {6 * (1 + 3 * sum(BLOCKS[depth]) + 4): depth for depth in (50, 101, 152)}


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
    >>> import numpy as np
    >>> from libra_keras.convert.backbones import from_torch_backbone
    >>> from libra_keras.convert.checkpoint import Checkpoint
    >>> tensors = {"conv1.weight": np.zeros((64, 3, 7, 7)), "fc.bias": np.zeros(1000)}
    >>> from_torch_backbone(Checkpoint(Path("a.pth"), tensors, {}, "")).unused
    {'fc.bias': 'the classifier of ImageNet'}
    """
    tensors, origin, unused = renamed(checkpoint.tensors, [], _UNUSED)
    result = Canonical(tensors, origin, unused, "torchvision or timm")
    result.style = style or ("caffe" if "caffe" in checkpoint.path.name else "pytorch")
    return result


def from_keras_applications(path):
    """Reads a ResNet of keras.applications; which of its three depths, the number of arrays tells.

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
    depth = _DEPTH_OF_ARRAYS.get(_count_arrays(path))
    if depth is None:
        raise ValueError(
            f"{path} is no ResNet50, ResNet101 or ResNet152 of keras.applications without its "
            "classifier (include_top=False)"
        )
    backbone = ResNet(depth, style="caffe", weights=path, data_format="channels_last")
    backbone.build((None, None, None, 3))
    notes = ["Its convolutions' biases, 0 up to rounding, are dropped."]
    return backbone, Canonical({}, {}, {}, "keras.applications", style="caffe", notes=notes)


def _count_arrays(path):
    """Number of arrays in an HDF5 file, without those of an optimizer."""
    import h5py  # comes with Keras

    names = []

    def note(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            names.append(name)

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file, or it is damaged: {error}") from error
    return len(names)
