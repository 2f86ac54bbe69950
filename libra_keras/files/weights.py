"""Weights in HDF5, as Keras writes them: looked over before they are read, and after."""

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from libra_keras.files.reading import check_regular, explained

NUMBERS = "biufV"  # kinds of NumPy's types; bfloat16 is written as bytes without a type


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Loads a file into a built Keras model and its optimizer, if it has one; raises an error that
    names the file if it is damaged, of another model, or has values that are not finite."""
    with explained(path):
        check_regular(path)
        array_sizes(path)
        model.load_weights(os.fspath(path))
        check_finite({variable.path: variable for variable in _variables(model)})


def check_finite(arrays: Mapping[str, Any]) -> None:
    """Raises a `ValueError` with the name of the first array that is not finite."""
    for name, values in arrays.items():
        if not np.isfinite(np.asarray(values)).all():
            raise ValueError(f"{name} has values that are not finite")


def array_sizes(file: str | os.PathLike[str] | BinaryIO) -> dict[str, int]:
    """Returns how many numbers each array of a file has, unless they claim more than it holds."""
    import h5py  # comes with Keras

    found: dict[str, int] = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            _check_array(name, item)
            found[name] = math.prod(item.shape)

    with h5py.File(file) as content:
        content.visititems(note)
    return found


def _check_array(name, array):
    if array.dtype.kind not in NUMBERS or array.shape is None:
        raise ValueError(f"{name} is not an array of numbers")
    if array.external or array.is_virtual:
        raise ValueError(f"{name} is stored in another file")
    if array.id.get_create_plist().get_nfilters():  # what it unfolds to is not known before
        raise ValueError(f"{name} is compressed; `h5repack -f NONE` undoes that")
    if math.prod(array.shape) * array.dtype.itemsize > array.id.get_storage_size():
        raise ValueError(f"{name} claims the shape {array.shape}, but the file contains less")


def _variables(model) -> Iterable[Any]:
    optimizer = getattr(model, "optimizer", None)
    return [*model.weights, *(optimizer.variables if optimizer else ())]
