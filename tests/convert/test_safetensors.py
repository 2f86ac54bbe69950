"""Weights in the form of safetensors; PyTorch is needed to compare with."""

import os

import pytest
from convert.checkpoints import ATTACKS, assert_read, save
from convert.pickles import MARKER

from libra_keras.convert.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def safetensors(torch):
    return pytest.importorskip("safetensors.torch")


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


def test_a_pickle_in_the_name_of_safetensors(path, weights):
    file = path.with_suffix(".safetensors")
    save({"model": weights, "a": ATTACKS["mkdir"]}, file)
    assert_read(read_checkpoint(file), weights)
    assert not os.path.exists(MARKER)


def test_empty_safetensors(safetensors, path):
    safetensors.save_file({}, path)
    with pytest.raises(ValueError, match="holds no weights"):
        read_checkpoint(path)
