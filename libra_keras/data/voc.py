"""Reader of folders in Pascal VOC format."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from libra_keras.data.assembly import NO_BOXES, assembled
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Finding, Written, in_unit_range
from libra_keras.data.layouts import (
    IMAGE_FOLDERS,
    XML,
    XML_FOLDERS,
    files_below,
    find_voc,
    leads_out,
    outside,
    visible,
)
from libra_keras.data.text_lines import no_text, read_lines
from libra_keras.data.voc_xml import CHOICES, EDGES, PIXELS, Origin, decide, read_xml, sample
from libra_keras.files.image_files import IMAGE_SUFFIXES
from libra_keras.files.reading import is_regular, reason

# Tools that leave no mark in their files.
ORIGINS = {"FiftyOne VOC": Origin(EDGES, "FiftyOne")}


def voc(
    folder: str | Path,
    split: str,
    class_names: Sequence[str] | None = None,
    first_pixel: int | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
    corners: str = "auto",
    image_folder: str | Path | None = None,
    allow_outside: bool = False,
) -> DetectionData:
    """Reads a data set in Pascal VOC format.

    Known layouts are that of VOC itself (`Annotations/*.xml`, `JPEGImages/*`, and
    `ImageSets/Main/<split>.txt` with a name per line), the same without `ImageSets` (Label Studio
    has `images/` for `JPEGImages/`, and no XML for an image without objects), and images and XML
    files side by side, in `<folder>/<split>/` or in the folder itself (LabelImg). In `Annotations`,
    names may contain folders, as CVAT writes them: `a/0` is `Annotations/a/0.xml` and
    `JPEGImages/a/0.jpg`.

    VOC's own corners name the first and the last pixel of a box, counted from 1, so that a box is
    `[xmin - 1, ymin - 1, xmax, ymax]`. Most tools that write this format (LabelImg, CVAT, Roboflow,
    labelme, ...) give the edges of the box: `[xmin, ymin, xmax, ymax]`. By default, the marks that
    they leave in their files decide for the entire folder: if more than half of the files (of 200,
    if there are more) are a tool's, corners are edges, else pixels. The summary of the data states
    what was decided, and by which tool's marks.

    Boxes are clipped to the image, and left out if a side is at most 1 px. Difficult objects are
    `ignore`d: not trained on, and in the evaluation neither right nor wrong. The image's id is its
    position in the split, from 1.

    An image is the file with the stem of its XML file, or else the one that the XML names; of
    several, the one that it names.

    Args:
        folder: path of the data set.
        split: str, such as `"trainval"`; `"all"` for a folder whose tool names none.
        class_names: names in the order of the labels. Defaults to all names in the annotations of
            the *entire folder*, sorted, so that the splits of a data set agree.
        first_pixel: int, the coordinate of the first pixel of a row: 1 in VOC (default), 0 if a
            tool counted from 0. Setting it means that corners are pixels.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers. Those of images
            without a size in the XML must in any case.
        corners: `"pixels"`, `"edges"` or `"auto"` (default).
        image_folder: path of the images, if they are elsewhere.
        allow_outside: bool, whether to read images whose name in the XML leads out of the folder.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if the folder has neither layout.
        ValueError: if annotations or files are bad and `skip_bad` is false; or if `corners` is
            unknown, or edges along with a `first_pixel`.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from libra_keras.data import voc
    >>> xml = (
    ...     "<annotation><size><width>30</width><height>20</height></size><object><name>cat</name>"
    ...     "<bndbox><xmin>3</xmin><ymin>5</ymin><xmax>12</xmax><ymax>12</ymax></bndbox>"
    ...     "</object></annotation>"
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     train = pathlib.Path(folder, "train")
    ...     train.mkdir()
    ...     Image.new("RGB", (30, 20)).save(train / "a.png")
    ...     _ = (train / "a.xml").write_text(xml)
    ...     data = voc(folder, "train")
    >>> data.class_names, data.examples[0].boxes.tolist()
    (('cat',), [[2.0, 4.0, 12.0, 12.0]])
    """
    _check_corners(corners, first_pixel)
    folder = Path(folder).expanduser()
    place, title = _place(folder, split)
    if image_folder is not None:
        image_folder = Path(image_folder).expanduser()
    entries, findings = _entries(folder, split, place.annotations)
    finder = ImageFinder(folder, image_folder, allow_outside)
    files = _Files(folder, [file for _, file in entries], finder)
    class_names = files.class_names() if class_names is None else list(class_names)
    note = None
    if corners == "auto":
        corners, note = (PIXELS, None) if first_pixel is not None else files.corners(title)
    first = 1 if first_pixel is None else first_pixel
    shift = [0] * 4 if corners == EDGES else [first, first, first - 1, first - 1]
    images, objects, no_boxes, bare = [], [], [], []
    for image_id, file in entries:
        try:
            found, image = files.read(file), files.image(file, image_id)
        except ValueError as error:
            if image := files.bare_image(file, image_id):
                bare.append(image)
            else:
                findings.append(Finding("unreadable file", str(file), None, str(error)))
            continue
        if check_files and not allow_outside and _is_outside(found.image, image.file):
            findings.append(outside(file, "its filename", found.image))
            continue
        known, bad = _known(found.objects, image, class_names)
        images.append(image)
        objects.append(known)
        no_boxes += bad
    # Those of a layout without lists of images; else there are none.
    folders = [image_folder] if image_folder and place.images else place.images
    without = files.images_without(folders, {image.file for image in images}) + bare
    images += without
    objects += [[] for _ in without]
    read = assembled(
        f"{folder.name}/{split}",
        class_names,
        [_with_boxes(*pair, class_names, shift) for pair in zip(images, objects, strict=True)],
        _written(objects),
        findings + no_boxes,
        skip_bad,
        check_files,
        {"images_without_XML": len(without)},
    )
    return dataclasses.replace(read, notes=(note,) if note else ())


def _is_outside(written, path):
    """Whether there is no image because the name that is written leads out of the folder."""
    return leads_out(written) and not os.path.lexists(path)


def _check_corners(corners, first_pixel):
    if corners not in CHOICES:
        raise ValueError(f"`corners` must be one of {', '.join(CHOICES)}. Received: {corners!r}")
    if corners == EDGES and first_pixel is not None:
        raise ValueError(
            "`first_pixel` is for corners that are pixels; edges are counted from the corner of "
            f"the image. Received: corners={corners!r}, first_pixel={first_pixel}"
        )


class _Files:
    """The annotation files of a data set, those of all its splits; each is read once."""

    def __init__(self, folder, of_split, finder):
        self.folder = folder
        self.of_split = of_split
        self._finder = finder
        self._read = {}

    @functools.cached_property
    def all(self):
        """Paths of all files, sorted."""
        nested = (file for name in XML_FOLDERS for file in files_below(self.folder / name, XML))
        found = {*visible(self.folder, "*/*.xml"), *map(Path, nested)}
        return sorted(found | set(filter(is_regular, self.of_split)))

    def read(self, file):
        """Returns the `VOCFile` of a path, or raises a `ValueError` that says why there is none."""
        if file not in self._read:
            try:
                self._read[file] = read_xml(file)
            except Exception as error:  # a damaged file makes parsers raise nearly anything
                self._read[file] = reason(error)
        found = self._read[file]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def image(self, file, image_id):
        """Returns the `Example` of a file, still without boxes."""
        found = self.read(file)
        path = self._finder.find(file, found.image)
        return Example(image_id, path, *found.size, *NO_BOXES)

    def images_without(self, folders, taken):
        """Returns `Example`s of the images in folders that no file is of: none has their stem, and
        they are not among the images `taken` by the name in a file."""
        stems = {file.stem for file in self.of_split}
        images = (Path(i) for folder in folders for i in files_below(folder, IMAGE_SUFFIXES))
        within = sorted({image.parent for image in images})
        listed = [item for folder in within for item in self._finder.images(folder).items()]
        paths = [paths[0] for stem, paths in sorted(listed) if stem not in stems]
        paths = [path for path in paths if path not in taken]
        return [Example(i, p, 0, 0, *NO_BOXES) for i, p in enumerate(paths, len(self.of_split) + 1)]

    def bare_image(self, file, image_id):
        """Returns the `Example` of an image whose file is not there; else `None`."""
        path = None if os.path.lexists(file) else self._finder.find(file, "")
        return Example(image_id, path, 0, 0, *NO_BOXES) if path and is_regular(path) else None

    def class_names(self):
        """Returns the names of all classes, sorted."""
        names = {entry.name for found in self._sound(self.all) for entry in found.objects}
        return sorted(names - {""})

    def corners(self, title):
        """Decides what corners are, whatever split is read, by the files or the layout's title."""
        origins = [found.origin for found in self._sound(sample(self.all))]
        return decide(origins, ORIGINS.get(title))

    def _sound(self, files):
        """Yields what can be read; the others are reported where their split is read."""
        for file in files:
            with contextlib.suppress(ValueError):
                yield self.read(file)


def _place(folder, split):
    """Returns the `Place` of a split, and the title of its layout."""
    layouts = find_voc(folder)
    layout = next((each for each in layouts if split in each.splits), None)
    if layout is None:
        listing = folder / "ImageSets" / "Main" / f"{split}.txt"
        there = "; ".join(map(str, layouts)) or "no data in Pascal VOC format"
        raise FileNotFoundError(
            f"Expected a Pascal VOC data set: {listing}, or XML files in {folder / split}. "
            f"Found: {there}"
        )
    return layout.splits[split], layout.title


def _entries(folder, split, listing):
    """Returns ids and paths of the XML files of a split, in its order, and findings on others."""
    if listing.is_dir():
        has_folders = listing.name in XML_FOLDERS
        files = map(Path, files_below(listing, XML)) if has_folders else visible(listing, "*.xml")
        return list(enumerate(sorted(files), 1)), []
    entries, findings = {}, []
    lines = [(n, line.strip()) for n, line in enumerate(read_lines(listing), 1) if line.strip()]
    for position, (number, line) in enumerate(lines, 1):
        if problem := no_text(line):
            message = f"line {number}: {problem}"
            findings.append(Finding("unreadable file", str(listing), None, message))
            continue
        file = _listed_file(folder / XML_FOLDERS[0], line)
        if not file.is_relative_to(folder) or ".." in file.parts[len(folder.parts) :]:
            message = f"line {number}: {line!r:.200} is outside of {folder}"
            findings.append(Finding("file outside", str(listing), None, message))
        elif file in entries:
            message = f"the split {split!r} lists it again, as entry {position}"
            findings.append(Finding("duplicate image", str(file), None, message))
        else:
            entries[file] = position
    return [(position, file) for file, position in entries.items()], findings


def _listed_file(folder, line):
    """A line is a name, which may have blanks; VOC's lists per class add a number to it."""
    whole, first = (folder / f"{name}.xml" for name in (line, line.split()[0]))
    return first if os.path.exists(first) and not os.path.exists(whole) else whole


def _known(objects, image, class_names):
    """Returns (position, object, corners) of the boxes of a class, and findings on the others."""
    known, findings, names = [], [], frozenset(class_names)
    for position, entry in enumerate(objects):
        if entry.name not in names:
            message = f"{entry.name!r} is not one of {class_names}"
            findings.append(Finding("class", str(image.file), f"object {position}", message))
            continue
        try:
            known.append((position, entry, entry.corners))
        except ValueError as error:
            findings.append(Finding("not a number", str(image.file), position, str(error)))
    return known, findings


def _with_boxes(image, known, class_names, shift):
    """Gives an example its boxes; `shift` is taken from their corners."""
    corners = np.array([corners for *_, corners in known], "float64").reshape(-1, 4)
    numbers = {name: number for number, name in enumerate(class_names)}
    return dataclasses.replace(
        image,
        boxes=(corners - shift).astype("float32"),
        labels=np.array([numbers[entry.name] for _, entry, _ in known], "int32"),
        ignore=np.array([entry.is_difficult for _, entry, _ in known], bool),
    )


def _written(objects):
    """What the files say of the boxes, from what `_known` returns of each image."""
    numbers = [number for known in objects for *_, corners in known for number in corners]
    return Written(
        lambda image, box: objects[image][box][0],
        lambda image, box: f"({objects[image][box][1]})",
        "difficult",
        in_unit_range(numbers),
    )


# The image has the stem of its XML file, beside it or, for `Annotations/a/0.xml`, in
# `JPEGImages/a/`. If there is none, it is the one that the XML names, from `JPEGImages` on or
# beside where it should be. Annotation tools write the name once; the stem survives renaming.
# Where several images have the stem, such as a mask beside the photograph, the name decides.
class ImageFinder:
    """Finds the images of annotation files: below the folder, or outside if that is allowed."""

    def __init__(self, folder, image_folder=None, allow_outside=False):
        self.folder = folder
        self._images_elsewhere = image_folder
        self._allow_outside = allow_outside
        self._listed = {}  # the images of each folder by stem

    def find(self, file, written):
        """Returns the path of an XML file's image, by the name in it too; it may not exist."""
        top, place = self._places(file)
        inside, name = _relative(written)
        candidates = self.images(place).get(file.stem, [])
        if candidates:
            return _named(candidates, name) or candidates[0]
        for folder in dict.fromkeys((top / inside, place / inside, place)):
            listed = self.images(folder)
            stems = dict.fromkeys((name, PurePosixPath(name).stem))
            candidates = [path for stem in stems for path in listed.get(stem, [])]
            if candidates:
                return _named(candidates, name) or candidates[0]
            if name and is_regular(folder / name):
                return folder / name
        if self._allow_outside and leads_out(written):
            return top / written
        return place / f"{file.stem}.jpg"

    def _places(self, file):
        """The folder that names of images start from, and that of the file's own image."""
        parts, inside = file.parent.relative_to(self.folder).parts, ()
        top = file.parent
        depth = next((i for i, part in enumerate(parts) if part in XML_FOLDERS), None)
        if depth is not None:
            inside = parts[depth + 1 :]
            own = [self.folder.joinpath(*parts[:depth], name) for name in IMAGE_FOLDERS]
            top = next((path for path in own if path.is_dir()), own[0])
        top = self._images_elsewhere or top
        return top, top.joinpath(*inside)

    def images(self, folder):
        """The images of a folder by stem; other files, such as text, may lie beside them."""
        if folder not in self._listed:
            listing = sorted(visible(folder, "*")) if folder.is_dir() else []
            images = [path for path in listing if path.suffix.lower() in IMAGE_SUFFIXES]
            by_stem = self._listed[folder] = {}
            for path in sorted(images, key=lambda p: IMAGE_SUFFIXES.index(p.suffix.lower())):
                by_stem.setdefault(path.stem, []).append(path)
        return self._listed[folder]


def _relative(written):
    """A written name as the folder that it lies in, and the name; no folder if that leads out."""
    path = PurePosixPath(written.replace("\\", "/"))
    return ("" if leads_out(written) else path.parent), path.name


def _named(paths, name):
    """The path of a name, or of one that differs from it in upper and lower case; or `None`."""
    same = [path for path in paths if path.name == name]
    alike = [path for path in paths if path.name.lower() == name.lower()]
    return next(iter(same + alike), None)
