"""Names that stand for image files: those of folders, patterns, and addresses."""

import collections
import glob
import os
import urllib.parse
import urllib.request
from pathlib import Path

# In order: where files of one stem differ in nothing else, an earlier one is the image.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2",
    ".jfif", ".jpe", ".avif",
)  # fmt: skip


def images_in(folder: Path) -> list[Path]:
    """Returns the images of a folder, not searched deeper, in the order of their names."""
    inside = sorted(filter(_is_image, folder.iterdir()))
    if not inside:
        raise ValueError(f"there is no image in the folder {folder}")
    return inside


def others_in(folder: Path) -> collections.Counter[str]:
    """Counts the suffixes of a folder's files, but hidden ones, that `images_in` leaves out."""
    others = (f for f in folder.iterdir() if not (_is_image(f) or f.name.startswith(".")))
    return collections.Counter(file.suffix.lower() for file in others if file.is_file())


def _is_image(file):
    """Judged by its name; macOS writes hidden files beside those of other disks."""
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def files_like(pattern: str | os.PathLike[str]) -> list[Path]:
    """Returns the files that a pattern such as `photos/**/*.jpg` names, in order."""
    found = sorted(glob.glob(os.fspath(pattern), recursive=True))
    files = [Path(name) for name in found if os.path.isfile(name)]
    if not files:
        raise ValueError(f"no file matches {os.fspath(pattern)}")
    return files


def several(source: object) -> list[Path] | None:
    """Returns the files of a folder or a pattern; `None` if `source` is something else."""
    if not isinstance(source, (str, os.PathLike)) or is_address(source):
        return None
    if os.path.isdir(source):  # `Path` raises where a text is too long for a name
        return images_in(Path(source))
    is_pattern = glob.has_magic(os.fspath(source)) and not os.path.exists(source)
    return files_like(source) if is_pattern else None


def is_address(source: object) -> bool:
    """Whether a text is an address that `downloads.read` or `local` takes."""
    return isinstance(source, str) and source.startswith(("http://", "https://", "file://"))


def local(address: str) -> str | None:
    """Returns the path of a `file://` address; `None` for others."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost"):
        raise ValueError(
            f"{address} must name a file on this machine, such as file:///folder/photo.jpg"
        )
    return urllib.request.url2pathname(parts.path)
