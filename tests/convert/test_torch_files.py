"""Files of PyTorch without PyTorch: two that it wrote, hostile ones by hand, and damaged ones.

What the slow tests read is compared with `torch.load`.
"""

import io
import os
import pickle
import random
import shutil
import struct
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from convert.checkpoints import FORMS, rewritten, save
from convert.pickles import MARKER, loads, name, text

from libra_keras.convert import load
from libra_keras.convert.checkpoint import read_checkpoint
from libra_keras.convert.file_kinds import checkpoint_kind
from libra_keras.convert.pickles import LARGE, LIMIT
from libra_keras.convert.torch_files import OF_PYTORCH, opened

FIXTURES = Path(__file__).parent / "fixtures"
# Files of PyTorch 2.13, of the tensors below, and of the same `meta`.
SAVED = pytest.mark.parametrize("file", ["saved_zip.pth", "saved_stream.pth"])
PAIR = b"\x86"  # makes a tuple of two


def expected():
    n = np.arange(24, dtype="float32")
    brain = (n.astype(ml_dtypes.bfloat16) / ml_dtypes.bfloat16(3)).astype("float32")
    return {
        "half": (n.astype("float16") / np.float16(7)).astype("float32"), "brain": brain,
        "double": n.astype("float64") / 3, "long": n.astype("int64"), "byte": n.astype("uint8"),
        "bool": n > 3, "scalar": np.int64(7), "empty": np.zeros((0, 3), "float32"),
        "view": n[5:9], "turned": n.reshape(4, 6).T, "same": n, "spread": np.ones(9, "float32"),
        "trained": n, "every.other": n[::2],
    }  # fmt: skip


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype and found[key].shape == array.shape
        assert found[key].tobytes() == array.tobytes()


@SAVED
def test_files_that_pytorch_wrote(file):
    checkpoint = read_checkpoint(FIXTURES / file)
    assert checkpoint.meta == {
        "place": "here",
        "epoch": 12,
        "CLASSES": ["cat", "dog"],
        "iter": 87960,
    }
    assert_same(checkpoint.tensors, expected())


def as_zip(body):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model/data.pkl", b"\x80\x02" + body + b".")
    return stream.getvalue()


def as_stream(body):
    start = [pickle.dumps(value, 2) for value in (OF_PYTORCH, 1001, {})]
    return b"".join([*start, b"\x80\x02" + body + b".", pickle.dumps([], 2)])


def as_pickle(body):
    return b"\x80\x02" + body + b"."


DEEP = b")" + b"\x85" * 200_000  # hashing it overflows the stack
# A tuple of two times the one before, and so on: hashing it takes 2**64 steps.
PUT, GET = b"r\0\0\0\x10", b"j\0\0\0\x10"  # where no other instruction does
WIDE = b"K\x01" + PUT + (b"0" + GET + GET + PAIR + PUT) * 64
# A value of 10,000 elements, and a call that reads it, again and again.
LONG = b"](" + b"K\x01K\x02\x86" * 10_000 + b"e\x85q\x01"
AGAIN = b"0h\x00h\x01R" * 20_000
BODIES = {
    "deep": DEEP,
    "deep as a key": b"}" + DEEP + b"Ns",
    "deep as a key of DICT": b"(" + DEEP + b"Nd",
    "deep in a set": b"\x8f(" + DEEP + b"\x90",
    "deep in a frozen set": b"(" + DEEP + b"\x91",
    "deep in an ordered dict": name("collections", "OrderedDict") + b"](" + DEEP + b"N\x86e\x85R",
    "deep as an order": name("numpy", "dtype") + text("f8") + b"\x85R" + b"N" + DEEP + b"\x86b",
    "deep as a dtype": name("numpy", "dtype") + DEEP + b"\x85R",
    "deep lists": b"]" * 200_000 + b"a" * 199_999,
    "deep calls": name("a", "b") * 100_000 + b")" + b"R" * 100_000,
    "wide as a key": b"}" + WIDE + b"Ns",
    "wide in a set": b"\x8f(" + WIDE + b"\x90",
    "wide as an order": name("numpy", "dtype") + text("f8") + b"\x85R" + b"N" + WIDE + b"\x86b",
    "memory for bytes": b"\x8e" + b"\xff" * 7 + b"\x3f",
    "memory for a byte array": b"\x96" + b"\xff" * 7 + b"\x3f",
    "memory for text": b"\x8d" + b"\xff" * 7 + b"\x3f",
    "memory for a frame": b"\x95" + b"\xff" * 7 + b"\x3f",
    "memory for a number": b"\x8b\xff\xff\xff\x7f",
    "memory for the memo": b"Nr\xff\xff\xff\xff",
    "a large place in the memo": b"Np" + b"9" * 4000 + b"\n",
    "a negative place": b"Np-1\n",
    "an extension": b"\x82\xf0",
    "a call of a long list": name("collections", "OrderedDict") + b"q\x00" + LONG + AGAIN,
    "a call of a long text": name("_codecs", "encode") + b"q\x00" + text("a" * 10**5)
    + text("latin1") + PAIR + b"q\x01" + AGAIN,
    "a long name": name("a" * 1000, "b"),
    "digits": b"I" + b"9" * 100_000 + b"\n",
}  # fmt: skip


