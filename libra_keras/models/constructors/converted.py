"""Backbones whose weights `libra-keras convert` has written."""

import json
import os
from pathlib import Path

import keras

from libra_keras.layers import ImageNormalization
from libra_keras.models.constructors.parts import resnet

SUFFIX = ".weights.h5"
NORMALIZATIONS = {
    "torch": ImageNormalization.torch_style,
    "caffe": ImageNormalization.caffe_style,
}


def is_converted(weights):
    """Whether a file of weights has the JSON beside it that tells what network they belong to.

    Args:
        weights: what options of backbones take: a path `NAME.weights.h5`, whose record is
            `NAME.json`; or another path, `"imagenet"` or `None`, all of which have none.

    Example:

    >>> from libra_keras.models.constructors.converted import is_converted
    >>> is_converted("imagenet")
    False
    """
    if weights is None or not os.fspath(weights).endswith(SUFFIX):
        return False
    return _record_of(weights).is_file()


def converted_backbone(weights, network, style=None, **options):
    """Builds a converted backbone, and the normalisation of images that its weights want.

    Args:
        weights: path that `is_converted`.
        network: str, the network that is wanted, as `"resnext101_64x4d"`.
        style: `"pytorch"` or `"caffe"` where one of them is wanted.
        **options: `batch_norm`, `train_affine` and `frozen_stages` of `ResNet`.

    Returns:
        Dict of `"backbone"` and `"normalization"`, arguments of all detectors with ResNets.

    Raises:
        ValueError: if the file holds another network, another style, or cannot be read.

    Example:

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from libra_keras.models.constructors.converted import converted_backbone
    >>> folder = Path(tempfile.mkdtemp())
    >>> record = {"network": "resnet50", "style": "pytorch", "normalization": "torch"}
    >>> _ = (folder / "a.json").write_text(json.dumps({**record, "epsilon": 1e-5}))
    >>> try:
    ...     converted_backbone(folder / "a.weights.h5", "resnet101")
    ... except ValueError as error:
    ...     print(str(error).removeprefix(str(folder)))
    /a.weights.h5 holds a resnet50, where a resnet101 is wanted
    """
    record = _read(weights)
    wanted = {"network": network, "style": style}
    for key, value in wanted.items():
        if value is not None and record[key] != value:
            what = record[key] if key == "network" else f"network of {record[key]} style"
            raise ValueError(f"{weights} holds a {what}, where a {value} is wanted")
    backbone = resnet(network, style=record["style"], epsilon=record["epsilon"], **options)
    load_backbone(backbone, weights)
    return {"backbone": backbone, "normalization": NORMALIZATIONS[record["normalization"]]()}


def load_backbone(backbone, weights):
    """Loads the weights of a `keras.Model(images, backbone(images))` into a backbone.

    Args:
        backbone: layer.
        weights: path of a `.weights.h5`.

    Raises:
        ValueError: if the file cannot be read, or holds another network.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models.constructors.converted import load_backbone
    >>> load_backbone(ResNet(18, width=8), "missing.weights.h5")
    Traceback (most recent call last):
    ValueError: there is no file missing.weights.h5
    """
    if not os.path.isfile(weights):
        raise ValueError(f"there is no file {weights}")
    images = keras.Input((None, None, 3))
    model = keras.Model(images, backbone(images))
    try:
        model.load_weights(weights)
    except Exception as error:  # h5py and Keras raise many kinds
        raise ValueError(f"{weights} has no weights of this backbone: {error}") from error


def _record_of(weights):
    return Path(os.fspath(weights).removesuffix(SUFFIX) + ".json")


def _read(weights):
    file = _record_of(weights)
    try:
        record = json.loads(file.read_text())
        found = {key: record[key] for key in ("network", "style", "normalization", "epsilon")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no record of a converted backbone: {error!r}") from error
    if found["normalization"] not in NORMALIZATIONS:
        raise ValueError(
            f'{file}: "normalization" must be one of {", ".join(NORMALIZATIONS)}. '
            f"Received: {found['normalization']!r}"
        )
    return found
