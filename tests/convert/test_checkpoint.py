"""Checkpoint files as training programs write them, and hostile ones: tensors and plain values.

All need PyTorch, which only the slow tests' environment has.
"""

import argparse
import collections
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from libra_keras.convert.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow
FORMS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
MARKER = "opened"  # name of a folder that attacks make


@pytest.fixture(scope="module")
def torch():
    reason = "PyTorch is not installed (pip install 'libra-keras[convert]')"
    return pytest.importorskip("torch", reason=reason)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model.pth"


@pytest.fixture
def weights(torch):
    """An OrderedDict with `_metadata`, as modules give it."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2)]
    return torch.nn.Sequential(*layers).state_dict()


def save(content, path, is_zip=True, **options):
    sys.modules["torch"].save(content, path, _use_new_zipfile_serialization=is_zip, **options)


def assert_read(checkpoint, weights):
    assert list(checkpoint.tensors) == list(weights)
    for name, tensor in weights.items():
        found = checkpoint.tensors[name]
        assert type(found) is np.ndarray and found.dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found, tensor.numpy())


@FORMS
@pytest.mark.parametrize(
    "entry", ["", "state_dict", "model", "model_state_dict", "state_dict_ema", "ema_state_dict"]
)
def test_where_the_tensors_are(entry, is_zip, path, weights):
    save({entry: weights, "epoch": 12} if entry else weights, path, is_zip)
    checkpoint = read_checkpoint(path)
    assert_read(checkpoint, weights)
    assert checkpoint.entry == entry
    assert checkpoint.meta == ({"epoch": 12} if entry else {})
    assert checkpoint.path == path and len(checkpoint.sha256) == 64


@FORMS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(protocol, is_zip, path, weights):
    save({"state_dict": weights, "meta": {"a": (1, 2)}}, path, is_zip, pickle_protocol=protocol)
    checkpoint = read_checkpoint(path)
    assert_read(checkpoint, weights)
    assert checkpoint.meta == {"a": [1, 2]}


def test_plain_weights_come_before_averaged_ones(path, weights):
    averaged = {name: value + 1 for name, value in weights.items()}
    save({"state_dict_ema": averaged, "ema_state_dict": averaged, "state_dict": weights}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.entry == "state_dict"
    assert_read(checkpoint, weights)


def test_names_of_data_parallel_training(path, weights):
    save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    assert_read(read_checkpoint(path), weights)
    mixed = {"module.a": weights["0.bias"], "b": weights["0.bias"]}
    save(mixed, path)
    assert_read(read_checkpoint(path), mixed)


@FORMS
@pytest.mark.parametrize("is_foreign", [False, True])
def test_types_and_views(is_foreign, is_zip, path, torch):
    numbers = torch.arange(24.0)
    content = {
        "half": numbers.half(), "brain": numbers.bfloat16() / 3, "double": numbers.double(),
        "long": numbers.long(), "byte": numbers.byte(), "bool": numbers > 3,
        "scalar": torch.tensor(7), "empty": torch.zeros(0, 3), "view": numbers[5:9],
        "turned": numbers.reshape(4, 6).T, "same": numbers, "spread": torch.ones(1).expand(9),
        "trained": torch.nn.Parameter(numbers), "every other": numbers[::2],
    }  # fmt: skip
    content["trained"].note = "an attribute"
    expected = {name: tensor.detach() for name, tensor in content.items()}
    for name in ("half", "brain"):
        expected[name] = expected[name].float()
    foreign = {"call": os.getcwd} if is_foreign else {}  # which the second reader is for
    save({"model": content, **foreign}, path, is_zip)
    assert_read(read_checkpoint(path), expected)


def imitate_training_run(torch, weights, monkeypatch):
    """What mmengine's runner saves, with objects of classes that are gone when it is read."""
    module = types.ModuleType("thrown_away")
    monkeypatch.setitem(sys.modules, "thrown_away", module)
    classes = {}
    for name, base in [("HistoryBuffer", object), ("ConfigDict", dict), ("Level", int)]:
        classes[name] = type(name, (base,), {"__module__": "thrown_away"})
        setattr(module, name, classes[name])
    module.mean = types.FunctionType((lambda: None).__code__, {}, "mean")
    module.mean.__module__, module.mean.__qualname__ = "thrown_away", "mean"
    buffer = classes["HistoryBuffer"]()
    buffer._log_history, buffer._count_history = np.arange(9.0), np.arange(9)
    buffer._statistics_methods = {"mean": module.mean}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(4)}}, "param_groups": [{"lr": 0.02}]}
    names = classes["ConfigDict"](classes=("cat", "dog"), palette=[(1, 2, 3), (4, 5, 6)])
    return {
        "meta": {
            "epoch": 12, "iter": np.int64(87960), "cfg": "model = dict(type='FasterRCNN')\n",
            "seed": None, "mmengine_version": "0.7.0", "hook_msgs": {"best": np.float32(0.5)},
            "dataset_meta": names, "level": classes["Level"](3), "function": module.mean,
        },
        "state_dict": weights,
        "message_hub": {
            "log_scalars": collections.OrderedDict({"train/loss": buffer}),
            "runtime_info": {"cfg": classes["ConfigDict"](lr=1), "level": classes["Level"](3)},
        },
        "optimizer": optimizer,
        "param_schedulers": [{"base_values": [0.02], "_function": module.mean, "args": buffer}],
    }  # fmt: skip


