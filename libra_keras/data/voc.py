"""Reader of folders in the form of Pascal VOC."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from libra_keras.data.checks import Finding
from libra_keras.data.cleaning import clean
from libra_keras.data.examples import DetectionData, Example, coco_annotations

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc(folder, split, class_names=None, first_pixel=1, skip_bad=False, check_files=True):
    """Reads a data set in the form of Pascal VOC.

    Two layouts are known: that of VOC itself (`Annotations/*.xml`, `JPEGImages/*`, and
    `ImageSets/Main/<split>.txt` with a name per line), and one folder per split with images and
    XML files side by side (`<folder>/<split>/*.xml`).

    VOC's corners name the first and the last pixel of a box, counted from 1. So a box becomes
    `[xmin - 1, ymin - 1, xmax, ymax]`; it is clipped to the image, and left out if a side is at
    most 1 px. Difficult objects are `ignore`d: not trained on, and in the evaluation neither
    right nor wrong. The image's id is its position in the split, from 1.

    Args:
        folder: path of the data set.
        split: str, such as `"trainval"`.
        class_names: names in the order of the labels. Defaults to all names in the annotations of
            the *whole folder*, sorted, so that the splits of a data set agree.
        first_pixel: int, the coordinate of the first pixel of a row: 1 in VOC, 0 where a tool
            counted from 0. Defaults to 1.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if the folder has neither layout.
        ValueError: if annotations or files are bad and `skip_bad` is false.

    Example:

    ```python
    train = libra_keras.data.voc("VOCdevkit/VOC2007", "trainval")
    ```
    """
    folder = Path(folder)
    files = _annotation_files(folder, split)
    if class_names is None:
        class_names = _class_names(folder, files)
    examples, findings = [], []
    images_of = {}
    for position, file in enumerate(files, 1):
        try:
            example, found = _read(file, position, class_names, first_pixel, images_of)
        except (OSError, ET.ParseError, ValueError) as error:
            findings.append(Finding("unreadable file", str(file), None, str(error)))
            continue
        examples.append(example)
        findings += found
    name = f"{folder.name}/{split}"
    examples, counts, findings = clean(
        examples, len(class_names), findings, skip_bad, check_files, name
    )
    annotations = coco_annotations(examples, class_names)
    ids = tuple(category["id"] for category in annotations["categories"])
    return DetectionData(
        name, tuple(class_names), ids, examples, annotations, counts=counts, findings=findings
    )


def _annotation_files(folder, split):
    """Returns the XML files of a split, in its order."""
    listing = folder / "ImageSets" / "Main" / f"{split}.txt"
    if listing.is_file():
        lines = [line.strip() for line in listing.read_text("utf-8").splitlines()]
        return [_listed_file(folder / "Annotations", line) for line in lines if line]
    files = sorted((folder / split).glob("*.xml"))
    if not files:
        raise FileNotFoundError(
            f"Expected a Pascal VOC data set: {listing}, or XML files in {folder / split}"
        )
    return files


def _listed_file(folder, line):
    """A line is a name, which may have blanks; VOC's lists per class add a number to it."""
    whole = folder / f"{line}.xml"
    return whole if whole.exists() else folder / f"{line.split()[0]}.xml"


def _class_names(folder, files):
    """Returns all names of the folder's annotations, sorted."""
    everything = {*files, *folder.glob("*/*.xml")}
    return sorted({name for file in everything for name in _names(file)})


def _names(file):
    try:
        return {(entry.findtext("name") or "").strip() for entry in _objects(ET.parse(file))} - {""}
    except (OSError, ET.ParseError):  # reported where the split is read
        return set()


def _objects(tree):
    return tree.iterfind("object")  # not iter(): parts of a person are nested in its object


def _read(file, image_id, class_names, first_pixel, images_of):
    """Reads one XML file: an `Example` with raw boxes, and findings on boxes left out."""
    tree = ET.parse(file)
    image = _image_file(file, tree, images_of)
    boxes, labels, ignore, findings = [], [], [], []
    for position, entry in enumerate(_objects(tree)):
        name = (entry.findtext("name") or "").strip()
        if name not in class_names:
            message = f"{name!r} is not one of {list(class_names)}"
            findings.append(Finding("class", str(image), f"object {position}", message))
            continue
        boxes.append(_box(entry.find("bndbox"), first_pixel))
        labels.append(list(class_names).index(name))
        ignore.append((entry.findtext("difficult") or "0").strip() == "1")
    boxes = np.array(boxes, "float32").reshape(-1, 4)
    height, width = (int(float(tree.findtext(f"size/{s}") or 0)) for s in ("height", "width"))
    labels, ignore = np.array(labels, "int32"), np.array(ignore, bool)
    return Example(image_id, image, height, width, boxes, labels, ignore), findings


def _box(corners, first_pixel):
    """Returns half-open corners counted from 0; what is no number becomes NaN, a finding."""
    values = []
    for name in CORNERS:
        try:
            values.append(float(corners.findtext(name)))
        except (AttributeError, TypeError, ValueError):
            values.append(np.nan)
    x1, y1, x2, y2 = values
    return [x1 - first_pixel, y1 - first_pixel, x2 - first_pixel + 1, y2 - first_pixel + 1]


def _image_file(file, tree, images_of):
    """Finds the image of an XML file: the same stem, or else the file name written inside.

    Annotation tools write the file name once; the stem survives renaming.
    """
    folder = file.parent
    if folder.name == "Annotations":
        folder = folder.parent / "JPEGImages"
    if folder not in images_of:
        listing = sorted(folder.iterdir()) if folder.is_dir() else []
        images_of[folder] = {path.stem: path for path in listing if path.suffix != ".xml"}
    written = folder / Path((tree.findtext("filename") or "").strip()).name
    found = images_of[folder].get(file.stem)
    return found or (written if written.is_file() else folder / f"{file.stem}.jpg")
