"""Checkpoint files as training programs write them, and files that hold no weights.

All need PyTorch, which only the slow tests' environment has.
"""

import argparse
import collections
import os
import pickle
import sys
import types

import numpy as np
import pytest
from convert.checkpoints import FORMS, assert_read, save
from convert.pickles import MARKER, Attack

from libra_keras.convert.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("counter", [None, "steps", "n_averaged"])
def test_names_of_data_parallel_training_and_of_averages(counter, path, torch, weights):
    """The averaged model of mmengine, and that of PyTorch, counts its updates beside the names."""
    found = {f"module.{name}": value for name, value in weights.items()}
    save({"ema_state_dict": found | ({counter: torch.tensor(9)} if counter else {})}, path)
    assert_read(read_checkpoint(path), weights)


def test_names_of_which_only_some_are_of_data_parallel_training(path, weights):
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
        ({"state_dict": {0: torch.ones(2)}}, "name is not a string: 0"),
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
    with pytest.raises(ValueError, match="2 of 3 tensors contain values that are not finite.* b$"):
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


def test_a_call_in_another_pickle(path):
    path.write_bytes(pickle.dumps(Attack(os.mkdir, MARKER)))
    with pytest.raises(ValueError, match="an object of posix.mkdir, not weights"):
        read_checkpoint(path)
    assert not os.path.exists(MARKER)


def test_torchscript(path, torch):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    with pytest.raises(ValueError, match="is a TorchScript archive"):
        read_checkpoint(path)