@FORMS
@pytest.mark.parametrize("protocol", [2, 4])
def test_training_run_of_mmengine(protocol, is_zip, path, torch, weights, monkeypatch):
    content = imitate_training_run(torch, weights, monkeypatch)
    save(content, path, is_zip, pickle_protocol=protocol)
    del sys.modules["thrown_away"]
    checkpoint = read_checkpoint(path)
    assert_read(checkpoint, weights)
    assert checkpoint.meta == {
        "epoch": 12,
        "iter": 87960,
        "cfg": "model = dict(type='FasterRCNN')\n",
        "seed": None,
        "mmengine_version": "0.7.0",
        "hook_msgs": {"best": 0.5},
        "dataset_meta": {"classes": ["cat", "dog"], "palette": [[1, 2, 3], [4, 5, 6]]},
    }
    assert "thrown_away" not in sys.modules


@FORMS
def test_published_file_of_mmdetection_1_and_2(is_zip, path, weights):
    meta = {
        "mmdet_version": "2.3.0+9d3e162",
        "config": "a = 1",
        "CLASSES": ("cat", "dog"),
        "iter": 9,
    }
    save({"meta": meta, "state_dict": weights, "optimizer": {"state": {}}}, path, is_zip)
    checkpoint = read_checkpoint(path)
    assert_read(checkpoint, weights)
    assert checkpoint.meta == {**meta, "CLASSES": ["cat", "dog"]}


def test_what_is_not_plain_is_dropped_from_meta(path, torch, weights):
    meta = {
        "set": {1, 2}, "bytes": b"ab", "tensor": torch.ones(2), 3: "no string", "kept": [1, {}],
        "names": ["cat", os.getcwd],  # as a whole: its elements have places
        "inner": {"kept": 1, "function": os.getcwd},
    }  # fmt: skip
    meta["itself"] = meta
    content = {
        "state_dict": weights,
        "meta": meta,
        "arch": "resnet50",
        "args": argparse.Namespace(),
    }
    save(content, path)
    found = read_checkpoint(path).meta
    itself = found.pop("itself")
    assert itself.pop("itself") is itself
    assert itself == {"kept": [1, {}], "inner": {"kept": 1}}
    assert found == {"arch": "resnet50", **itself}


# --- hostile files


