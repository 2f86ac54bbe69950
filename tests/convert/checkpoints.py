"""Checkpoint files as PyTorch writes them, and what hostile ones hold."""

import os
import sys
import zipfile

import numpy as np
import pytest
from convert.pickles import MARKER, Attack

FORMS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
ATTACKS = {
    "system": Attack(os.system, f"mkdir {MARKER}"),
    "eval": Attack(eval, f"__import__('os').mkdir('{MARKER}')"),
    "exec": Attack(exec, f"import os; os.mkdir('{MARKER}')"),
    "mkdir": Attack(os.mkdir, MARKER),
}


def save(content, path, is_zip=True, **options):
    sys.modules["torch"].save(content, path, _use_new_zipfile_serialization=is_zip, **options)


def assert_read(checkpoint, weights):
    assert list(checkpoint.tensors) == list(weights)
    for name, tensor in weights.items():
        found = checkpoint.tensors[name]
        assert type(found) is np.ndarray and found.dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found, tensor.numpy())


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
