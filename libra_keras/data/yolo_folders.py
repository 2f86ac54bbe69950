"""Where the images and label files of a data set in YOLO's form lie."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from libra_keras.data.findings import Finding
from libra_keras.data.layouts import IMAGE_SUFFIXES, image_paths

IMAGES, LABELS = "images", "labels"  # names of folders
NOT_LABELS = ("classes.txt",)  # which LabelImg writes among the label files
NOTHING = ("", "~", "null", "Null", "NULL")  # a key of a YAML that is left open
DATA = "data/"  # what names in CVAT's files begin with, a folder that is not there


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image, and the path by which its label file is found: its own, or where it should lie."""

    image: Path
    place: Path
    needs_labels: bool = False  # whether it is an image of the split only if it has a label file

    @property
    def labels(self) -> tuple[Path, ...]:
        """Paths of the label file, in the order in which they are tried."""
        paths = dict.fromkeys((self.place, self.image))
        found = [file for path in paths for file in label_files(path)]
        return tuple(dict.fromkeys(found))


def label_files(image: Path) -> tuple[Path, ...]:
    """`.../labels/a/b.txt` of `.../images/a/b.jpg`, if there is such a folder, and `b.txt` beside
    the image."""
    beside = image.with_suffix(".txt")
    folder = label_folder(image.parent)
    return (beside,) if folder == image.parent else (folder / beside.name, beside)


def label_folder(folder: Path) -> Path:
    """Returns the folder of the labels of a folder of images, which may be the same."""
    parts = folder.parts
    if IMAGES not in parts:
        return folder
    last = len(parts) - 1 - parts[::-1].index(IMAGES)
    return Path(*parts[:last], LABELS, *parts[last + 1 :])


def read_yaml(file: Path) -> dict:
    """Reads a YAML whose values are all strings, lists or dicts; none of them if it is no dict."""
    import yaml

    try:
        # As strings, so that classes may be called "no", "on" or "1.0".
        content = yaml.load(file.read_bytes(), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
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
    is_there = (p for p in paths if os.path.exists(p) or os.path.isdir(label_folder(p)))
    return next(is_there, None)


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
    paths = [start / each for each in (value, inside) for start in starts(file, content)]
    return list(dict.fromkeys(Path(os.path.normpath(path)) for path in paths))


def images_of_folder(source: Path, folders: Iterable[Path]) -> list[Pair]:
    """Returns the images below a folder, or below others that a user has named in its place."""
    own = list(folders)
    return [
        Pair(image, source / image.relative_to(folder), needs_labels=bool(own))
        for folder in own or [source]
        for image in files_below(folder, IMAGE_SUFFIXES)
    ]


def images_of_listing(
    listing: Path, above: Iterable[Path], folders: Iterable[Path]
) -> tuple[list[Pair], list[Finding]]:
    """Returns the images that a text file lists, and findings on lines."""
    above, findings = [listing.parent, *above], []
    places: dict[Path, int] = {}
    for number, line in enumerate(read_lines(listing), 1):
        if not line:
            continue
        place = _listed(line.replace("\\", "/"), above)
        if place is None:
            message = f"line {number}: {line!r:.200} leads out of {above[-1]}"
            findings.append(Finding("missing file", str(listing), None, message))
        elif place in places:
            message = f"line {number}: it is listed in line {places[place]} too"
            findings.append(Finding("duplicate image", str(place), None, message))
        else:
            places[place] = number
    images = {place: place for place in places}
    own = list(folders)
    if own:
        names = {place: os.path.relpath(place, above[-1]) for place in places}
        found = image_paths(names.values(), own)
        images = {place: found[name] or place for place, name in names.items()}
    return [Pair(images[place], place) for place in places], findings


def _listed(line, above):
    """The path that a line means, below one of the folders; `None` if it leads out of them."""
    spelled = dict.fromkeys((line, line.removeprefix("./").removeprefix(DATA)))
    paths = [os.path.normpath(start / each) for each in spelled for start in above]
    inside = [path for path in paths if any(_is_below(path, start) for start in above)]
    if not inside:
        return None
    return Path(next((path for path in inside if os.path.isfile(path)), inside[-1]))


def _is_below(path, folder):
    return path.startswith(os.path.join(os.path.normpath(folder), ""))


def files_below(folder: Path, suffixes: Iterable[str]) -> Iterator[Path]:
    """Yields the files of a folder and of those in it, but none that is hidden."""
    suffixes = tuple(suffixes)
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield Path(path, name)


def labels_without_image(pairs: Iterable[Pair], sources: Iterable[Path], top: Path) -> list[Path]:
    """Returns the label files of folders, or of the folders of lists, that are of no image."""
    pairs, sources = list(pairs), list(sources)
    listed = {pair.place.parent for pair in pairs if any(source.is_file() for source in sources)}
    folders = {*listed, *(source for source in sources if not source.is_file())}
    images = {pair.place for pair in pairs}
    images.update(file for folder in listed for file in files_below(folder, IMAGE_SUFFIXES))
    taken = {file for image in images for file in label_files(image)}
    found = {file for each in folders for file in files_below(label_folder(each), (".txt",))}
    # Lists of images and names of classes lie at the top.
    return sorted(f for f in found - taken if f.parent != top and f.name not in NOT_LABELS)


def read_lines(file: Path) -> list[str]:
    """Reads the lines of a text file, without space around them."""
    try:
        return [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}") from error
