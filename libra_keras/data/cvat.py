"""Reader of CVAT's own XML, "CVAT for images 1.1": one file for all images."""

import collections
import dataclasses
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from libra_keras.data.assembly import NO_BOXES, WrittenBox, assembled, with_boxes
from libra_keras.data.collecting import no_collecting
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Finding
from libra_keras.data.layouts import (
    ALL,
    Layout,
    Place,
    chosen,
    image_folders,
    image_paths,
    leads_out,
    outside,
)
from libra_keras.data.written_numbers import finite, number, pixels
from libra_keras.data.xml_files import refuse_declarations
from libra_keras.files.reading import explained, open_regular

FILE = "annotations.xml"
CORNERS = ("xtl", "ytl", "xbr", "ybr")
SIDES = ("height", "width")
KEPT = ("box", "polygon")  # kinds of shapes
BOXED = ("any", "rectangle", "polygon")  # types of the labels that they can have


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """An image as the file has it."""

    number: str
    name: str
    subset: str
    sides: tuple[str | None, ...]  # `SIDES` as they are written
    shapes: list[WrittenBox]
    counted: list[str]  # what is told of its shapes


def cvat(
    folder: str | Path,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
    allow_outside: bool = False,
) -> DetectionData:
    """Reads `annotations.xml` of "CVAT for images 1.1".

    Images are in `images/<subset>/`, in `images/` or beside the file. Polygons and rotated boxes
    become the boxes around them; points, lines, masks and other shapes are left out and counted in
    `counts`. Boxes are clipped to the image, and left out if a side is at most 1 px. The image's id
    is its position in the split, from 1.

    Args:
        folder: path of the data set, or of the XML.
        split: str, a subset, or `None` for the only one.
        class_names: names in the order of the labels. Defaults to the labels of the task or project
            that boxes can have, in their order, or else to those of all shapes, sorted.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers.
        allow_outside: bool, whether to read images whose names lead out of the folder.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has another format, such as "CVAT for video"; if there is no such
            split; if annotations or files are bad and `skip_bad` is false.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from libra_keras.data import cvat
    >>> xml = (
    ...     '<annotations><image id="0" name="a.png" width="30" height="20">'
    ...     '<box label="cat" xtl="2" ytl="4" xbr="12" ybr="12"/></image></annotations>'
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (30, 20)).save(f"{folder}/a.png")
    ...     _ = pathlib.Path(folder, "annotations.xml").write_text(xml)
    ...     data = cvat(folder)
    >>> data.class_names, data.examples[0].boxes.tolist()
    (('cat',), [[2.0, 4.0, 12.0, 12.0]])
    """
    folder = Path(folder).expanduser()
    layout = find(folder)
    if layout is None:
        raise FileNotFoundError(f"Expected {FILE} of CVAT at {folder}")
    place, name = chosen(layout, folder, split, allow_outside)
    return from_place(place, name, class_names, skip_bad, check_files)


def find(folder: Path) -> Layout | None:
    """Returns the layout if the file, or that of a folder, is CVAT's; its subsets are splits."""
    file = folder if folder.is_file() else folder / FILE
    if not file.is_file():
        return None
    subsets = {}
    for element in _elements(file):
        if element is None:
            return None
        if element.tag == "image":
            subsets[element.get("subset") or ALL] = True
    names = list(subsets) or [ALL]
    # A subset is a name: a folder that it leads to outside is none of its images.
    folders = {n: image_folders(file.parent, "" if leads_out(n) else n) for n in names}
    splits = {name: Place(file, folders[name], name) for name in names}
    return Layout("CVAT XML", "cvat", splits)


def _elements(file):
    """Yields what is in the root, each element gone after its turn; `None` for another root."""
    with explained(file), open_regular(file) as stream:
        refuse_declarations(stream)
        root, depth = None, 0
        for event, element in ET.iterparse(stream, ("start", "end")):
            depth += 1 if event == "start" else -1
            if root is None:
                root = element
                if root.tag != "annotations":
                    yield None
                    return
            if event == "end" and depth == 1:
                if element.tag == "track":
                    message = "is 'CVAT for video'. Export the task as 'CVAT for images 1.1'"
                    raise ValueError(f"{file} {message}")
                yield element
                root.clear()


