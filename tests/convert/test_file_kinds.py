"""What is no checkpoint is told by its first bytes: one sentence, and no library is asked."""

import argparse
import io
import json
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from hostile_files import zipped
from PIL import Image

from libra_keras.convert.checkpoint import file_hash, read_checkpoint
from libra_keras.convert.file_kinds import checkpoint_kind


def image(form):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, form)
    return stream.getvalue()


def tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    return stream.getvalue()


OF_PYTORCH = 0x1950A86A20F9469CFC6C  # with which `torch.save` began before 1.6
HEADER = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
NOT = {
    "a JPEG image": image("JPEG"),
    "a PNG image": image("PNG"),
    "an HTML page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
    "JSON or other text": b'{"images": []}',
    "a Hugging Face index": b'{"metadata": {"total_size": 9}, "weight_map": {"a": "b"}}',
    "a Hugging Face configuration": b'{"architectures": ["DetrForObjectDetection"]}',
    "a Keras configuration": b'{"module": "keras", "class_name": "Functional"}',
    "TensorFlow's list": b'model_checkpoint_path: "model.ckpt-100"\n',
    "part of a TensorFlow checkpoint": bytes(range(200)) + b"W\xfb\x80\x8b$uG\xdb",
    "a LiteRT": b"\x1c\0\0\0TFL3" + bytes(range(99)),
    "XML, such as an OpenVINO model": b'<?xml version="1.0"?><net name="a" version="11">',
    "a single NumPy array": b"\x93NUMPY\x01\0v\0{'descr': '<f4'",
    "an archive of NumPy arrays": zipped({"a.npy": b"x"}),
    "a Keras model; keras.saving.load_model": zipped(
        {"config.json": "{}", "model.weights.h5": "x"}
    ),
    "a torch.export program": zipped({"m/archive_format": "pt2", "m/data.pkl": b""}),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "compressed with gzip": b"\x1f\x8b\x08" + bytes(range(100)),
    "an ONNX model": b"\x08\x07\x12\x07pytorch\x1a\x051.8.0" + bytes(range(200)),
    "it is text": b"epoch 1 loss 0.5\n",
    "of an unknown format": bytes(range(1, 255)),
    "a tar archive": tar(),
    "no data.pkl": zipped({"config.json": "{}"}),
    "a TorchScript archive": zipped({"m/data.pkl": b"", "m/constants.pkl": b""}),
    "compressed, or claim": zipped({"m/data.pkl": bytes(1000)}, zipfile.ZIP_DEFLATED),
    "is empty": b"",
    "begins with zeros": bytes(20000),
    "is truncated or damaged": zipped({"m/data.pkl": bytes(1000)})[:500],
}


@pytest.mark.parametrize("words", NOT)
def test_what_is_no_checkpoint(words, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(NOT[words])
    with pytest.raises(ValueError, match=words) as raised:
        read_checkpoint(path)
    message = str(raised.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert len(message.removeprefix(str(path))) < 150


def test_suffixes_help_only_where_the_bytes_do_not(tmp_path):
    for suffix, words in [
        ("onnx", "an ONNX model"),
        ("safetensors", "not a safetensors file"),
        ("pdiparams", "weights of a PaddlePaddle program"),
        ("weights", "Darknet weights"),
        ("ckpt.data-00000-of-00001", "part of a TensorFlow checkpoint"),
    ]:
        path = tmp_path / f"model.{suffix}"
        path.write_bytes(b"\x08\xff" + bytes(range(100)))
        with pytest.raises(ValueError, match=words):
            checkpoint_kind(path)


def test_kinds(tmp_path):
    path = tmp_path / "model.h5"  # the name does not count
    for content, kind in [
        (zipped({"m/data.pkl": pickle.dumps({})}), "zip"),
        (pickle.dumps(OF_PYTORCH, 2), "stream"),
        (pickle.dumps(OF_PYTORCH, 4), "stream"),
        (pickle.dumps({}), "pickle"),
        (len(HEADER).to_bytes(8, "little") + HEADER + bytes(4), "safetensors"),
    ]:
        path.write_bytes(content)
        assert checkpoint_kind(path) == kind


def test_an_archive_that_claims_more_than_it_has(tmp_path):
    path = tmp_path / "model.pth"
    content = zipped({"m/data.pkl": bytes(1000)})
    size = (1000).to_bytes(4, "little")
    assert content.count(size * 2) == 2  # packed and unpacked: before the member, and at the end
    path.write_bytes(content.replace(size * 2, size + (2**31).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="larger than the file"):
        checkpoint_kind(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_other_programs(protocol, tmp_path, monkeypatch):
    """Detectron2's hold arrays of NumPy, which take no PyTorch; what others hold is said."""
    monkeypatch.setitem(sys.modules, "torch", None)
    arrays = {"stem.conv1.weight": np.arange(24, dtype="float16").reshape(2, 3, 4).T}
    path = tmp_path / "model.pkl"

    def write(content):
        path.write_bytes(pickle.dumps(content, protocol))

    write({"model": arrays, "__author__": "Detectron2 Model Zoo"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.entry == "model"
    assert checkpoint.meta == {"__author__": "Detectron2 Model Zoo"}
    [(name, found)] = checkpoint.tensors.items()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, arrays[name])
    for content, words in [
        ({**arrays, "StructuredToParameterName@@": {}}, r"NumPy arrays \(PaddlePaddle\), whose"),
        (argparse.Namespace(a=1), "an object of argparse.Namespace, not weights"),
        ({"a": np.array(["x", None], "object")}, "holds no weights"),
        ({"a": np.array([1.0, np.nan])}, "not finite"),
    ]:
        write(content)
        with pytest.raises(ValueError, match=words):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps(arrays, protocol)[:-9])
    with pytest.raises(ValueError, match="a pickle that is truncated or damaged"):
        read_checkpoint(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="is a folder"):
        read_checkpoint(str(tmp_path))
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="is a SavedModel"):
        read_checkpoint(str(tmp_path))


def test_the_hash_is_that_of_all_bytes(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"abc")
    # The example of FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(path) == expected
