"""Hostile checkpoint files: nothing is called, set or written, and weights beside it are read.

All need PyTorch, which only the slow tests' environment has.
"""

import os
import sys

import pytest
from convert.checkpoints import ATTACKS, FORMS, assert_read, rewritten, save
from convert.pickles import MARKER

from libra_keras.convert.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow
PLACES = {
    "top": lambda weights, attack: {"state_dict": weights, "extra": attack},
    "meta": lambda weights, attack: {"state_dict": weights, "meta": {"a": [attack]}},
    "all of meta": lambda weights, attack: {"meta": attack, "state_dict": weights},
    "optimizer": lambda weights, attack: {"optimizer": {"state": attack}, "state_dict": weights},
    "key": lambda weights, attack: {"state_dict": weights, "hub": {(1, attack): 0}},
}


def is_attacked(path):
    """Whether Python's own reader would have run the attack; undoes it."""
    sys.modules["torch"].load(path, weights_only=False)
    os.rmdir(MARKER)
    return True


@FORMS
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_beside_the_weights_do_nothing(attack, place, is_zip, path, weights):
    save(PLACES[place](weights, ATTACKS[attack]), path, is_zip)
    if attack == "mkdir":
        assert is_attacked(path)
    checkpoint = read_checkpoint(path)
    assert_read(checkpoint, weights)
    assert checkpoint.meta == {}
    assert not os.path.exists(MARKER)


@FORMS
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_in_place_of_weights_are_errors(attack, is_zip, path, weights):
    attack = ATTACKS[attack]
    for content, words in [
        ({"state_dict": {**weights, "fc.bias": attack}}, "fc.bias should be a tensor. Received"),
        ({**weights, "fc.bias": attack}, "fc.bias should be a tensor. Received"),
        ({"state_dict": attack}, "'state_dict', an object of"),
        (attack, "holds an object of"),
    ]:
        save(content, path, is_zip)
        with pytest.raises(ValueError, match=words):
            read_checkpoint(path)
        assert not os.path.exists(MARKER)


def attribute(function, name, value):
    """Instructions that set an attribute of a global and leave the stack as it was."""
    return b"c" + function + b"\n(N}X" + len(name).to_bytes(4, "little") + name + value + b"stb0"


@FORMS
@pytest.mark.parametrize(
    "instructions",
    [
        b"(X\x06\0\0\0openedios\nmkdir\n0",
        b"(cos\nmkdir\nX\x06\0\0\0openedo0",
        b"cos\nmkdir\nX\x06\0\0\0opened\x85R0",
        attribute(b"collections\nOrderedDict", b"update", b"cos\nmkdir\n"),
        attribute(b"torch._utils\n_rebuild_tensor_v2", b"__code__", b"cos\nmkdir\n"),
        attribute(b"torch._utils\n_rebuild_tensor_v2", b"__kwdefaults__", b"}"),
        attribute(b"torch\nFloatStorage", b"_dtype", b"cos\nmkdir\n"),
        attribute(b"builtins\nset", b"a", b"cos\nmkdir\n"),
        attribute(b"torch.serialization\nload", b"a", b"cos\nmkdir\n"),
    ],
)
def test_instructions_written_by_hand(instructions, is_zip, path, torch, weights):
    save({"place": "here", "call": os.getcwd, "state_dict": weights}, path, is_zip)
    function = torch._utils._rebuild_tensor_v2
    before = vars(function).copy(), function.__code__, function.__kwdefaults__
    start = b"X\x05\0\0\0place"
    rewritten(path, lambda content: content.replace(start, instructions + start))
    assert_read(read_checkpoint(path), weights)
    assert not os.path.exists(MARKER)
    assert (vars(function), function.__code__, function.__kwdefaults__) == before
    save({"state_dict": weights}, path, is_zip)  # and nothing has changed for the next file
    assert_read(read_checkpoint(path), weights)


def test_a_stream_makes_no_source_files(path, weights):
    """For a class with its source, PyTorch's reader compares it and may write NAME.patch."""
    save({"place": "here", "call": os.getcwd, "state_dict": weights}, path, is_zip=False)
    start = b"X\x05\0\0\0place"
    module = b"(X\x06\0\0\0modulectorch.nn\nLinear\nX\x04\0\0\0fileX\x06\0\0\0sourcetQ0"
    rewritten(path, lambda content: content.replace(start, module + start))
    assert_read(read_checkpoint(path), weights)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@FORMS
def test_tensors_that_claim_more_than_the_file_has(is_zip, path, torch):
    for more in ({}, {"call": os.getcwd}):
        save({"model": {"a": torch.ones(1).expand(10**12)}, **more}, path, is_zip)
        with pytest.raises(ValueError, match="a cannot be read: its shape .* larger than the file"):
            read_checkpoint(path)
    save({"model": {"weight": torch.ones(1000)}, "call": os.getcwd}, path, is_zip)
    # The number of elements (M, two bytes) in the storage's id, and in the shape.
    rewritten(path, lambda content: content.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    with pytest.raises(ValueError, match="model.pth"):
        read_checkpoint(path)
