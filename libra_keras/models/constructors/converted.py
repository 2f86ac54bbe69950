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
    """Whether a file `NAME.weights.h5` has beside it `NAME.json`, which tells the network of it."""
    if weights is None or not os.fspath(weights).endswith(SUFFIX):
        return False
    return _record_of(weights).is_file()


def converted_backbone(weights, network, style=None, **options):
    """Builds a converted backbone, and the normalisation of images that its weights want."""
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
    """Loads the weights of a `keras.Model(images, backbone(images))` into a backbone."""
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
