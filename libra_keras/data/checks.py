"""What can be wrong with a data set, found before training rather than in its middle."""

import collections
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from libra_keras.data.damage import DamagedImage, read_checked

ORIENTATION_TAG = 0x0112  # EXIF
TURNED = range(5, 9)  # orientations that swap width and height
NUM_THREADS = 16  # opening files waits for the disk more than it computes
_WARNINGS = ("rotation", "empty box")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Args:
        kind: str: `"missing file"`, `"unreadable file"`, `"damaged image"`, `"image size"`,
            `"rotation"` (a warning: pixels are used as stored), `"image id"`,
            `"duplicate image"`, `"category"`, `"class"`, `"not a number"` (or no flag),
            `"degenerate box"`, `"empty box"` (a warning of readers, which leave out such boxes),
            `"box outside"`.
        image: str, the file (or the annotation file, for what concerns no single image).
        box: the box's position in its image (int), its annotation id (`"annotation 7"`), or
            `None` if the image as a whole is meant.
        message: str, what is wrong, with the values.

    Example:

    >>> from libra_keras.data import Finding
    >>> print(Finding("degenerate box", "cat.jpg", 2, "x2 <= x1 in (9, 0, 3, 5)"))
    cat.jpg, box 2: degenerate box: x2 <= x1 in (9, 0, 3, 5)
    """

    kind: str
    image: str
    box: int | str | None
    message: str

    @property
    def is_warning(self):
        """Whether training may go on in spite of it."""
        return self.kind in _WARNINGS

    def __str__(self):
        box = f"box {self.box}" if isinstance(self.box, int) else self.box
        where = self.image if box is None else f"{self.image}, {box}"
        return f"{where}: {self.kind}: {self.message}"


def check_annotations(data):
    """Checks a data set without decoding an image: annotations, files, and their headers.

    Args:
        data: `DetectionData`.

    Returns:
        List of `Finding`, those made when the data were read included. Files whose headers the
        reader has checked are not opened again.

    Example:

    >>> from libra_keras import data
    >>> data.check_annotations(data.shapes(4))
    []
    """
    findings = [finding for _, finding in duplicate_ids(data.examples)]
    if data.has_files and not data.headers_checked:
        headers = read_headers(data.examples)
        findings += [finding for _, finding in header_findings(data.examples, headers)]
    findings += [finding for _, _, finding in box_findings(data.examples, data.num_classes)]
    return list(dict.fromkeys([*data.findings, *findings]))


def check_data(data, verbose=0):
    """Checks a data set completely: `check_annotations`, and every image is decoded.

    Args:
        data: `DetectionData`. Read it with `skip_bad=True`, or the reader raises what it finds.
        verbose: 0 or 1, whether a progress bar is shown.

    Returns:
        List of `Finding`.

    Example:

    >>> from libra_keras import data
    >>> data.check_data(data.shapes(4))
    []
    """
    findings = check_annotations(data)
    bar = keras.utils.Progbar(len(data), verbose=verbose, unit_name="image")
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for finding in pool.map(lambda i: _decode(data, i), range(len(data))):
            findings += [finding] if finding else []
            bar.add(1)
    return findings


def _decode(data, i):
    try:
        read_checked(data, i)
    except DamagedImage as error:
        return Finding("damaged image", str(data.examples[i].file), None, str(error))


def read_headers(examples):
    """Opens every file without decoding it.

    Returns:
        List with, per example, `(height, width, orientation)` or the exception. The orientation
        is EXIF's number, 1 where there is none.
    """
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(lambda example: _read_header(example.file), examples))


def _read_header(file):
    try:
        with Image.open(file) as image:
            # Only where the header has it: asking a PNG file for its EXIF decodes the image.
            exif = image.getexif() if "exif" in image.info else {}
            return image.height, image.width, exif.get(ORIENTATION_TAG, 1)
    except Exception as error:  # a broken header makes Pillow raise nearly anything
        return error


def header_findings(examples, headers):
    """Compares headers with annotations: list of (example's position, `Finding`)."""
    found = []
    for i, (example, header) in enumerate(zip(examples, headers, strict=True)):
        file = str(example.file)
        if isinstance(header, Exception):
            kind = "unreadable file" if Path(file).exists() else "missing file"
            found.append((i, Finding(kind, file, None, str(header))))
        elif header[:2] != (example.height, example.width):
            message = (
                f"the file is {header[1]}x{header[0]} (width x height), "
                f"its annotation says {example.width}x{example.height}"
            )
            if header[1::-1] == (example.height, example.width) and header[2] in TURNED:
                message += (
                    f". EXIF orientation {header[2]} turns it: the annotation is that of the "
                    "turned image. Save the images turned"
                )
            found.append((i, Finding("image size", file, None, message)))
        elif header[2] not in (0, 1):
            message = f"EXIF orientation {header[2]} is not applied: boxes refer to stored pixels"
            found.append((i, Finding("rotation", file, None, message)))
    return found


def duplicate_ids(examples):
    """Finds images whose id was seen before: list of (example's position, `Finding`)."""
    first, found = {}, []
    for i, example in enumerate(examples):
        if example.image_id in first:
            message = f"id {example.image_id} is also that of {first[example.image_id]}"
            found.append((i, Finding("image id", str(example.file), None, message)))
        first.setdefault(example.image_id, example.file)
    return found


def box_findings(examples, num_classes, box_names=None, leaves_out_empty=False):
    """Finds boxes that cannot be learnt from.

    Args:
        examples: list of `Example`.
        num_classes: int, K.
        box_names: list with, per example, the names of its boxes in findings. Defaults to their
            positions.
        leaves_out_empty: bool, whether a box with a side of exactly 0 is no more than a warning,
            `"empty box"`, since the caller leaves it out. Otherwise it is a degenerate one.

    Returns:
        List of (example's position, box's position, `Finding`).
    """
    boxes, labels, owners = stack_boxes(examples)
    heights = np.array([example.height for example in examples], "float32")[owners]
    widths = np.array([example.width for example in examples], "float32")[owners]
    x1, y1, x2, y2 = boxes.T
    starts = np.concatenate([[0], np.cumsum([len(example.boxes) for example in examples])])
    negative = (x2 < x1) | (y2 < y1)
    empty = ~negative & ((x2 == x1) | (y2 == y1))
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= widths) | (y1 >= heights)
    beyond = (x2 < 0) | (y2 < 0) | (x1 > widths) | (y1 > heights)  # an empty one may touch a border
    tests = {  # a box has one finding, the first
        "not a number": ~np.isfinite(boxes).all(-1),
        "degenerate box": negative if leaves_out_empty else negative | empty,
        "box outside": np.where(empty, beyond, outside),
        "class": (labels < 0) | (labels >= num_classes),
        "empty box": empty,
    }
    found = {}
    for kind, is_bad in tests.items():
        for row in np.flatnonzero(is_bad):
            example, position = examples[owners[row]], int(row - starts[owners[row]])
            message = _box_message(kind, boxes[row], labels[row], example, num_classes)
            name = box_names[owners[row]][position] if box_names else position
            finding = Finding(kind, str(example.file), name, message)
            found.setdefault(int(row), (int(owners[row]), position, finding))
    return [found[row] for row in sorted(found)]