class Attack:
    """Pickled as a call of any importable function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = {
    "system": Attack(os.system, f"mkdir {MARKER}"),
    "eval": Attack(eval, f"__import__('os').mkdir('{MARKER}')"),
    "exec": Attack(exec, f"import os; os.mkdir('{MARKER}')"),
    "mkdir": Attack(os.mkdir, MARKER),
}
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


def rewritten(path, change):
    """Puts other instructions into the pickle of a file, zip or stream."""
    before = path.read_bytes()
    if not zipfile.is_zipfile(path):
        path.write_bytes(change(before))
        assert path.read_bytes() != before
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    assert len(path.read_bytes()) != len(before)


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


# --- what is no weights, and what is damaged


@FORMS
def test_contents_without_weights(is_zip, path, torch):
    linear = torch.nn.Linear(2, 2)
    for content, words in [
        (linear, "an object of torch.nn.modules.linear.Linear, not weights: save the model's"),
        ({"model": linear}, "'model', an object of torch.nn.modules.linear.Linear"),
        (torch.ones(3), "holds no tensors by name, but a single Tensor"),
        ([torch.ones(3)], "but a single list"),
        ({}, "but a single dict"),
        ({"optimizer": {"state": {0: torch.ones(2)}}, "epoch": 1}, "entries are .'optimizer', 'ep"),
        ({"state_dict": {}}, "holds no weights"),
        ({"state_dict": {0: torch.ones(2)}}, "name is no string: 0"),
        ({"state_dict": {"a": torch.ones(2), "b": 3}}, "b should be a tensor. Received: int"),
        ({"a": torch.eye(2).to_sparse()}, "a cannot be read: it is sparse"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a cannot be read: .*complex"),
    ]:
        save(content, path, is_zip)
        with pytest.raises(ValueError, match=words) as raised:
            read_checkpoint(path)
        assert "\n" not in str(raised.value)


@FORMS
def test_values_that_are_not_finite(is_zip, path, torch):
    content = {"a": torch.ones(2), "b": torch.tensor([1, np.nan]), "c": torch.tensor([-np.inf])}
    save(content, path, is_zip)
    with pytest.raises(ValueError, match="2 of 3 tensors hold values that are not finite.* b$"):
        read_checkpoint(path)


@FORMS
@pytest.mark.parametrize("is_foreign", [False, True])
def test_truncated_files(is_foreign, is_zip, path, weights):
    save({"model": weights, **({"call": os.getcwd} if is_foreign else {})}, path, is_zip)
    content = path.read_bytes()
    for length in [*range(1, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="truncated|known|empty") as raised:
            read_checkpoint(path)
        assert "\n" not in str(raised.value)


def test_other_pickles(path):
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    with pytest.raises(ValueError, match="no checkpoint of PyTorch"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Attack(os.mkdir, MARKER)))
    with pytest.raises(ValueError, match="no checkpoint of PyTorch"):
        read_checkpoint(path)
    assert not os.path.exists(MARKER)


def test_torchscript(path, torch):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    with pytest.raises(ValueError, match="is a TorchScript archive"):
        read_checkpoint(path)


# --- safetensors


@pytest.fixture
def safetensors(torch):
    reason = "safetensors is not installed (pip install 'libra-keras[convert]')"
    return pytest.importorskip("safetensors.torch", reason=reason)


def test_safetensors(safetensors, path, torch, weights):
    content = {**weights, "brain": torch.arange(5).bfloat16() / 3, "half": torch.ones(2).half()}
    expected = {name: value if value.dtype != torch.bfloat16 else value.float()
                for name, value in content.items()}  # fmt: skip
    expected["half"] = expected["half"].float()
    for name in ("model.safetensors", "model.pth"):
        file = path.with_name(name)
        safetensors.save_file(content, file, metadata={"format": "pt", "arch": "resnet"})
        checkpoint = read_checkpoint(file)
        assert_read(checkpoint, {name: expected[name] for name in checkpoint.tensors})
        assert set(checkpoint.tensors) == set(content)
        assert checkpoint.meta == {"format": "pt", "arch": "resnet"}
        assert checkpoint.entry == ""


def test_damaged_safetensors(safetensors, path, weights):
    safetensors.save_file(weights, path)
    content = path.read_bytes()
    for length in (50, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="model.pth"):
            read_checkpoint(path)


def test_a_pickle_in_the_name_of_safetensors(path, weights):
    file = path.with_suffix(".safetensors")
    save({"model": weights, "a": ATTACKS["mkdir"]}, file)
    assert_read(read_checkpoint(file), weights)
    assert not os.path.exists(MARKER)


def test_empty_safetensors(safetensors, path):
    safetensors.save_file({}, path)
    with pytest.raises(ValueError, match="holds no weights"):
        read_checkpoint(path)


def test_safetensors_without_the_library(path, weights, monkeypatch):
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"safetensors is not installed: pip install 'libra-k"):
        read_checkpoint(path)
