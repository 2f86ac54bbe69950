"""Tells by its first bytes what a file is, before any library is asked to read it."""

import tarfile
import zipfile
from pathlib import Path

from libra_keras.files.reading import open_regular

# What `checkpoint_kind` returns.
SAFETENSORS, ZIP, STREAM, PICKLE = "safetensors", "zip", "stream", "pickle"
# First bytes, and what files that begin so are. Some are downloads that went wrong.
BEGINNINGS = [
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them; its name should end in .h5"),
    (b"\x93NUMPY", "a single NumPy array"),
    (b"GGUF", "a language model of llama.cpp"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
    (b"model_checkpoint_path:", "TensorFlow's list of its checkpoints, not weights"),
    (b"<?xml", "XML, such as an OpenVINO model or annotations"),
    (b"<", "an HTML page, which servers may send instead of a file; download it again"),
    (b"{", "JSON or other text"),
    (b"[", "JSON or other text"),
]
# What words in the first bytes say of JSON: more than that it is that.
JSON = {
    b'"weight_map"': "a Hugging Face index, which names the weights files beside it",
    b'"architectures"': "a Hugging Face configuration, not weights",
    b'"model_type"': "a Hugging Face configuration, not weights",
    b'"class_name"': "a Keras configuration, not weights",
}
# What names say where the bytes do not.
SUFFIXES = {
    ".onnx": "an ONNX model; only the weights that PyTorch saved can be read",
    ".safetensors": "not a safetensors file, or its first bytes are damaged",
    ".pdiparams": "weights of a PaddlePaddle program, which cannot be converted",
    ".pdmodel": "a PaddlePaddle program, which cannot be converted",
    ".caffemodel": "a Caffe network, which cannot be converted",
    ".weights": "Darknet weights, which cannot be converted",
    ".pb": "a TensorFlow graph, a program, which cannot be converted",
    ".params": "MXNet weights, which cannot be converted",
}
# What is in archives that are no checkpoints: ends of members' names.
MEMBERS = {
    "constants.pkl": "a TorchScript archive, a program: save the model's state_dict() instead",
    "archive_format": "a torch.export program: save the model's state_dict() instead",
    "model.weights.h5": "a Keras model; keras.saving.load_model reads it",
    ".npy": "an archive of NumPy arrays (.npz), which cannot be converted",
}
PICKLED = b"\x80"  # how pickles of protocol 2 and above begin
# The number that PyTorch before 1.6 begins with, pickled.
OF_PYTORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # how the index of a checkpoint ends


def checkpoint_kind(path):
    """Returns the format of a checkpoint; for other files, the error says what they are."""
    path = Path(path)
    if path.is_dir():
        what = "a SavedModel, a program" if (path / "saved_model.pb").exists() else "a folder"
        raise ValueError(f"{path} is {what}, not a checkpoint file")
    with open_regular(path) as file:
        start = file.read(512)
    if not start:
        raise ValueError(f"{path} is empty")
    if not any(start):
        raise ValueError(f"{path} begins with zeros; its download was not completed")
    if _is_tar(path):
        raise ValueError(
            f"{path} is a tar archive, the oldest form of torch.save, which is not supported"
        )
    if _is_safetensors(start, path.stat().st_size):
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return ZIP
    if start.startswith(PICKLED):
        return STREAM if OF_PYTORCH in start[:64] else PICKLE
    raise ValueError(f"{path} is not a checkpoint: it is {_description(start, path)}")


def _is_tar(path):
    """As `torch.load` asks, which would unpack it; so without compression."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


def _is_safetensors(start, size):
    """They begin with the length of a JSON object, in eight bytes, and that object."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size


def _description(start, path):
    text = start.lstrip(b"\xef\xbb\xbf\r\n\t ")
    if text[:1] in (b"{", b"["):
        for words, description in JSON.items():
            if words in text:
                return description
    for beginning, description in BEGINNINGS:
        if start.startswith(beginning) or text.startswith(beginning):
            return description
    if start[4:8] == b"TFL3":
        return "a LiteRT (TensorFlow Lite) model, a program, which cannot be converted"
    is_onnx = start[:1] == b"\x08" and start[2:3] == b"\x12" and path.suffix != ".pb"
    if is_onnx or b"pytorch" in start[:32]:
        return SUFFIXES[".onnx"]
    if _ends_with(path, TENSORFLOW) or ".data-0" in path.name:
        return "part of a TensorFlow checkpoint, which cannot be converted"
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)
    return "text" if is_text else "of an unknown format, or damaged"


def _ends_with(path, content):
    with open_regular(path) as file:
        file.seek(max(0, path.stat().st_size - len(content)))
        return file.read() == content


def _check_archive(path):
    """Raises unless a zip archive is one of `torch.save`, of the size that it claims."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is truncated or damaged; download it again") from error
    names = {member.filename.rpartition("/")[2] for member in members}
    for end, what in MEMBERS.items():
        if any(name.endswith(end) for name in names):
            raise ValueError(f"{path} is {what}")
    if "data.pkl" not in names:
        raise ValueError(f"{path} is a zip archive, but not a checkpoint: it has no data.pkl")
    unpacked = sum(member.file_size for member in members)
    is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if is_compressed or unpacked > path.stat().st_size:
        raise ValueError(
            f"{path} is not an archive written by PyTorch: its members are compressed, or claim "
            "to be larger than the file"
        )
