"""Checkpoints of others that are damaged: both forms of `torch.save`, pickles and safetensors."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from convert.pickles import Attack
from hostile_files import zipped
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, cases, damaged_bytes
from safetensors.numpy import save

from libra_keras.convert import read_checkpoint

FIXTURES = Path(__file__).parents[1] / "convert" / "fixtures"
ARRAYS = {"conv1.weight": np.arange(24, dtype="float32").reshape(2, 3, 4), "n": np.arange(3)}
FILES = {
    "zip.pth": (FIXTURES / "saved_zip.pth").read_bytes(),
    "stream.pth": (FIXTURES / "saved_stream.pth").read_bytes(),
    "model.pkl": pickle.dumps({"model": ARRAYS, "__author__": "Detectron2 Model Zoo"}),
    "attack.pkl": pickle.dumps({"model": ARRAYS, "epoch": Attack(os.system, "true")}),
    "model.safetensors": save(ARRAYS, {"format": "pt"}),
}
MOST = 16  # times the size of a file: what its arrays may take


def damaged_archive(path):
    """Bytes of an archive whose members are damaged, and whose sums are right again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = st.sampled_from([name for name, content in members.items() if content])
    return names.flatmap(
        lambda name: damaged_bytes(members[name]).map(
            lambda content: zipped({**members, name: content})
        )
    )


def damaged_header(content):
    """Bytes of safetensors whose header alone is damaged, and its length right again."""
    end = 8 + int.from_bytes(content[:8], "little")
    return damaged_bytes(content[8:end]).map(
        lambda header: len(header).to_bytes(8, "little") + header + content[end:]
    )


@st.composite
def damaged_files(draw):
    """The name of a file, and what is in it."""
    name = draw(st.sampled_from(sorted(FILES)))
    kinds = [damaged_bytes(FILES[name])]
    if name == "zip.pth":
        kinds.append(damaged_archive(FIXTURES / "saved_zip.pth"))
    if name == "model.safetensors":
        kinds.append(damaged_header(FILES[name]))
    return name, draw(st.one_of(kinds))


@pytest.fixture
def is_right(tmp_path, guarded):
    """A check: a file is an error that names it, or arrays that are finite and not too large."""

    def check(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        guarded.forget()
        try:
            found = read_checkpoint(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        else:
            assert all(np.isfinite(array).all() for array in found.tensors.values())
            assert sum(array.nbytes for array in found.tensors.values()) <= MOST * len(content)
        guarded()

    return check


@cases(FAST)
@given(file=damaged_files())
def test_checkpoints(is_right, file):
    is_right(*file)
