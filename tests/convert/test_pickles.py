"""Pickles as data: plain values as Python reads them, and the places of PyTorch's tensors."""

import argparse
import collections
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from convert.pickles import (
    HOOKS,
    PLAIN,
    SHAPE,
    STORAGE,
    TENSOR,
    loads,
    name,
    read_with_storages,
    stacked,
    text,
)

from libra_keras.convert.pickles import KNOWN, Reader, Stub, Unpickler
from libra_keras.convert.torch_files import OF_TENSORS, Tensor


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_those_of_pickle(protocol):
    content = dict(PLAIN)
    if protocol < 4:
        del content["constants"]  # written as a call of `set`
    assert loads(pickle.dumps(content, protocol)) == content


def test_bytearrays_and_frozen_sets_of_protocol_5():
    content = [bytearray(b"ab"), frozenset({1, 2}), {3}]
    assert loads(pickle.dumps(content, 5)) == content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_that_are_met_twice_are_one(protocol):
    inner = ["x"]
    first, second, itself = loads(pickle.dumps([inner, inner, [inner]], protocol))
    assert first is second is itself[0]
    endless = []
    endless.append(endless)
    found = loads(pickle.dumps(endless, protocol))
    assert found[0] is found


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_ordered_dicts_and_numpy_numbers_become_plain(protocol):
    weights = collections.OrderedDict([("b", 1), ("a", 2)])
    weights._metadata = {"": {"version": 1}}  # as PyTorch sets it
    numbers = [
        np.float64(0.1), np.float32(0.5), np.float16(2), np.int64(-3), np.uint8(255),
        np.bool_(True), np.array(258, ">i4")[()],
    ]  # fmt: skip
    found, plain = loads(pickle.dumps([weights, numbers], protocol))
    assert type(found) is dict and list(found.items()) == [("b", 1), ("a", 2)]
    assert plain == [0.1, 0.5, 2.0, -3, 255, True, 258]
    assert [type(number) for number in plain] == [float, float, float, int, int, bool, int]


def test_files_of_python_2():
    # What Python 2 wrote: short strings (U) instead of text, module names of its own.
    ordered = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aK\x01ea\x85q\x03Rq\x04."
    assert loads(ordered) == {"a": 1}
    assert loads(b"\x80\x02c__builtin__\nset\n](K\x01e\x85R.").name == "__builtin__.set"
    number = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\0\0\0\0\0\0\xe0?\x86R."
    )
    assert loads(number) == 0.5


def test_objects_of_other_classes_are_names():
    class_, instance, function = loads(
        pickle.dumps([argparse.Namespace, argparse.Namespace(a=1), os.getcwd])
    )
    assert (class_.name, instance.name) == ("argparse.Namespace",) * 2
    assert function.name == f"{os.name}.getcwd"
    assert instance.entries == {} and not hasattr(instance, "a")


def test_items_of_a_foreign_dictionary_are_kept():
    counter = loads(pickle.dumps(collections.defaultdict(list, {"a": [1]})))
    assert (type(counter), counter.name) == (Stub, "collections.defaultdict")
    assert counter.entries == {"a": [1]}


def test_a_foreign_object_takes_elements_and_sets_without_keeping_them():
    content = name("a", "B") + b")R(K\x01K\x02e" + b"K\x03a" + b"(K\x01\x90" + b"K\x01b."
    assert loads(content).entries == {}


def test_a_tensor_is_the_place_of_its_values():
    content = b"\x80\x02" + TENSOR + b"K\x00" + SHAPE + HOOKS + b"tR."
    tensor, storages = read_with_storages(content)
    assert type(tensor) is Tensor and tensor.storage is storages["0"] and tensor.offset == 0
    assert (tensor.size, tensor.strides) == ((2, 3), (3, 1))
    storage = tensor.storage
    assert (storage.key, storage.dtype, storage.elements, storage.first) == ("0", "f4", 6, 0)


def test_a_parameter_is_its_tensor():
    tensor = TENSOR + b"K\x00" + SHAPE + HOOKS + b"tR"
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + tensor + HOOKS + b"tR."
    assert type(read_with_storages(parameter)[0]) is Tensor
    attributes = name("torch._tensor", "_rebuild_from_type_v2") + b"(" + (
        name("torch._utils", "_rebuild_tensor_v2") + name("torch", "Tensor")
        + b"(" + STORAGE + b"K\x00" + SHAPE + HOOKS + b"t" + b"}tR."
    )  # fmt: skip
    assert type(read_with_storages(attributes)[0]) is Tensor


@pytest.mark.parametrize(
    "values",
    [
        b"J\xff\xff\xff\xff" + SHAPE,  # offset -1
        b"K\x00" + b"K\x02K\x03\x86" + b"K\x01\x85",  # two sides, one stride
        b"K\x00" + b"K\x02J\xff\xff\xff\xff\x86" + b"K\x03K\x01\x86",  # a side of -1
        b"K\x00" + b"K\x02K\x03\x86" + b"K\x03G" + struct.pack(">d", 1) + b"\x86",  # stride 1.0
        b"K\x00" + text("ab") + text("cd"),
    ],
)
def test_a_tensor_of_no_shape_is_foreign(values):
    found, _ = read_with_storages(TENSOR + values + HOOKS + b"tR.")
    assert found.name == "torch._utils._rebuild_tensor_v2"


