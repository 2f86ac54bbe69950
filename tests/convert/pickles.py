"""Pickles that are written instruction by instruction, and a reader of PyTorch's storages."""

import io
import struct

from libra_keras.convert import unpickling

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


class Kind:
    """As `torch.load` gives types of storages: anything with a `dtype`."""

    dtype = "float32"


class Loader(unpickling.Unpickler):
    """As the one that `torch.load` makes."""

    def find_class(self, module, name):
        return Kind() if "Storage" in name else super().find_class(module, name)


def read_with_storages(content):
    """Returns what a pickle holds, and the ids for which storages were made."""
    asked = []
    unpickler = Loader(io.BytesIO(content), encoding="utf-8")
    unpickler.persistent_load = lambda identity: asked.append(identity) or f"storage {len(asked)}"
    return unpickler.load(), asked


STORAGE = (
    b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cuda:0") + b"K\x06tQ"
)
TENSOR = name("torch._utils", "_rebuild_tensor_v2") + b"(" + STORAGE
SHAPE = b"K\x02K\x03\x86" + b"K\x03K\x01\x86"  # (2, 3), strides (3, 1)
HOOKS = b"\x89" + name("collections", "OrderedDict") + b")R"
