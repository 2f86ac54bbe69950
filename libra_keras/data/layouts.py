"""Where the annotations and images of a folder lie: what tools write, told by names of files."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from libra_keras.data.findings import Finding
from libra_keras.files.reading import is_regular, open_regular

ALL = "all"  # the split of a folder whose tool names none
ORDER = ("train", "val", "test")  # how names of splits begin, in the order in which they are told
# Where XML of VOC's form lies if it is not beside the images, and where these lie then. Titles of
# pairs without `ImageSets`, by the tools that write them.
XML_FOLDERS = ("Annotations", "annotations", "labels")
IMAGE_FOLDERS = ("JPEGImages", "images", "data")
PAIRS = {
    ("Annotations", "JPEGImages"): "Pascal VOC, no ImageSets",
    ("Annotations", "images"): "Label Studio VOC",
    ("annotations", "images"): "Pascal VOC, annotations and images",
    ("labels", "data"): "FiftyOne VOC",
    ("labels", "images"): "supervision VOC",
}
ROOT = re.compile(rb"<annotation[\s>]|\0")  # of VOC's form; or UTF-16, in which none is looked for
XML = (".xml",)
HEAD = 4096  # bytes of a file in which its root stands
SAMPLED = 10  # names of images by which their folder is found


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one split of a data set lies.

    Args:
        annotations: path of its annotations: a file, or a folder of files.
        images: folders that names of images may start from, in the order in which they are tried.
        part: str, what the split is called in annotations that have several.
        allow_outside: bool, whether names of images may lead out of these folders.
    """

    annotations: Path
    images: tuple[Path, ...] = ()
    part: str = ALL
    allow_outside: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a folder was found to be.

    Args:
        title: the tool and its form, `"Roboflow COCO"`.
        form: the reader: `"coco"`, `"voc"`, `"yolo"`, `"cvat"` or `"csv"`.
        splits: where each split lies, by its name.
    """

    title: str
    form: str
    splits: Mapping[str, Place]

    def __post_init__(self):
        splits = {name: self.splits[name] for name in sorted(self.splits, key=_order)}
        object.__setattr__(self, "splits", splits)

    def __str__(self) -> str:
        return f"{self.title}: {', '.join(self.splits)}"


def chosen(
    layout: Layout, where: Path, split: str | None, allow_outside: bool
) -> tuple[Place, str]:
    """Returns where a split lies, `None` for the only one, and what its data are called."""
    if split is None and len(layout.splits) == 1:
        (split,) = layout.splits
    if split is None or split not in layout.splits:
        raise ValueError(f"{where} has no split {split!r}. It is {layout}")
    folder = where.parent if where.is_file() else where
    place = dataclasses.replace(layout.splits[split], allow_outside=allow_outside)
    return place, f"{folder.name}/{split}"


def find_coco(folder: Path) -> list[Layout]:
    """Returns the layouts in COCO format that a folder has."""
    start = "instances_"
    own = *visible(folder, f"{start}*.json"), *visible(folder, f"annotations/{start}*.json")
    names = {file.stem.removeprefix(start): file for file in own}
    if len(names) < len(own):
        files = ", ".join(map(str, sorted(own)))
        raise ValueError(f"two files are of one split: {files}. Choose one with --annotations FILE")
    every = *visible(folder, "labels.json"), *visible(folder, "*/labels.json")
    labels = [file for file in every if (file.parent / "data").is_dir()]
    result = folder / "result.json"
    studio = {ALL: Place(result, (folder, folder / "images"))}
    titles = {
        "COCO": {name: Place(file, image_folders(folder, name)) for name, file in names.items()},
        "Roboflow COCO": {
            file.parent.name: Place(file, (file.parent,))
            for file in visible(folder, "*/_annotations.coco.json")
        },
        "FiftyOne COCO": {
            ALL if file.parent == folder else file.parent.name: Place(file, (file.parent / "data",))
            for file in labels
        },
        "Label Studio COCO": studio if result.is_file() else {},
    }
    return [Layout(title, "coco", splits) for title, splits in titles.items() if splits]


def image_folders(folder: Path, split: str) -> tuple[Path, ...]:
    """Returns where names of the images of a split may start from: CVAT has them in `images/`."""
    images = folder / "images"
    return folder / split, images / split, images, folder


def find_voc(folder: Path) -> list[Layout]:
    """Returns the layout in Pascal VOC format that a folder has, in a list."""
    listings = {file.stem: file for file in visible(folder, "ImageSets/Main/*.txt")}
    # VOC's own lists per class (`dog_train.txt`) are not splits: they come with `train.txt`.
    names = [name for name in listings if not listings.keys() & set(name.split("_")[1:])]
    if names:
        title = "CVAT VOC" if (folder / "labelmap.txt").is_file() else "Pascal VOC"
        return [Layout(title, "voc", {name: Place(listings[name]) for name in names})]
    for (xml, images), title in PAIRS.items():
        if (folder / images).is_dir() and _is_voc(map(Path, files_below(folder / xml, XML))):
            # Tools write no XML for an image without objects.
            return [Layout(title, "voc", {ALL: Place(folder / xml, (folder / images,))})]
    if _is_voc(visible(folder, "*.xml")):
        return [Layout("LabelImg VOC", "voc", {ALL: Place(folder)})]
    within = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    places = {entry.name: Place(entry) for entry in within if _is_voc(visible(entry, "*.xml"))}
    return [Layout("VOC, a folder per split", "voc", places)] if places else []


def visible(folder: Path, pattern: str) -> Iterator[Path]:
    """Yields what a pattern finds in a folder, but nothing hidden: macOS and Jupyter leave copies
    such as `._a.xml` and `.ipynb_checkpoints/a.xml`."""
    for path in folder.glob(pattern):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def files_below(folder: str | Path, suffixes: Iterable[str]) -> Iterator[str]:
    """Yields the files of a folder and of those in it, links included, but none that is hidden."""
    suffixes, seen = tuple(suffixes), set()
    for path, folders, files in os.walk(folder, followlinks=True):
        entry = os.stat(path)
        if (entry.st_dev, entry.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((entry.st_dev, entry.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(path, name)


def _is_voc(files):
    """Whether the first XML file is one of VOC; others have `<annotations>` of all images."""
    first = next(filter(is_regular, files), None)
    if first is None:
        return False
    with open_regular(first) as file:
        return ROOT.search(file.read(HEAD)) is not None


def _order(name):
    lower = name.lower()
    return next((i for i, start in enumerate(ORDER) if lower.startswith(start)), len(ORDER)), lower


def leads_out(name: str) -> bool:
    """Whether the written name of an image is absolute or goes up: files of others must not say
    what is read outside of their folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or bool(PureWindowsPath(name).drive) or ".." in path.parts


