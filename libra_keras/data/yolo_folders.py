"""Where the images and label files of a data set in YOLO format lie."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from libra_keras.data.findings import Finding
from libra_keras.data.layouts import files_below, image_paths, outside
from libra_keras.data.text_lines import no_text, read_lines
from libra_keras.files.image_files import IMAGE_SUFFIXES
from libra_keras.files.reading import explained, read_bytes

IMAGES, LABELS = "images", "labels"  # names of folders
NOT_LABELS = ("classes.txt",)  # which LabelImg writes among the label files
NOTHING = ("", "~", "null", "Null", "NULL")  # a key of a YAML that is left open
YAML = 2**20  # bytes, of which more would take minutes; a thousand names of classes have 20,000
DATA = "data/"  # what names in CVAT's files begin with, a folder that is not there


# Paths of images are strings here: there may be a hundred thousand.
@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """An image, and the path by which its label file is found: its own, or where it should lie."""

    image: str
    place: str
    needs_labels: bool = False  # whether it is an image of the split only if it has a label file

    @property
    def labels(self) -> tuple[str, ...]:
        """Paths of the label file, in the order in which they are tried."""
        if self.image == self.place:
            return label_files(self.image)
        return *label_files(self.place), *label_files(self.image)


def label_files(image: str) -> tuple[str, ...]:
    """`.../labels/a/b.txt` of `.../images/a/b.jpg`, if there is such a folder, and `b.txt` beside
    the image."""
    folder, name = os.path.split(image)
    name = f"{os.path.splitext(name)[0]}.txt"
    other, beside = os.path.join(label_folder(folder), name), os.path.join(folder, name)
    return (beside,) if other == beside else (other, beside)


@functools.cache
def label_folder(folder: str) -> str:
    """Returns the folder of the labels of a folder of images, which may be the same."""
    parts = Path(folder).parts
    if IMAGES not in parts:
        return folder
    last = len(parts) - 1 - parts[::-1].index(IMAGES)
    return os.path.join(*parts[:last], LABELS, *parts[last + 1 :])


def read_yaml(file: Path) -> dict:
    """Reads a YAML whose values are all strings, lists or dicts; none of them if it is no dict."""
    import yaml

    with explained(file):
        # As strings, so that classes may be called "no", "on" or "1.0".
        content = yaml.load(read_bytes(file, YAML), yaml.BaseLoader)
    return content if isinstance(content, dict) else {}


def values(content: Mapping, key: str) -> list[str]:
    """Returns the folders or lists of images of a split in a YAML; none if the key is no split."""
    value = content.get(key)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return []
    return [each.strip() for each in found if each.strip() not in NOTHING]


def first_source(paths: Iterable[Path]) -> Path | None:
    """Returns the first folder or list of images that is there, be it by its labels alone."""
    # Labels may have come without their images.
    is_there = (p for p in paths if os.path.exists(p) or os.path.isdir(label_folder(str(p))))
    return next(is_there, None)


def is_listing(source: Path) -> bool:
    """Whether a source is a list of images; folders may be there by their labels alone."""
    return os.path.exists(source) and not os.path.isdir(source)


def starts(file: Path, content: Mapping) -> list[Path]:
    """Returns the folders that paths in a YAML may start from."""
    # `path` is often that of another machine, or starts from another folder.
    folders = [file.parent / os.path.expanduser(path) for path in values(content, "path")[:1]]
    return list(dict.fromkeys(Path(os.path.normpath(each)) for each in (*folders, file.parent)))


def possible_sources(file: Path, content: Mapping, value: str) -> list[Path]:
    """Returns the folders or lists of images that a value in a YAML may mean."""
    value = value.replace("\\", "/")
    inside = value
    while inside.startswith("../"):  # Roboflow goes up once too often
        inside = inside.removeprefix("../")
    # It writes no `path`; above its folder may lie another export with the same names.
    both = (value, inside) if values(content, "path") else (inside, value)
    paths = [start / each for each in both for start in starts(file, content)]
    return list(dict.fromkeys(Path(os.path.normpath(path)) for path in paths))


def images_of_folder(source: Path, folders: Iterable[Path]) -> list[Pair]:
    """Returns the images below a folder, or below others that a user has named in its place."""
    own = list(folders)
    return [
        Pair(
            image, os.path.join(source, os.path.relpath(image, folder)) if own else image, bool(own)
        )
        for folder in own or [source]
        for image in files_below(folder, IMAGE_SUFFIXES)
    ]


def images_of_listing(
    listing: Path, above: Iterable[Path], folders: Iterable[Path], allow_outside: bool
) -> tuple[list[Pair], list[Finding]]:
    """Returns the images that a text file lists, and findings on lines."""
    above = [listing.parent, *above]
    roots = (os.path.join(os.path.abspath(start), "") for start in above)
    inside = ("",) if allow_outside else tuple(roots)
    places: dict[str, int] = {}
    findings = []
    for number, line in enumerate(map(str.strip, read_lines(listing)), 1):
        if not line:
            continue
        if problem := no_text(line):
            message = f"line {number}: {problem}"
            findings.append(Finding("unreadable file", str(listing), None, message))
            continue
        place = _listed(line.replace("\\", "/"), above, inside)
        if place is None:
            findings.append(outside(listing, f"line {number}", line))
        elif place in places:
            message = f"line {number}: it is also listed in line {places[place]}"
            findings.append(Finding("duplicate image", place, None, message))
        else:
            places[place] = number
    images = {place: place for place in places}
    own = list(folders)
    if own:
        names = {place: os.path.relpath(place, above[-1]) for place in places}
        found = image_paths(names.values(), own, allow_outside)
        images = {place: str(found[name] or place) for place, name in names.items()}
    return [Pair(images[place], place) for place in places], findings


def _listed(line, above, inside):
    """The path that a line means, below one of the folders; `None` if it leads out of them."""
    spelled = dict.fromkeys((line, line.removeprefix("./").removeprefix(DATA)))
    paths = [os.path.normpath(os.path.join(start, each)) for each in spelled for start in above]
    paths = [path for path in paths if os.path.abspath(path).startswith(inside)]
    return next(filter(os.path.isfile, paths), paths[-1]) if paths else None


def labels_without_image(pairs: list[Pair], sources: Iterable[Path], top: Path) -> list[str]:
    """Returns the label files of folders, or of the folders of lists, that are of no image."""
    images = {pair.place for pair in pairs}
    folders: set[str] = set()
    for source in sources:
        if is_listing(source):  # other images may lie beside those that it lists
            folders |= {os.path.dirname(image) for image in images}
            images.update(image for each in folders for image in files_below(each, IMAGE_SUFFIXES))
        else:
            folders.add(str(source))
    taken = {file for image in images for file in label_files(image)}
    found = {file for each in folders for file in files_below(label_folder(each), (".txt",))}
    parts = {file: os.path.split(file) for file in found - taken}
    # Lists of images and names of classes lie at the top.
    return sorted(f for f, (at, name) in parts.items() if at != str(top) and name not in NOT_LABELS)