@pytest.mark.parametrize("form", [as_zip, as_stream, as_pickle])
@pytest.mark.parametrize("body", BODIES)
def test_hostile_contents_are_errors_that_name_the_file(body, form, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(form(BODIES[body]))
    start = time.monotonic()
    with pytest.raises(ValueError, match="model.pth") as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600 + len(str(path))
    assert time.monotonic() - start < 30


def test_instructions_are_limited(monkeypatch):
    monkeypatch.setattr("libra_keras.convert.pickles.LIMIT", 2**16)
    assert loads(b"N0" * (2**15 - 1) + b"N.") is None
    with pytest.raises(pickle.UnpicklingError, match="more than 65536 bytes of instructions"):
        loads(b"N0" * 2**15 + b"N.")


def test_large_values_are_no_instructions():
    """Logs of training runs are arrays of megabytes."""
    value = bytes(LARGE)
    assert loads(pickle.dumps([value] * (LIMIT // LARGE + 1), 4))[-1] == value
    found = loads(b"](" + (b"B" + struct.pack("<I", LARGE) + value) * (LIMIT // LARGE + 9) + b"e.")
    assert len(found) == LIMIT // LARGE + 9


@pytest.mark.parametrize("body", ["deep as a key", "wide as a key", "deep lists", "an extension"])
@SAVED
def test_weights_beside_them_are_read(file, body, tmp_path):
    path = shutil.copy(FIXTURES / file, tmp_path / "model.pth")
    place = text("place")
    key = text("other") + BODIES[body]
    rewritten(path, lambda content: content.replace(place, key + place))
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.tensors, expected())
    assert checkpoint.meta["epoch"] == 12


@pytest.mark.parametrize("body", ["deep", "deep lists"])
def test_meta_of_what_no_program_nests(body, tmp_path):
    weights = pickle.dumps({"a": np.zeros(2)}, 2)[2:-1]
    meta = b"}" + text("deep") + BODIES[body] + b"s"
    path = tmp_path / "model.pth"
    body = b"".join([text("state_dict"), weights, b"s", text("meta"), meta, b"s"])
    path.write_bytes(as_pickle(b"}" + body + text("epoch") + b"K\x0cs"))
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == ["a"] and checkpoint.meta == {"epoch": 12}


def test_entries_of_other_keys_are_dropped():
    content = {"a": 1, b"b": 2, True: 3, None: 4, 5: 6, (1, 2): 7, 0.5: 8, 2**40: 9}
    assert loads(pickle.dumps(content)) == {"a": 1, b"b": 2, True: 3, None: 4, 5: 6}
    assert loads(pickle.dumps({"a", 2, (3,), None}, 4)) == {"a", 2, None}


def test_text_that_would_never_end_is_no_configuration(tmp_path):
    """Lists of two times the list before: as text, 2**64 of them."""
    wide = b"]" + PUT + (b"0](" + GET + GET + b"e" + PUT) * 64
    weights = b"}" + text("backbone.conv1.weight") + pickle.dumps(np.zeros((2, 3)), 2)[2:-1] + b"s"
    weights += text("rpn_head.a") + pickle.dumps(np.zeros((2, 3)), 2)[2:-1] + b"s"
    meta = b"}" + b"".join(text(key) + wide + b"s" for key in ("config", "mmdet_version"))
    meta += text("CLASSES") + b"](" + wide + b"es"
    body = b"}" + text("state_dict") + weights + b"s" + text("meta") + meta + b"s"
    path = tmp_path / "model.pth"
    path.write_bytes(as_pickle(body))
    assert list(read_checkpoint(path).meta) == ["config", "mmdet_version", "CLASSES"]
    with pytest.raises(ValueError, match="model.pth cannot be converted"):
        load(path)


@SAVED
def test_views_that_are_too_large_together(file, tmp_path, monkeypatch):
    monkeypatch.setattr("libra_keras.convert.checkpoint.VIEWS", 0.1)
    with pytest.raises(ValueError, match="larger than the file"):
        read_checkpoint(FIXTURES / file)


def damaged(content, draw):
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(content))
        kind = draw.randrange(5)
        if kind == 0:
            del content[place : place + draw.randint(1, 40)]
        elif kind == 1:
            content[place:place] = content[place - 20 : place]
        elif kind == 2:
            content[place : place + 4] = draw.randbytes(4)
        else:
            content[place] = draw.randrange(256)
    return bytes(content or b"x")


@SAVED
def test_damaged_files_are_an_error_or_other_arrays(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = shutil.copy(FIXTURES / file, tmp_path / "model.pth")
    call = name("os", "mkdir") + text(MARKER) + b"\x85R0"
    rewritten(path, lambda content: content.replace(text("place"), call + text("place")))
    content, draw, read = path.read_bytes(), random.Random(0), 0
    start = time.monotonic()
    for _ in range(2000):
        path.write_bytes(damaged(content, draw))
        try:
            tensors = read_checkpoint(path).tensors
        except ValueError as error:
            assert "model.pth" in str(error)
        else:
            assert all(type(array) is np.ndarray for array in tensors.values())
            read += 1
    assert 20 < read < 1900 and time.monotonic() - start < 120
    assert os.listdir(tmp_path) == ["model.pth"]


TYPES = (
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip
# Which `torch.load` cannot read of the older form.
NEW_TYPES = ("uint16", "float8_e4m3fn")


def some_tensor(torch, draw, types):
    """A tensor of any type, often a view: turned, of every other element, or repeated."""
    kind = getattr(torch, draw.choice(types))
    sides = [draw.choice([0, 1, 1, 2, 3, 5, 8]) for _ in range(draw.randint(0, 4))]
    numbers = (torch.randn(sides) * 50).abs().to(kind)
    if sides and draw.random() < 0.3:
        numbers = numbers[draw.randrange(max(1, sides[0])) :]
    if sides and draw.random() < 0.3:
        numbers = numbers[..., :: draw.randint(1, 3)]
    if draw.random() < 0.3:
        numbers = numbers.permute(draw.sample(range(numbers.ndim), numbers.ndim))
    return numbers.expand(3, *numbers.shape) if draw.random() < 0.1 else numbers


@pytest.mark.slow
@FORMS
def test_tensors_are_those_of_torch_load(is_zip, path, torch):
    draw = random.Random(0)
    torch.manual_seed(0)
    types = TYPES + NEW_TYPES if is_zip else TYPES
    save({str(i): some_tensor(torch, draw, types) for i in range(310)}, path, is_zip)
    wanted = torch.load(path)
    with opened(path, checkpoint_kind(path)) as (content, read_storage):
        found = {key: tensor.values(read_storage, 10**6) for key, tensor in content.items()}
    assert list(found) == list(wanted)
    for key, tensor in wanted.items():
        bits = tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)
        assert found[key].shape == tuple(tensor.shape)
        assert found[key].dtype.name == str(tensor.dtype).removeprefix("torch.")
        assert found[key].tobytes() == bits.numpy().tobytes()


@pytest.mark.slow
def test_files_of_the_other_byte_order(path, torch):
    save({"a": torch.arange(5.0), "b": torch.arange(5), "c": torch.ones(3).bool()}, path)
    with zipfile.ZipFile(path) as archive:
        members = {key: archive.read(key) for key in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in members.items():
            archive.writestr(key, b"big" if key.endswith("byteorder") else content)
    wanted = {key: tensor.numpy() for key, tensor in torch.load(path).items()}
    assert wanted["b"].tolist() != [0, 1, 2, 3, 4]
    with opened(path, checkpoint_kind(path)) as (content, read_storage):
        assert_same({k: tensor.values(read_storage, 99) for k, tensor in content.items()}, wanted)
