"""What a pickle may make here: plain values, places of tensors, and `Foreign` for all else."""

import dataclasses

import numpy as np

# Letters and bytes of the numbers that NumPy's scalars are read as.
NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class Foreign:
    """What stands for an object whose class is not read: its name, and items set upon it.

    `entries` are kept since configurations are often dictionaries of a class of their own.
    """

    __slots__ = ("entries", "name")

    def __init__(self, name):
        self.name = name
        self.entries = {}

    def __repr__(self):
        return f"<foreign {self.name}>"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """Where the values of a tensor lie; strides and offset count elements.

    `storage` is what `Unpickler.persistent_load` returned. PyTorch fills the storages of older
    files after the pickle has been read, so that values can be taken only then.
    """

    storage: object
    offset: int
    size: tuple
    strides: tuple


@dataclasses.dataclass(slots=True, eq=False)
class StoredArray:
    """An array of NumPy, of one of `NUMBERS`; `values` stays `None` if it holds anything else."""

    values: object = None

    def fill(self, state):
        """Takes what a pickle sets on a new array: version, shape, dtype, order and content."""
        try:
            *_, shape, kind, is_fortran, content = state
            self.values = _array(content, kind, shape, "F" if is_fortran is True else "C")
        except (TypeError, ValueError):
            pass


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """A name that is carried out, by a function of this file."""

    name: str
    function: object


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """What `persistent_load` returned; no pickle can make one otherwise."""

    value: object


@dataclasses.dataclass(slots=True, eq=False)
class NumberType:
    """A NumPy dtype of `NUMBERS`."""

    code: str
    order: str = "="


def made(function, arguments):
    """Returns what a call stands for: that of a known name is carried out, if its arguments fit."""
    if type(function) is Known and type(arguments) is tuple:
        try:
            return function.function(*arguments)
        except (TypeError, ValueError):
            pass
    return Foreign(name_of(function))


def name_of(value):
    """Returns the name that a pickle gave, or the type of what is no name."""
    return value.name if type(value) in (Foreign, Known) else type(value).__name__


def is_storage(identity):
    """Tells `("storage", type, key, device, elements)`, in older files with a view behind it."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        return False
    _, kind, key, device, elements, *view = identity
    if view and view[0] is not None and not _are(view[0], (str, int, int)):
        return False
    # A type of storage, which comes from `find_class` alone, is all that has a `dtype`.
    return hasattr(kind, "dtype") and _are((key, device, elements), (str, str, int))


def _are(values, kinds):
    is_tuple = type(values) is tuple and len(values) == len(kinds)
    return is_tuple and all(
        type(value) is kind and not (kind is int and value < 0)
        for value, kind in zip(values, kinds, strict=True)
    )


def _tensor(storage, offset, size, strides, requires_grad=False, hooks=None, metadata=None):
    expected = type(size) is tuple and (int,) * len(size)
    if type(storage) is not Storage or not _are((offset,), (int,)) or metadata:
        raise TypeError("no tensor")
    if not _are(size, expected) or not _are(strides, expected):
        raise TypeError("no shape")
    return StoredTensor(storage.value, offset, size, strides)


def _parameter(tensor, requires_grad=True, hooks=None, state=None):
    if type(tensor) is not StoredTensor:
        raise TypeError("no tensor")
    return tensor


def _tensor_with_attributes(function, kind, arguments, state):
    return made(function, arguments)


def _ordered_dict(items=()):
    return dict(items)


def _number_type(code, align=False, copy=True):
    if code not in NUMBERS:
        raise ValueError(code)
    return NumberType(code)


def _array(content, kind, shape, order):
    content = content.encode("latin-1") if type(content) is str else content  # of Python 2
    sides = (int,) * len(shape) if type(shape) is tuple else None
    if type(kind) is not NumberType or sides is None or not _are(shape, sides):
        raise TypeError("no array of numbers")
    if type(content) not in (bytes, bytearray) or order not in ("C", "F"):
        raise TypeError("no content")
    values = np.frombuffer(content, np.dtype(kind.code).newbyteorder(kind.order))
    return values.reshape(shape, order=order)


def _array_from_buffer(content, kind, shape, order):
    return StoredArray(_array(content, kind, shape, order))


def _array_type(*arguments):
    raise TypeError("arrays are made by other names")


def _new_array(kind, shape, code):
    if type(kind) is not Known or kind.name != "numpy.ndarray":
        raise TypeError("no array")
    return StoredArray()


def _number(kind, content):
    if type(kind) is not NumberType:
        raise TypeError("no dtype")
    content = content.encode("latin-1") if type(content) is str else content  # of Python 2
    (value,) = np.frombuffer(content, np.dtype(kind.code).newbyteorder(kind.order))
    return value.item()


def _encoded(text, encoding):
    """How protocols below 3 write bytes."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError("no bytes")
    return text.encode("latin-1")


KNOWN = {
    (module, name): Known(f"{module}.{name}", function)
    for module, name, function in [
        ("torch._utils", "_rebuild_tensor", _tensor),
        ("torch._utils", "_rebuild_tensor_v2", _tensor),
        ("torch._utils", "_rebuild_parameter", _parameter),
        ("torch._utils", "_rebuild_parameter_with_state", _parameter),
        ("torch._tensor", "_rebuild_from_type_v2", _tensor_with_attributes),
        ("collections", "OrderedDict", _ordered_dict),
        ("numpy", "dtype", _number_type),
        ("numpy", "ndarray", _array_type),
        *(
            (f"numpy.{core}.{name}", member, function)
            for core in ("core", "_core")
            for name, member, function in [
                ("multiarray", "scalar", _number),
                ("multiarray", "_reconstruct", _new_array),
                ("numeric", "_frombuffer", _array_from_buffer),
            ]
        ),
        ("_codecs", "encode", _encoded),
    ]
}
