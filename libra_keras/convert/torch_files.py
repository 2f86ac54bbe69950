"""Files of `torch.save`, zip archives and the older form, without PyTorch: tensors as arrays."""

import contextlib
import dataclasses
import functools
import io
import math
import os
import struct
import zipfile

import ml_dtypes
import numpy as np

from libra_keras.convert.file_kinds import PICKLE, STREAM, ZIP
from libra_keras.convert.pickles import KNOWN, Reader, Stub, Unpickler, are, is_shape, reason
from libra_keras.files.reading import open_regular

OF_PYTORCH, VERSION = 0x1950A86A20F9469CFC6C, 1001  # with which files before 1.6 begin
STORAGES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": ml_dtypes.bfloat16, "Long": "i8",
    "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?", "Untyped": "u1",
    "ComplexFloat": "c8", "ComplexDouble": "c16", "QInt8": "i1", "QUInt8": "u1", "QInt32": "i4",
}  # fmt: skip
# What untyped storages hold.
TYPES = {
    "uint16": "u2", "uint32": "u4", "uint64": "u8", "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip


_OF_CLASS = "torch._tensor._rebuild_from_type_v2"


@contextlib.contextmanager
def opened(path, kind):
    """Gives what was saved, and for tensors in it the function that their `values` wants."""
    with open_regular(path) as file:
        try:
            found = _OPENERS[kind](file, os.fstat(file.fileno()).st_size)
        except Exception as error:  # of a damaged file anything comes up
            what = "truncated, damaged or not a PyTorch checkpoint"
            if kind == PICKLE:
                what = "a pickle that is truncated or damaged"
            raise ValueError(f"{path} is {what}: {reason(error)}") from error
        yield found


def _open_pickle(file, size):
    return Unpickler(Reader(file, size)).load(), None


def _open_zip(file, size):
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    pickled = next(name for name in names if name.rpartition("/")[2] == "data.pkl")
    folder = pickled.removesuffix("data.pkl")
    instructions = archive.read(pickled)
    unpickler = TorchUnpickler(Reader(io.BytesIO(instructions), len(instructions)))
    order = f"{folder}byteorder"
    is_swapped = order in names and archive.read(order) == b"big"

    @functools.cache
    def read_storage(key):
        content = archive.read(f"{folder}data/{key}")
        if not is_swapped:
            return content
        width = unpickler.storages[key].dtype.itemsize
        return np.frombuffer(content, "u1").reshape(-1, width)[:, ::-1].tobytes()

    return unpickler.load(), read_storage


def _open_stream(file, size):
    """Reads the older form: five pickles, and behind them the storages in turn."""
    reader = Reader(file, size)
    start = [Unpickler(reader).load() for _ in range(3)]  # the last tells of the machine
    if start[:2] != [OF_PYTORCH, VERSION]:
        raise ValueError("it has an unknown version")
    unpickler = TorchUnpickler(reader)
    content, keys = unpickler.load(), Unpickler(reader).load()
    if type(keys) is not list or not are(tuple(keys), *[str] * len(keys)):
        raise TypeError("it has no list of storages")
    place, places = size - reader.left, {}
    for key in keys:
        storage = unpickler.storages[key]
        file.seek(place)
        if struct.unpack("<q", file.read(8)) != (storage.elements,):
            raise ValueError("a storage does not have the stated size")
        places[key] = place + 8
        place += 8 + storage.elements * storage.dtype.itemsize
        if place > size:
            raise EOFError("it ends early")

    @functools.cache
    def read_storage(key):
        storage = unpickler.storages[key]
        file.seek(places[key])
        return file.read(storage.elements * storage.dtype.itemsize)

    return content, read_storage


_OPENERS = {PICKLE: _open_pickle, ZIP: _open_zip, STREAM: _open_stream}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Numbers that lie elsewhere in the file; a view of a storage begins at element `first`."""

    key: str
    dtype: np.dtype
    elements: int
    first: int = 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Where a tensor's values lie, in elements; kinds that are not read have no storage."""

    storage: Storage | None = None
    dtype: np.dtype | None = None
    offset: int = 0
    size: tuple = ()
    strides: tuple = ()

    def values(self, read_storage, largest):
        """Returns a view of what `read_storage` returns for a key, of at most `largest` bytes."""
        if self.storage is None or self.dtype.kind == "c":
            raise ValueError("it is sparse, quantized, complex or without values")
        each, count = self.dtype.itemsize, math.prod(self.size)
        if count * each > largest:
            raise ValueError(f"its shape {self.size} is larger than the file")
        if count == 0:
            return np.zeros(self.size, self.dtype)
        width, storage = self.storage.dtype.itemsize, self.storage
        raw = memoryview(read_storage(storage.key))
        raw = raw[storage.first * width : (storage.first + storage.elements) * width]
        steps = zip(self.strides, self.size, strict=True)
        last = self.offset + sum(step * (side - 1) for step, side in steps)
        if (last + 1) * each > len(raw):
            raise ValueError("its storage ends early")
        strides = [step * each for step in self.strides]
        return np.ndarray(self.size, self.dtype, raw, self.offset * each, strides)


class TorchUnpickler(Unpickler):
    """Reads the pickle of a file of PyTorch, and keeps the storages that it names."""

    def __init__(self, reader):
        super().__init__(reader, KNOWN | OF_TENSORS)
        self.storages = {}

    def persistent_load(self, pid):
        """Returns a storage; of a class, PyTorch would read and write source files."""
        if type(pid) is tuple and len(pid) > 1 and pid[0] == "module":
            return pid[1]
        if not _is_storage(pid):
            return super().persistent_load(pid)
        _, kind, key, _, elements, *view = pid
        storage = Storage(key, _storage_type(kind), elements)
        first_named = self.storages.setdefault(key, storage)
        if not view or view[0] is None:
            return first_named
        _, first, count = view[0]
        return dataclasses.replace(storage, elements=count, first=first)

    def made(self, function, arguments):
        """Does as its parent, and takes a tensor of another class for what it is."""
        is_of_class = type(function) is Stub and function.name == _OF_CLASS
        if is_of_class and type(arguments) is tuple and len(arguments) == 4:
            function, _, arguments, _ = arguments
        return super().made(function, arguments)


def _storage_type(kind):
    code = type(kind) is Stub and STORAGES.get(kind.name.rpartition(".")[2].removesuffix("Storage"))
    return np.dtype(code) if code else None


def _is_storage(identity):
    """Tells `("storage", type, key, device, elements)`, in older files with a view behind it."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        return False
    _, kind, key, device, elements, *view = identity
    if view and view[0] is not None and not are(view[0], str, int, int):
        return False
    return _storage_type(kind) is not None and are((key, device, elements), str, str, int)


def _tensor(storage, offset, size, strides, requires_grad=False, hooks=None, metadata=None):
    if type(storage) is not Storage or metadata or not are((offset,), int):
        raise TypeError("no tensor")
    if not is_shape(size) or not is_shape(strides) or len(size) != len(strides):
        raise TypeError("no shape")
    return Tensor(storage, storage.dtype, offset, size, strides)


def _tensor_of_type(storage, offset, size, strides, grad, hooks, kind, metadata=None):
    tensor = _tensor(storage, offset, size, strides, metadata=metadata)
    code = type(kind) is Stub and TYPES.get(kind.name.removeprefix("torch."))
    return dataclasses.replace(tensor, dtype=np.dtype(code)) if code else Tensor()


def _parameter(tensor, requires_grad=True, hooks=None, state=None):
    if type(tensor) is not Tensor:
        raise TypeError("no tensor")
    return tensor


def _tensor_not_read(*arguments):
    return Tensor()


OF_TENSORS = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    **{
        ("torch._utils", f"_rebuild_{kind}"): _tensor_not_read
        for kind in (
            "sparse_tensor", "sparse_csr_tensor", "qtensor", "meta_tensor_no_storage",
            "nested_tensor", "device_tensor_from_numpy", "device_tensor_from_cpu_tensor",
        )
    },
}  # fmt: skip
