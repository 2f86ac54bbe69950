"""Pickles as data: plain values as Python reads them; nothing else is called, set or imported.

The hostile pickles are written instruction by instruction: what the standard library would do with
them is shown first, so that no test holds for want of an attack.
"""

import argparse
import collections
import copyreg
import io
import os
import pickle
import pickletools
import random
import struct

import numpy as np
import pytest

from libra_keras.convert import pickled_values, unpickling
from libra_keras.convert.pickled_values import Foreign, StoredTensor

PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**31, 2**70, -(2**2100), 0.1, float("inf")],
    "words": ("", "class", "Größe", "line\nline", "\\x00'\""),
    "constants": {True, False, None},
    "nested": [{"a": {"b": [(), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}}],
    "bytes": b"\x00\xff" * 200,
    1: 2,
}
MARKER = "opened"  # name of a folder that attacks make


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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_those_of_pickle(protocol):
    content = dict(PLAIN)
    if protocol < 4:
        del content["constants"]  # written as a call of `set`
    assert unpickling.loads(pickle.dumps(content, protocol)) == content


def test_bytearrays_and_frozen_sets_of_protocol_5():
    content = [bytearray(b"ab"), frozenset({1, 2}), {3}]
    assert unpickling.loads(pickle.dumps(content, 5)) == content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_that_are_met_twice_are_one(protocol):
    inner = ["x"]
    first, second, itself = unpickling.loads(pickle.dumps([inner, inner, [inner]], protocol))
    assert first is second is itself[0]
    endless = []
    endless.append(endless)
    found = unpickling.loads(pickle.dumps(endless, protocol))
    assert found[0] is found


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_ordered_dicts_and_numpy_numbers_become_plain(protocol):
    weights = collections.OrderedDict([("b", 1), ("a", 2)])
    weights._metadata = {"": {"version": 1}}  # as PyTorch sets it
    numbers = [
        np.float64(0.1), np.float32(0.5), np.float16(2), np.int64(-3), np.uint8(255),
        np.bool_(True), np.array(258, ">i4")[()],
    ]  # fmt: skip
    found, plain = unpickling.loads(pickle.dumps([weights, numbers], protocol))
    assert type(found) is dict and list(found.items()) == [("b", 1), ("a", 2)]
    assert plain == [0.1, 0.5, 2.0, -3, 255, True, 258]
    assert [type(number) for number in plain] == [float, float, float, int, int, bool, int]


def test_files_of_python_2():
    # What Python 2 wrote: short strings (U) instead of text, module names of its own.
    ordered = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aK\x01ea\x85q\x03Rq\x04."
    assert unpickling.loads(ordered) == {"a": 1}
    assert unpickling.loads(b"\x80\x02c__builtin__\nset\n](K\x01e\x85R.").name == "__builtin__.set"
    number = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\0\0\0\0\0\0\xe0?\x86R."
    )
    assert unpickling.loads(number) == 0.5


def test_objects_of_other_classes_are_names():
    class_, instance, function = unpickling.loads(
        pickle.dumps([argparse.Namespace, argparse.Namespace(a=1), os.getcwd])
    )
    assert (class_.name, instance.name) == ("argparse.Namespace",) * 2
    assert function.name == f"{os.name}.getcwd"
    assert instance.entries == {} and not hasattr(instance, "a")


def test_items_of_a_foreign_dictionary_are_kept():
    counter = unpickling.loads(pickle.dumps(collections.defaultdict(list, {"a": [1]})))
    assert (type(counter), counter.name) == (Foreign, "collections.defaultdict")
    assert counter.entries == {"a": [1]}


def test_a_foreign_object_takes_elements_and_sets_without_keeping_them():
    content = name("a", "B") + b")R(K\x01K\x02e" + b"K\x03a" + b"(K\x01\x90" + b"K\x01b."
    assert unpickling.loads(content).entries == {}


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


def test_a_tensor_is_the_place_of_its_values():
    tensor, asked = read_with_storages(b"\x80\x02" + TENSOR + b"K\x00" + SHAPE + HOOKS + b"tR.")
    assert type(tensor) is StoredTensor
    assert (tensor.storage, tensor.offset) == ("storage 1", 0)
    assert (tensor.size, tensor.strides) == ((2, 3), (3, 1))
    assert [identity[2:] for identity in asked] == [("0", "cuda:0", 6)]


def test_a_parameter_is_its_tensor():
    tensor = TENSOR + b"K\x00" + SHAPE + HOOKS + b"tR"
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + tensor + HOOKS + b"tR."
    assert type(read_with_storages(parameter)[0]) is StoredTensor
    attributes = name("torch._tensor", "_rebuild_from_type_v2") + b"(" + (
        name("torch._utils", "_rebuild_tensor_v2") + name("torch", "Tensor")
        + b"(" + STORAGE + b"K\x00" + SHAPE + HOOKS + b"t" + b"}tR."
    )  # fmt: skip
    assert type(read_with_storages(attributes)[0]) is StoredTensor


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
        assert type(read_with_storages(content + HOOKS + b"tR.")[0]) is Foreign


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
def test_other_persistent_ids_do_not_reach_pytorch(identity):
    found, asked = read_with_storages(identity + b"Q.")
    assert type(found) is Foreign
    assert asked == []