def test_a_tensor_needs_a_storage():
    for fake in (text("storage 1"), name("torch", "FloatStorage"), b"N"):
        content = name("torch._utils", "_rebuild_tensor_v2") + b"(" + fake + b"K\x00" + SHAPE
        assert type(read_with_storages(content + HOOKS + b"tR.")[0]) is Stub


@pytest.mark.parametrize(
    "identity",
    [
        # PyTorch compares a class's source with the file's, and may write NAME.patch.
        b"(" + text("module") + name("os", "mkdir") + text("../file") + text("source") + b"t",
        b"(" + text("storage") + name("a", "Kind") + text("0") + text("cpu") + b"K\x06t",
        b"(" + text("storage") + name("a", "FloatStorage") + b"K\x00" + text("cpu") + b"K\x06t",
        b"(" + text("storage") + name("a", "FloatStorage") + text("0") + text("cpu")
        + b"J\xff\xff\xff\xfft",
        b"(" + text("storage") + name("a", "FloatStorage") + text("0") + text("cpu") + b"K\x06"
        + text("view") + b"t",
        b")", b"N", text("storage"), b"K\x01", b"](" + text("storage") + b"e",
    ],
)  # fmt: skip
def test_other_persistent_ids_are_no_storages(identity):
    found, storages = read_with_storages(identity + b"Q.")
    assert type(found) is Stub
    assert storages == {}


def test_persistent_ids_as_text_and_without_a_reader():
    assert type(read_with_storages(b"Pstorage\n.")[0]) is Stub
    assert type(loads(STORAGE + b".")) is Stub


def test_a_known_name_is_known_as_a_whole():
    for module, member in [
        ("collections", "OrderedDict.fromkeys"), ("collections.OrderedDict", "fromkeys"),
        ("numpy", "dtype.type"), ("torch", "_utils._rebuild_tensor_v2"), ("collections ", "x"),
    ]:  # fmt: skip
        found = loads(b"\x80\x04" + stacked(module, member) + b")R.")
        assert type(found) is Stub and found.name == f"{module}.{member}"


@pytest.mark.parametrize(
    "arguments",
    [text("O") + b"\x85", text("V8") + b"\x85", b"](" + text("f8") + b"e\x85", b")",
     name("os", "mkdir") + b"\x85"],
)  # fmt: skip
def test_other_dtypes_are_foreign(arguments):
    assert type(loads(name("numpy", "dtype") + arguments + b"R.")) is Stub


def test_known_names_with_odd_arguments_are_foreign():
    for module, member in KNOWN | OF_TENSORS:
        for arguments in (b"(NNNNNNNNNt", b"(K\x01t", b"N", name("os", "mkdir") + b"\x85"):
            found, _ = read_with_storages(name(module, member) + arguments + b"R.")
            assert type(found) is Stub or (type(found) is Tensor and found.storage is None)


def test_every_cut_is_an_error():
    content = pickle.dumps([PLAIN, np.float64(1), argparse.Namespace(a=(1, 2))], 4)
    for length in range(0, len(content), 7):
        with pytest.raises(pickle.UnpicklingError):
            loads(content[:length])


# Instructions of the standard library's reader that neither look up nor call nor set anything. Of
# these, names are looked up in `find_class` and `get_extension`, and ids in `persistent_load`.
STOCK = {
    "PROTO", "MARK", "STOP", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT",
    "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_SET", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "GET", "BINGET", "LONG_BINGET",
    "BINPUT", "LONG_BINPUT", "MEMOIZE", "APPEND", "APPENDS", "GLOBAL", "STACK_GLOBAL", "EXT1",
    "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ",
}  # fmt: skip


def test_every_other_instruction_is_our_own_or_refused():
    codes = {code.name: ord(code.code) for code in pickletools.opcodes}
    stock, own = pickle._Unpickler.dispatch, Unpickler.dispatch
    assert {name for name, code in codes.items() if own.get(code) is stock[code]} == STOCK
    assert {name for name, code in codes.items() if code not in own} == {
        "NEXT_BUFFER",
        "READONLY_BUFFER",
    }
    for code in (b"\x97", b"\x96\x01\0\0\0\0\0\0\0a\x98"):
        with pytest.raises(pickle.UnpicklingError, match="KeyError"):
            loads(code + b".")


@pytest.mark.parametrize(
    "content",
    [b".", b"R.", b"K\x01K\x02R" * 2 + b"tu.", b"0.", b"1.", b"h\x05.", b"K\x01)s.", b"(K\x01d.",
     b"}](K\x01esN.", b"}]Ns.", b"K\x01K\x02a.", b"(K\x01\x90.", b"K\x01K\x02\x93.", b"I1x\n.",
     b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", b"X\xff\xff\xff\xffabc.", b"no pickle", b""],
)  # fmt: skip
def test_streams_that_make_no_sense(content):
    with pytest.raises(pickle.UnpicklingError):
        loads(content)


def test_the_file_ends_up_behind_each_pickle(tmp_path):
    path = tmp_path / "several"
    path.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps([2], 4) + b"rest")
    with open(path, "rb") as file:
        reader = Reader(file, path.stat().st_size)
        assert [Unpickler(reader).load(), Unpickler(reader).load()] == [{"a": 1}, [2]]
        assert (reader.left, file.read()) == (4, b"rest")