def outside(file: str | Path, entry: str, name: str) -> Finding:
    """The `Finding` that a name in a file of annotations leads out of the folder of images."""
    message = (
        f"{entry}: {name!r:.200} leads out of the folder of images, and is not read. Label tools "
        "export such names; --allow-outside (in Python `allow_outside`) reads them"
    )
    return Finding("file outside", str(file), None, message)


# How tools write names of images: below one of the folders, the same from Windows, or with folders
# of another machine, of which the last part alone is of use here.
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: name.replace("\\", "/"),
    lambda name: PurePosixPath(name.replace("\\", "/")).name,
)


def image_paths(
    names: Iterable[str], folders: Iterable[Path], allow_outside: bool = False
) -> dict[str, Path | None]:
    """Returns the paths of images by their written names; `None` for one that leads out, unless
    that is allowed.

    One folder and one spelling hold for all: those by which the most of some names are found.
    """
    names = list(names)
    there = [folder for folder in folders if os.path.isdir(folder)] or list(folders)
    ways = [(folder, spelled) for folder in there for spelled in SPELLINGS]
    some = names[:: max(1, len(names) // SAMPLED)]
    best, most = ways[0], 0
    for way in ways:
        found = sum(
            path is not None and os.path.isfile(path)
            for path in (_path(n, *way, allow_outside) for n in some)
        )
        if found > most:
            best, most = way, found
        if most == len(some):
            break
    return {name: _path(name, *best, allow_outside) for name in names}


def _path(name, folder, spelled, allow_outside):
    name = spelled(name)
    return None if leads_out(name) and not allow_outside else folder / name
