"""Reader of folders in the form of Pascal VOC."""

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from libra_keras.data.checks import Finding
from libra_keras.data.cleaning import clean
from libra_keras.data.examples import DetectionData, Example, coco_annotations

CORNERS = ("xmin", "ymin", "xmax", "ymax")
# In order: where files of one stem differ in nothing else, an earlier one is the image.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2",
)  # fmt: skip


def voc(folder, split, class_names=None, first_pixel=1, skip_bad=False, check_files=True):
    """Reads a data set in the form of Pascal VOC.

    Two layouts are known: that of VOC itself (`Annotations/*.xml`, `JPEGImages/*`, and
    `ImageSets/Main/<split>.txt` with a name per line), and one folder per split with images and
    XML files side by side (`<folder>/<split>/*.xml`).

    VOC's corners name the first and the last pixel of a box, counted from 1. So a box becomes
    `[xmin - 1, ymin - 1, xmax, ymax]`; it is clipped to the image, and left out if a side is at
    most 1 px. Difficult objects are `ignore`d: not trained on, and in the evaluation neither
    right nor wrong. The image's id is its position in the split, from 1.

    An image is the file with the stem of its XML file; of several, the one that the XML names.

    Args:
        folder: path of the data set.
        split: str, such as `"trainval"`.
        class_names: names in the order of the labels. Defaults to all names in the annotations of
            the *whole folder*, sorted, so that the splits of a data set agree.
        first_pixel: int, the coordinate of the first pixel of a row: 1 in VOC, 0 where a tool
            counted from 0. Defaults to 1.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers. Those of images
            without a size in the XML must in any case.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if the folder has neither layout.
        ValueError: if annotations or files are bad and `skip_bad` is false.

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
    folder = Path(folder).expanduser()
    records, findings, images_of = {}, [], {}
    files = _annotation_files(folder, split)
    for position, file in enumerate(files, 1):
        try:
            if file in records:
                message = f"the split {split!r} lists it again, as entry {position}"
                findings.append(Finding("duplicate image", str(file), None, message))
            else:
                records[file] = _read(file, position, first_pixel, images_of)
        except (OSError, ET.ParseError, ValueError, OverflowError, LookupError) as error:
            findings.append(Finding("unreadable file", str(file), None, str(error)))
    if class_names is None:
        class_names = _class_names(folder, files, records)
    examples = []
    for image, objects in records.values():
        example, found = _labelled(image, objects, list(class_names))
        examples.append(example)
        findings += found
    name = f"{folder.name}/{split}"
    examples, counts, findings = clean(
        examples, len(class_names), findings, skip_bad, check_files, name
    )
    annotations = coco_annotations(examples, class_names)
    ids = tuple(category["id"] for category in annotations["categories"])
    return DetectionData(
        name,
        tuple(class_names),
        ids,
        examples,
        annotations,
        counts=counts,
        findings=findings,
        headers_checked=check_files,
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


def _class_names(folder, files, records):
    """Returns all names of the folder's annotations, sorted; those of the split are read."""
    names = {name for _, objects in records.values() for name, _, _ in objects}
    for file in {*folder.glob("*/*.xml")} - {*files}:
        names |= _names(file)
    return sorted(names - {""})


def _names(file):
    try:
        return {_name(entry) for entry in _objects(_parsed(file))}
    except (OSError, ET.ParseError, ValueError, LookupError):  # reported where its split is read
        return set()


def _name(entry):
    return (entry.findtext("name") or "").strip()


def _parsed(file):
    """Returns the tree of an XML file; names lose the namespace that some tools give them."""
    tree = ET.parse(file)
    for entry in tree.iter():
        entry.tag = entry.tag.rpartition("}")[2]
    return tree


def _objects(tree):
    return tree.iterfind("object")  # not iter(): parts of a person are nested in its object


def _read(file, image_id, first_pixel, images_of):
    """Reads one XML file: an `Example` still without boxes, and (name, box, difficult) of each."""
    tree = _parsed(file)
    objects = []
    for entry in _objects(tree):
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append((_name(entry), _box(entry.find("bndbox"), first_pixel), difficult))
    height, width = (int(float(tree.findtext(f"size/{s}") or 0)) for s in ("height", "width"))
    image = _image_file(file, tree, images_of)
    return Example(image_id, image, height, width, *_columns([], [])), objects


def _labelled(image, objects, class_names):
    """Gives an example its raw boxes: the `Example`, and findings on objects of no class."""
    known, labels, findings = [], [], []
    for position, (name, box, difficult) in enumerate(objects):
        if name in class_names:
            known.append((box, difficult))
            labels.append(class_names.index(name))
        else:
            message = f"{name!r} is not one of {class_names}"
            findings.append(Finding("class", str(image.file), f"object {position}", message))
    boxes, labels, ignore = _columns(known, labels)
    return dataclasses.replace(image, boxes=boxes, labels=labels, ignore=ignore), findings


def _columns(rows, labels):
    boxes = np.array([box for box, _ in rows], "float32").reshape(-1, 4)
    ignore = np.array([difficult for _, difficult in rows], bool)
    return boxes, np.array(labels, "int32"), ignore


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

    Annotation tools write the file name once; the stem survives renaming. Where several images
    have the stem, such as a mask beside the photograph, the written name decides.
    """
    folder = file.parent
    if folder.name == "Annotations":
        folder = folder.parent / "JPEGImages"
    if folder not in images_of:
        images_of[folder] = _images_by_stem(folder)
    written = folder / Path((tree.findtext("filename") or "").strip()).name
    candidates = images_of[folder].get(file.stem, [])
    if candidates:
        return written if written in candidates else candidates[0]
    return written if written.is_file() else folder / f"{file.stem}.jpg"


def _images_by_stem(folder):
    """Returns the images of a folder by stem; other files, such as text, may lie beside them."""
    listing = sorted(folder.iterdir()) if folder.is_dir() else []
    images = [path for path in listing if path.suffix.lower() in IMAGE_SUFFIXES]
    by_stem = {}
    for path in sorted(images, key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower())):
        by_stem.setdefault(path.stem, []).append(path)
    return by_stem
