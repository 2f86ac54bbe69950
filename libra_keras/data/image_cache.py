"""Decoded and resized images on disk, so that only the first epoch decodes and resizes."""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import PIL

from libra_keras.data.findings import read_checked
from libra_keras.files.reading import open_regular

logger = logging.getLogger(__name__)

# Of an entry: magic, size and time of the image file, height, width, sum of the pixels' words.
HEADER = struct.Struct("<8sQqIIQ24x")
MAGIC = b"lkimage1"
UNFINISHED = ".unfinished."
ABANDONED_AFTER = 3600  # seconds; by then the process that was writing is gone
SPARE = 2**31  # bytes of the disk that are left alone: a run has weights to save, perhaps there


# An entry belongs to one image file (its path, size and time of change), one `InputPolicy` and one
# version of Pillow; an image that has changed since, or an entry that is damaged, is read and
# written anew. Entries appear whole or not at all, so several runs may share a folder, and any may
# be killed. An entry takes 3 bytes a pixel: 2.6 MB at 800 x 1067.
class ImageCache:
    """Keeps the resized images of a data set in a folder: before augmentation, without padding."""

    def __init__(self, folder, data, policy):
        if not data.has_files:
            raise ValueError(
                f"Only image files can be cached. Received: {data.name}, which has none"
            )
        self.folder = Path(folder)
        self.data = data
        self.policy = policy
        self.is_writable = True
        self._kind = json.dumps([policy.get_config(), PIL.__version__], sort_keys=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()

    def bytes_needed(self):
        """Returns the bytes that all images of the data set take, and those not yet taken."""
        total, missing = 0, 0
        for example in self.data.examples:
            height, width = self.policy.fitted_size(example.height, example.width)
            size = HEADER.size + 3 * height * width
            total += size
            missing += 0 if self._entry(example).exists() else size
        return total, missing

    def read(self, i):
        """Returns the resized image of example `i`: uint8 `(h, w, 3)`, from its entry or file."""
        example = self.data.examples[i]
        identity, entry = file_identity(example.file), self._entry(example)
        size = self.policy.fitted_size(example.height, example.width)
        content = None if identity is None else _load(entry, identity, size)
        if content is None:
            with read_checked(self.data, i) as image:
                content = self.policy.resized(image)
            if identity is not None and self.is_writable:
                self._save(entry, identity, content)
        return content

    def _entry(self, example):
        """The annotated size is in the name: it decides whether the file counts as damaged."""
        key = f"{os.path.abspath(example.file)}\n{example.height} {example.width}\n{self._kind}"
        name = hashlib.sha256(key.encode("utf8", "surrogateescape")).hexdigest()[:32]
        return self.folder / name[:2] / name[2:]

    def _save(self, entry, identity, content):
        try:
            _check_room(self.folder, content.nbytes)
            _write(entry, identity, content)
        except OSError as error:
            if self.is_writable:  # threads that fail together warn once
                self.is_writable = False
                logger.warning(
                    "The image cache in %s cannot grow further: %s. The run continues without it.",
                    self.folder,
                    error,
                )

    def _remove_abandoned(self):
        """Removes what processes that were killed had not finished."""
        for path in self.folder.glob(f"*/{UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    path.unlink()


def file_identity(path):
    """Returns the size and the time of change of a file in ns; `None` if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _load(entry, identity, size):
    """Returns the image of an entry; `None` if there is none, or not of this file, or damaged."""
    expected = HEADER.size + 3 * size[0] * size[1]
    try:
        with open_regular(entry, most=expected) as file:
            stored = np.fromfile(file, "uint8")
    except OSError:
        return None
    if len(stored) != expected:
        return None
    magic, *found, height, width, checksum = HEADER.unpack(stored[: HEADER.size])
    pixels = stored[HEADER.size :]
    if (magic, *found, height, width) != (MAGIC, *identity, *size) or checksum != _sum(pixels):
        return None
    return pixels.reshape(height, width, 3)


def _write(entry, identity, content):
    """Writes an entry beside its place and renames it; its checksum tells a power failure."""
    content = np.ascontiguousarray(content)
    header = HEADER.pack(MAGIC, *identity, *content.shape[:2], _sum(content.reshape(-1)))
    entry.parent.mkdir(parents=True, exist_ok=True)
    # Not by `tempfile`, whose files nobody else may read: people may share the folder.
    unfinished = entry.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        with open(unfinished, "xb") as file:
            file.write(header)
            file.write(content)
        os.replace(unfinished, entry)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def _check_room(folder, size):
    """Raises an OSError if writing so many bytes would leave less than `SPARE`."""
    free = shutil.disk_usage(folder).free
    if free - size < SPARE:
        raise OSError(f"{free / 1e9:.2f} GB are free, and {SPARE / 1e9:.2f} GB are reserved")


def _sum(pixels):
    """Sum of the 64-bit words of pixels, and of the bytes that fill no word: fast enough to do."""
    end = len(pixels) // 8 * 8
    words, rest = pixels[:end].view("<u8"), pixels[end:]
    return (int(words.sum(dtype="u8")) + int(rest.sum(dtype="u8"))) % 2**64