@no_collecting()
def from_place(
    place: Place,
    name: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
) -> DetectionData:
    """Reads a split as `find` has found it; the data are called `name`."""
    file = place.annotations
    labels, entries = _read(file)
    if class_names is None:
        class_names = labels or sorted({s.label for e in entries for s in e.shapes} - {""})
    entries = [entry for entry in entries if entry.subset == place.part]
    images, findings = _images(entries, place)
    examples, written, found = with_boxes(images, class_names)
    counts = collections.Counter(what for entry in entries for what in entry.counted)
    return assembled(
        name, class_names, examples, written, findings + found, skip_bad, check_files, counts
    )


def _read(file):
    """Returns the labels that boxes can have, and all images."""
    labels, entries = {}, []
    for element in _elements(file):
        if element is None:
            raise ValueError(f"{file} is not CVAT's: its root is not <annotations>")
        for label in element.iterfind("./*/labels/label") if element.tag == "meta" else ():
            if label.findtext("name") and label.findtext("type", "any") in BOXED:
                labels[label.findtext("name")] = True
        if element.tag == "image":
            entries.append(_entry(element))
    return list(labels), entries


def _entry(element):
    shapes, counted = [], []
    for i, child in enumerate(element):
        if child.tag not in KEPT:
            counted.append(f"{child.tag.removesuffix('s'):.40}s_left_out")
            continue
        shapes.append(_shape(child, f"{child.tag} {i}"))
        is_turned = child.tag == "box" and number(child.get("rotation", "0")) != 0
        if not shapes[-1].problem and (child.tag == "polygon" or is_turned):
            counted.append("turned_boxes_as_boxes" if is_turned else "polygons_as_boxes")
    sides = tuple(element.get(name) for name in SIDES)
    name, subset = element.get("name", "").strip(), element.get("subset") or ALL
    return Entry(element.get("id", ""), name, subset, sides, shapes, counted)


def _shape(element, name):
    is_polygon = element.tag == "polygon"
    keys = ("points",) if is_polygon else (*CORNERS, "rotation")
    text = ", ".join(f"{key} {element.get(key)}" for key in keys if key in element.attrib)
    corners, problem = (), None
    try:
        corners = _around_polygon(element) if is_polygon else _around_box(element)
    except ValueError as error:
        problem = str(error)
    return WrittenBox(name, element.get("label", ""), f"{text:.200}", corners, problem)


def _around_polygon(element):
    points = [point.split(",") for point in element.get("points", "").split(";")]
    if any(len(point) != 2 for point in points):
        raise ValueError(f"its points are {element.get('points')!r:.80}, not x,y;x,y;...")
    x, y = zip(*((finite(x, "points"), finite(y, "points")) for x, y in points), strict=True)
    return min(x), min(y), max(x), max(y)


def _around_box(element):
    """The corners of a box, or of that around one that is turned about its center."""
    x1, y1, x2, y2 = (finite(element.get(key), key) for key in CORNERS)
    angle = math.radians(finite(element.get("rotation", "0"), "rotation"))
    width, height = x2 - x1, y2 - y1
    if not angle or width < 0 or height < 0:
        return x1, y1, x2, y2
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - across, y - down, x + across, y + down


def _images(entries, place):
    """Returns examples with the shapes of each, and findings on the other entries."""
    names = [entry.name for entry in entries if entry.name]
    paths = image_paths(names, place.images, place.allow_outside)
    images, findings, seen = [], [], set()
    for image_id, entry in enumerate(entries, 1):
        path = paths.get(entry.name)
        if entry.name and path is None:
            name = f"image {entry.number:.80}"
            findings.append(outside(place.annotations, name, entry.name))
            continue
        problem = _problem(entry, path, seen)
        if problem:
            message = f"image {entry.number:.80} ({entry.name!r:.80}): {problem[1]}"
            findings.append(Finding(problem[0], str(place.annotations), None, message))
            continue
        seen.add(path)
        height, width = _size(entry)
        images.append((Example(image_id, path, height, width, *NO_BOXES), entry.shapes))
    return images, findings


def _problem(entry, path, seen):
    """The kind and the message of a finding on an image, or `None`."""
    if not entry.name:
        return "entry", "it has no name"
    if path in seen:
        return "duplicate image", "there is another entry for this file"
    try:
        _size(entry)
    except ValueError as error:
        return "image size", str(error)
    return None


def _size(entry):
    return [pixels(side, name) for side, name in zip(entry.sides, SIDES, strict=True)]
