"""One annotation file of Pascal VOC: what it says, and whether corners are pixels or edges."""

import collections
import dataclasses
import io
import re
import xml.etree.ElementTree as ET

from libra_keras.data.written_numbers import finite, pixels
from libra_keras.data.xml_files import refuse_declarations
from libra_keras.files.reading import read_bytes

# The files of Pascal VOC name the first and the last pixel of a box, counted from 1. Most tools
# that write their form give the edges of the box instead, in a plane whose origin is the corner of
# the image. Both look alike; what tells is who wrote the file.
PIXELS, EDGES = "pixels", "edges"
CHOICES = ("auto", PIXELS, EDGES)
OFFICIAL = re.compile(r"\bVOC ?20\d\d\b|\bPASCAL\b", re.IGNORECASE)
# Words in `source` or `owner` that name a tool.
TOOLS = {
    "roboflow": "Roboflow", "cvat": "CVAT", "label studio": "Label Studio",
    "labelimg": "LabelImg", "labelme": "labelme", "vott": "VoTT", "datumaro": "CVAT",
}  # fmt: skip
SAMPLED = 200  # files of a folder that are asked
CORNERS, SIDES = ("xmin", "ymin", "xmax", "ymax"), ("height", "width")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Who wrote a file, and what its corners are therefore."""

    corners: str
    name: str


def origin(tree, numbers):
    """Finds out who wrote a file, from its fields and corners: an `Origin` or `None`."""
    # Fractions alone tell nothing: the files of VOC2012 have some.
    paths = "source/database", "source/annotation", "owner/name"
    texts = (tree.findtext(path) for path in paths)
    database, annotation, owner = (None if t is None else t.strip().lower() for t in texts)
    if OFFICIAL.search(f"{database}, {annotation}"):
        return Origin(PIXELS, "Pascal VOC")
    if database == "roboflow.ai" and tree.findtext("folder") == "VOC":
        return Origin(PIXELS, "supervision")
    said = f"{database}, {annotation}, {owner}"
    tool = next((name for word, name in TOOLS.items() if word in said), None)
    tool = tool or _by_habits(tree, database, annotation, numbers)
    return Origin(EDGES, tool) if tool else None


def _by_habits(tree, database, annotation, numbers):
    """Tools that do not name themselves fill in the fields around the objects in their own ways."""
    folder = tree.findtext("folder")
    has_path, has_segmented = (tree.find(name) is not None for name in ("path", "segmented"))
    has_points = bool(numbers) and all("." in (number or "") for number in numbers)
    has_empty_folder = folder is not None and not folder.strip()
    if database is None:
        return "CVAT" if has_empty_folder and has_points else None
    if (database, annotation) == ("unknown", "unknown"):
        return "CVAT"
    if database == "unknown" and (has_path or has_segmented):
        return "LabelImg"
    if database == "unspecified" and has_path:
        return "makesense.ai"
    return "labelme" if (database, annotation) == ("", "") else None


def decide(origins, layout=None):
    """Says edges if more than half of the files do, else pixels, and a note on why or `None`. Where
    no file tells, the origin that the `layout` tells of decides."""
    said = collections.Counter(each for each in origins if each is not None)
    if layout is not None and not said:
        said = collections.Counter({layout: len(origins)})
    edges = sum(number for each, number in said.items() if each.corners == EDGES)
    corners = EDGES if edges > len(origins) / 2 else PIXELS
    names = [each.name for each, _ in said.most_common() if each.corners == corners]
    return corners, f"corners: {corners} ({names[0]})" if names else None


def sample(files):
    """Returns some of a sorted list of files, spread over it: always the same."""
    count = min(len(files), SAMPLED)
    return [files[i * len(files) // count] for i in range(count)]


@dataclasses.dataclass(frozen=True)
class VOCObject:
    """An object of a file."""

    name: str  # of its class; empty if it has none
    texts: tuple | None  # its four `CORNERS` as they are written; `None` if it has no box
    is_difficult: bool

    @property
    def corners(self):
        """The corners as floats, or a `ValueError` that says what is wrong with them."""
        if self.texts is None:
            raise ValueError('it has no "bndbox"')
        return [finite(text, name) for name, text in zip(CORNERS, self.texts, strict=True)]

    def __str__(self):
        return ", ".join(f"{n} {text}" for n, text in zip(CORNERS, self.texts, strict=True))


@dataclasses.dataclass(frozen=True)
class VOCFile:
    """What a file says."""

    image: str  # its name
    sides: tuple  # its height and its width as they are written, or `None`
    objects: list
    origin: object  # an `Origin`, or `None` if nothing tells

    @property
    def size(self):
        """Height and width, 0 where there is none; a `ValueError` if one is no number of pixels."""
        return [pixels(text, name) for name, text in zip(SIDES, self.sides, strict=True)]


def read_xml(file):
    """Reads an annotation file, whose names lose the namespace that some tools give them."""
    content = read_bytes(file)
    refuse_declarations(io.BytesIO(content))
    tree = ET.fromstring(content)
    for entry in tree.iter():
        entry.tag = entry.tag.rpartition("}")[2]
    sides = tuple(_text(tree, f"size/{side}") for side in SIDES)
    # not iter(): parts of a person are nested in its object
    objects = [_object(entry) for entry in tree.iterfind("object")]
    written = [text for each in objects for text in each.texts or ()]
    return VOCFile(_text(tree, "filename") or "", sides, objects, origin(tree, written))


def _object(entry):
    box = entry.find("bndbox")
    texts = None if box is None else tuple(_text(box, name) for name in CORNERS)
    return VOCObject(_text(entry, "name") or "", texts, _text(entry, "difficult") == "1")


def _text(entry, path):
    text = entry.findtext(path)
    return None if text is None else text.strip()