def test_persistent_ids_as_text_and_without_a_reader():
    assert type(read_with_storages(b"Pstorage\n.")[0]) is Foreign
    assert type(unpickling.loads(STORAGE + b".")) is Foreign


@pytest.mark.parametrize("way", CALLS)
def test_nothing_is_called(way, folder):
    try:
        pickle.loads(CALLS[way] + b".")
    except TypeError as error:  # of what the call returned
        print(error)
    (folder / MARKER).rmdir()
    found = unpickling.loads(b"}" + text("weight") + b"K\x07s" + CALLS[way] + b"\x86.")
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
    assert unpickling.loads(content)["weight"] == 7
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
        except unpickling.UnpicklingError as error:  # state of a NumPy dtype that is a dict
            assert "KeyError" in str(error) or "TypeError" in str(error)
    assert snapshot() == before
    assert unpickling.loads(pickle.dumps(collections.OrderedDict(a=np.float64(2)))) == {"a": 2.0}


def snapshot():
    """What a pickle could have changed."""
    names = {key: (known.name, known.function) for key, known in pickled_values.KNOWN.items()}
    classes = Foreign, StoredTensor, unpickling.Unpickler, Kind, collections.OrderedDict
    functions = [vars(known.function).copy() for known in pickled_values.KNOWN.values()]
    tables = unpickling.VALUES.copy(), unpickling.ACTIONS.copy(), unpickling.LITERALS.copy()
    return names, [dict(vars(kind)) for kind in classes], functions, tables


def test_registered_extensions_are_not_looked_up(folder):
    copyreg.add_extension("os", "mkdir", 240)
    try:
        for code in (b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"):
            content = code + text(MARKER) + b"\x85R."
            pickle.loads(content)
            (folder / MARKER).rmdir()
            assert unpickling.loads(content).name == "copyreg extension 240"
            assert not (folder / MARKER).exists()
    finally:
        copyreg.remove_extension("os", "mkdir", 240)


def test_a_known_name_is_known_as_a_whole():
    for module, member in [
        ("collections", "OrderedDict.fromkeys"), ("collections.OrderedDict", "fromkeys"),
        ("numpy", "dtype.type"), ("torch", "_utils._rebuild_tensor_v2"), ("collections ", "x"),
    ]:  # fmt: skip
        found = unpickling.loads(b"\x80\x04" + stacked(module, member) + b")R.")
        assert type(found) is Foreign and found.name == f"{module}.{member}"


@pytest.mark.parametrize(
    "arguments",
    [text("O") + b"\x85", text("V8") + b"\x85", b"](" + text("f8") + b"e\x85", b")",
     name("os", "mkdir") + b"\x85"],
)  # fmt: skip
def test_other_dtypes_are_foreign(arguments):
    assert type(unpickling.loads(name("numpy", "dtype") + arguments + b"R.")) is Foreign


def test_known_names_with_odd_arguments_are_foreign():
    for known in pickled_values.KNOWN.values():
        module, _, member = known.name.rpartition(".")
        for arguments in (b"(NNNNNNNNNt", b"(K\x01t", b"N", name("os", "mkdir") + b"\x85"):
            assert type(unpickling.loads(name(module, member) + arguments + b"R.")) is Foreign


def test_every_cut_is_an_error():
    content = pickle.dumps([PLAIN, np.float64(1), argparse.Namespace(a=(1, 2))], 4)
    for length in range(0, len(content), 7):
        with pytest.raises(unpickling.UnpicklingError):
            unpickling.loads(content[:length])


def test_every_instruction_is_read_or_refused():
    handled = {*unpickling.LITERALS, *unpickling.VALUES, *unpickling.ACTIONS, "STOP"}
    refused = {code.name for code in pickletools.opcodes} - handled
    assert refused == {"NEXT_BUFFER", "READONLY_BUFFER"}
    with pytest.raises(unpickling.UnpicklingError, match="NEXT_BUFFER"):
        unpickling.loads(b"\x97.")


@pytest.mark.parametrize(
    "content",
    [b".", b"R.", b"K\x01K\x02R" * 2 + b"tu.", b"0.", b"1.", b"h\x05.", b"K\x01)s.", b"(K\x01d.",
     b"}](K\x01esN.", b"}]Ns.", b"K\x01K\x02a.", b"(K\x01\x90.", b"K\x01K\x02\x93.", b"I1x\n.",
     b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", b"X\xff\xff\xff\xffabc.", b"no pickle", b""],
)  # fmt: skip
def test_streams_that_make_no_sense(content):
    with pytest.raises(unpickling.UnpicklingError):
        unpickling.loads(content)


def test_damaged_bytes_are_an_error_or_other_values(folder):
    content = pickle.dumps([PLAIN, np.float64(1), Attack(make_folder, MARKER)], 2)
    draw = random.Random(0)
    for _ in range(1000):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 5)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            unpickling.loads(bytes(damaged))
        except unpickling.UnpicklingError:
            pass
    assert list(folder.iterdir()) == []


def test_the_file_ends_up_behind_each_pickle(tmp_path):
    path = tmp_path / "several"
    path.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps([2], 4) + b"rest")
    with open(path, "rb") as file:
        assert [unpickling.load(file, encoding="utf-8"), unpickling.load(file)] == [{"a": 1}, [2]]
        assert file.read() == b"rest"