def _box_message(kind, box, label, example, num_classes):
    if kind == "class":
        return f"label {label} is not one of 0..{num_classes - 1}"
    values = ", ".join(f"{value:g}" for value in box)
    return {
        "not a number": f"({values}) is not finite",
        "degenerate box": f"({values}) has x2 <= x1 or y2 <= y1",
        "empty box": f"({values}) has a side of 0 and is left out, like all of at most 1 px",
        "box outside": f"({values}) lies outside the {example.width}x{example.height} image",
    }[kind]


def stack_boxes(examples):
    """Joins the boxes of all examples: boxes `(T, 4)`, labels `(T,)`, owner's position `(T,)`."""
    boxes = [np.asarray(example.boxes, "float32").reshape(-1, 4) for example in examples]
    labels = [np.asarray(example.labels) for example in examples]
    owners = np.repeat(np.arange(len(examples)), [len(rows) for rows in boxes])
    empty = np.zeros((0, 4), "float32"), np.zeros((0,), "int32")
    return np.concatenate([empty[0], *boxes]), np.concatenate([empty[1], *labels]), owners


def report(findings, most=10):
    """Lists findings for an error message: the first ones in full, and how many of each kind."""
    kinds = collections.Counter(finding.kind for finding in findings)
    lines = [str(finding) for finding in findings[:most]]
    if len(findings) > most:
        counts = ", ".join(f"{number} x {kind}" for kind, number in kinds.items())
        lines.append(f"... {len(findings)} in all: {counts}")
    return "\n".join(f"  {line}" for line in lines)
