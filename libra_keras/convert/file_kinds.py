"""Tells by its first bytes what a file is, before any library is asked to read it."""

import tarfile
import zipfile
from pathlib import Path

SAFETENSORS, ZIP, STREAM = "safetensors", "zip", "stream"  # what `checkpoint_kind` returns
# First bytes, and what files that begin so are. Some are downloads that went wrong.
BEGINNINGS = [
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them; its name should end in .h5"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with git lfs pull"),
    (b"{", "JSON or other text"),
    (b"[", "JSON or other text"),
]
PICKLE = b"\x80"  # of protocol 2 and above


def checkpoint_kind(path):
    """Returns in which of the forms below a checkpoint is written.

    Args:
        path: path of a file.

    Returns:
        str: `"safetensors"`, `"zip"` (PyTorch 1.6 and above) or `"stream"` (PyTorch before).

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is none of these; the message says what it seems to be.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from libra_keras.convert.file_kinds import checkpoint_kind
    >>> page = Path(tempfile.mkdtemp()) / "model.pth"
    >>> _ = page.write_text("<!DOCTYPE html><title>Not found</title>")
    >>> try:
    ...     checkpoint_kind(page)
    ... except ValueError as error:
    ...     print(str(error).removeprefix(str(page)))
     is no checkpoint: it is an HTML page, as servers send instead of a file; download it again
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint file")
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError(f"{path} is empty")
    if not any(start):
        raise ValueError(f"{path} begins with zeros only; its download was not finished")
    if _is_tar(path):
        raise ValueError(f"{path} is a tar archive, the oldest form of torch.save; it is not read")
    if _is_safetensors(start, path.stat().st_size):
        return SAFETENSORS
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return ZIP
    if start.startswith(PICKLE):
        return STREAM
    raise ValueError(f"{path} is no checkpoint: it is {_description(start, path.suffix)}")


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


def _description(start, suffix):
    text = start.lstrip(b"\xef\xbb\xbf\r\n\t ")
    for beginning, description in BEGINNINGS:
        if start.startswith(beginning) or text.startswith(beginning):
            return description
    if text[:1] == b"<":
        return "an HTML page, as servers send instead of a file; download it again"
    if suffix == ".onnx" or b"pytorch" in start[:32]:
        return "an ONNX model; only the weights that PyTorch saved can be read"
    if suffix == ".safetensors":
        return "no safetensors file, or its first bytes are damaged"
    is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)
    return "text" if is_text else "of a form that is not known, or damaged"


def _check_archive(path):
    """Raises unless a zip archive is one of `torch.save`, of the size that it claims."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is truncated or damaged; download it again") from error
    names = {member.filename.rpartition("/")[2] for member in members}
    if "constants.pkl" in names:
        raise ValueError(
            f"{path} is a TorchScript archive, a program: save the model's state_dict() instead"
        )
    if "data.pkl" not in names:
        raise ValueError(f"{path} is a zip archive, but no checkpoint: it has no data.pkl")
    unpacked = sum(member.file_size for member in members)
    is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if is_compressed or unpacked > path.stat().st_size:
        raise ValueError(
            f"{path} is no archive that PyTorch wrote: its members are compressed, or claim to be "
            "larger than the file"
        )
