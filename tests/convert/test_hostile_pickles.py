"""Hostile pickles: nothing is called, set or imported.

They are written instruction by instruction: what the standard library would do with them is shown
first, so that no test holds for want of an attack.
"""

import collections
import copyreg
import os
import pickle

import numpy as np
import pytest
from convert.pickles import (
    HOOKS,
    MARKER,
    SHAPE,
    STORAGE,
    TENSOR,
    Attack,
    loads,
    name,
    read_with_storages,
    stacked,
    text,
)

from libra_keras.convert.pickles import KNOWN, Array, NumberType, Stub, Unpickler
from libra_keras.convert.torch_files import OF_TENSORS, Storage, Tensor, TorchUnpickler


def make_folder(name):
    """What attacks call: a trace that does not depend on a shell."""
    os.mkdir(name)


class Maker:
    """Makes a folder wherever Python calls a class of its own accord."""

    def __new__(cls, name=None):
        if name:
            os.mkdir(name)
        return super().__new__(cls)

    def __setstate__(self, state):
        os.mkdir(state)


# Ways of calling os.mkdir(MARKER), each a pickle of its own.
CALLS = {
    "REDUCE": name("os", "mkdir") + text(MARKER) + b"\x85R",
    "REDUCE of posix": name("posix", "mkdir") + text(MARKER) + b"\x85R",
    "INST": b"(" + text(MARKER) + b"ios\nmkdir\n",
    "OBJ": b"(" + name("os", "mkdir") + text(MARKER) + b"o",
    "STACK_GLOBAL": b"\x80\x04" + stacked("os", "mkdir") + text(MARKER) + b"\x85R",
    "dotted name": b"\x80\x04" + stacked("shutil", "os.mkdir") + text(MARKER) + b"\x85R",
    "getattr": name("builtins", "getattr") + name("os", "path") + b"0" + name("os", "mkdir")
    + text("__call__") + b"\x86R" + text(MARKER) + b"\x85R",
    "eval": name("builtins", "eval") + text(f"__import__('os').mkdir('{MARKER}')") + b"\x85R",
    "exec": name("builtins", "exec") + text(f"import os; os.mkdir('{MARKER}')") + b"\x85R",
    "in the state of BUILD": name("types", "SimpleNamespace") + b")R}" + text("a")
    + name("os", "mkdir") + text(MARKER) + b"\x85Rsb",
    "key of a dict": b"}" + name("os", "mkdir") + text(MARKER) + b"\x85R" + b"Ns",
    "partial": name("functools", "partial") + name("os", "mkdir") + text(MARKER) + b"\x86R)R",
    "NEWOBJ": name(__name__, "Maker") + text(MARKER) + b"\x85\x81",
    "NEWOBJ_EX": b"\x80\x04" + name(__name__, "Maker") + b")}" + text("name") + text(MARKER)
    + b"s\x92",
    "BUILD": b"\x80\x04" + name(__name__, "Maker") + b")\x81" + text(MARKER) + b"b",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("way", CALLS)
def test_nothing_is_called(way, folder):
    try:
        pickle.loads(CALLS[way] + b".")
    except TypeError as error:  # of what the call returned
        print(error)
    (folder / MARKER).rmdir()
    found = loads(b"}" + text("weight") + b"K\x07s" + CALLS[way] + b"\x86.")
    assert found[0] == {"weight": 7}
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "attack",
    [
        Attack(make_folder, MARKER),
        Attack(os.system, f"mkdir {MARKER}"),
        Attack(eval, f"__import__('os').mkdir('{MARKER}')"),
        Attack(print, "called"),
    ],
)
def test_no_call_at_any_depth(attack, protocol, folder, capsys):
    content = pickle.dumps({"a": [({"b": attack},)], "weight": 7}, protocol)
    assert loads(content)["weight"] == 7
    assert not (folder / MARKER).exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "target",
    [
        name("torch._utils", "_rebuild_tensor_v2"), name("collections", "OrderedDict"),
        name("numpy", "dtype"), name("os", "mkdir"), name("torch", "FloatStorage"),
        name("numpy", "dtype") + text("f8") + b"\x85R", name("collections", "OrderedDict") + b")R",
        STORAGE, TENSOR + b"K\x00" + SHAPE + HOOKS + b"tR",
    ],
)  # fmt: skip
def test_attributes_are_never_set(target):
    before = snapshot()
    for state in (
        b"}" + text("function") + name("os", "mkdir") + b"s",  # BUILD's dict of an object
        b"N}" + text("function") + name("os", "mkdir") + b"s\x86",  # and of one with slots
        b"}" + text("__class__") + name("os", "mkdir") + b"s",
        b"}" + text("__setstate__") + name("os", "mkdir") + b"s",
    ):
        try:
            read_with_storages(target + state + b"b.")
        except pickle.UnpicklingError as error:  # state of a NumPy dtype that is a dict
            assert "KeyError" in str(error) or "TypeError" in str(error)
    assert snapshot() == before
    assert loads(pickle.dumps(collections.OrderedDict(a=np.float64(2)))) == {"a": 2.0}


def snapshot():
    """What a pickle could have changed."""
    classes = (
        Array, NumberType, Storage, Stub, Tensor, Unpickler, TorchUnpickler, pickle._Unpickler,
        collections.OrderedDict,
    )  # fmt: skip
    functions = [vars(function).copy() for function in (KNOWN | OF_TENSORS).values()]
    tables = Unpickler.dispatch.copy(), pickle._Unpickler.dispatch.copy()
    return KNOWN | OF_TENSORS, [dict(vars(kind)) for kind in classes], functions, tables


def test_registered_extensions_are_not_looked_up(folder):
    copyreg.add_extension("os", "mkdir", 240)
    try:
        for code in (b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"):
            content = code + text(MARKER) + b"\x85R."
            pickle.loads(content)
            (folder / MARKER).rmdir()
            assert loads(content).name == "copyreg extension 240"
            assert not (folder / MARKER).exists()
    finally:
        copyreg.remove_extension("os", "mkdir", 240)


@pytest.mark.parametrize(
    "state",
    [
        (1, (2, 3), np.dtype("f4"), False, bytes(23)),  # a byte is missing
        (1, (2**40, 2**40), np.dtype("f4"), False, bytes(24)),
        (1, (-1,), np.dtype("f4"), False, bytes(24)),
        (1, (2, 3), np.dtype("O"), False, [os.getcwd] * 6),
        (1, (2, 3), "f4", False, bytes(24)),
        (1, (2, 3.0), np.dtype("f4"), False, bytes(24)),
        (1, (2, 3), np.dtype("f4"), False, np.float32(1)),
        "ab", None, (), os.getcwd,
    ],
)  # fmt: skip
def test_arrays_with_odd_contents_stay_empty(state):
    new = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    found = loads(new + pickle.dumps(state, 3)[2:-1] + b"b.")
    assert type(found) is Array and found.values is None
