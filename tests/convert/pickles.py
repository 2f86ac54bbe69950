"""Pickles that are written instruction by instruction, and how they are read."""

import io
import struct

from libra_keras.convert.pickles import Reader, Unpickler
from libra_keras.convert.torch_files import TorchUnpickler

# Values that any reader must get back.
PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**31, 2**70, -(2**2100), 0.1, float("inf")],
    "words": ("", "class", "Größe", "line\nline", "\\x00'\""),
    "constants": {True, False, None},
    "nested": [{"a": {"b": [(), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}}],
    "bytes": b"\x00\xff" * 200,
    1: 2,
}
MARKER = "opened"  # name of a folder that attacks make


class Attack:
    """Pickled as a call of any importable function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def name(module, member):
    return b"c" + f"{module}\n{member}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def stacked(module, member):
    return text(module) + text(member) + b"\x93"


def loads(content):
    return Unpickler(Reader(io.BytesIO(content), len(content))).load()


def read_with_storages(content):
    """Returns what a pickle of PyTorch holds, and the storages that it names."""
    unpickler = TorchUnpickler(Reader(io.BytesIO(content), len(content)))
    return unpickler.load(), unpickler.storages


STORAGE = (
    b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cuda:0") + b"K\x06tQ"
)
TENSOR = name("torch._utils", "_rebuild_tensor_v2") + b"(" + STORAGE
SHAPE = b"K\x02K\x03\x86" + b"K\x03K\x01\x86"  # (2, 3), strides (3, 1)
HOOKS = b"\x89" + name("collections", "OrderedDict") + b")R"
