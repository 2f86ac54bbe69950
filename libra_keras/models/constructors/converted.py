"""Backbones whose weights `libra-keras convert` has written."""

import os
from pathlib import Path

import keras

from libra_keras.files.reading import is_regular, read_object
from libra_keras.files.weights import load_weights
from libra_keras.layers import ImageNormalization
from libra_keras.models.constructors.parts import resnet

SUFFIX = ".weights.h5"
NORMALIZATIONS = {
    "torch": ImageNormalization.torch_style,
    "caffe": ImageNormalization.caffe_style,
}


_EXPECTED = (
    ("network", lambda value: value is None or isinstance(value, str), "a name or null"),
    ("style", ("caffe", "pytorch").__contains__, "caffe or pytorch"),
    ("normalization", list(NORMALIZATIONS).__contains__, " or ".join(NORMALIZATIONS)),
    ("epsilon", lambda value: type(value) in (int, float) and 0 <= value < 1, "a number in 0..1"),
)


def is_converted(weights):
    """Whether a file `NAME.weights.h5` has beside it `NAME.json`, which tells the network of it."""
    if weights is None or not os.fspath(weights).endswith(SUFFIX):
        return False
    return is_regular(_record_of(weights))


def converted_backbone(weights, network, style=None, **options):
    """Builds a converted backbone, and the normalisation of images that its weights want."""
    record = _read(weights)
    wanted = {"network": network, "style": style}
    for key, value in wanted.items():
        if value is not None and record[key] != value:
            what = record[key] if key == "network" else f"network of {record[key]} style"
            raise ValueError(f"{weights} contains a {what}; expected a {value}")
    backbone = resnet(network, style=record["style"], epsilon=record["epsilon"], **options)
    load_backbone(backbone, weights)
    return {"backbone": backbone, "normalization": NORMALIZATIONS[record["normalization"]]()}


def load_backbone(backbone, weights):
    """Loads the weights of a `keras.Model(images, backbone(images))` into a backbone."""
    if not os.path.exists(weights):
        raise ValueError(f"there is no file {weights}")
    images = keras.Input((None, None, 3))
    load_weights(keras.Model(images, backbone(images)), weights)


def _record_of(weights):
    return Path(os.fspath(weights).removesuffix(SUFFIX) + ".json")


def _read(weights):
    file = _record_of(weights)
    found = read_object(file)
    for key, is_right, expected in _EXPECTED:
        if not is_right(found.get(key)):
            raise ValueError(
                f"{file} is not a record of a converted backbone: {key!r} must be {expected}. "
                f"Received: {found.get(key)!r:.80}"
            )
    return found
