"""What the corners of a box in Pascal VOC's form are: its outermost pixels, or its edges.

The files of Pascal VOC name the first and the last pixel of a box, counted from 1. Most tools that
write their form give the edges of the box instead, in a plane whose origin is the corner of the
image. Both look alike; what tells is who wrote the file.
"""

import collections
import dataclasses
import re

PIXELS, EDGES = "pixels", "edges"
CHOICES = ("auto", PIXELS, EDGES)
OFFICIAL = re.compile(r"\bVOC ?20\d\d\b|\bPASCAL\b", re.IGNORECASE)
# Words in `source` or `owner` that name a tool.
TOOLS = {
    "roboflow": "Roboflow", "cvat": "CVAT", "label studio": "Label Studio",
    "labelimg": "LabelImg", "labelme": "labelme", "vott": "VoTT", "datumaro": "CVAT",
}  # fmt: skip
SAMPLED = 200  # files of a folder that are asked


@dataclasses.dataclass(frozen=True)
class Origin:
    """Who wrote a file, and what its corners are therefore."""

    corners: str
    name: str


def origin(tree, numbers):
    """Finds out who wrote an annotation file.

    Fractions alone tell nothing: the files of VOC2012 have some.

    Args:
        tree: `xml.etree.ElementTree.ElementTree` without namespaces.
        numbers: list of the corners in it, as they are written.

    Returns:
        `Origin`, or `None` if nothing tells.

    Example:

    >>> import io
    >>> import xml.etree.ElementTree as ET
    >>> from libra_keras.data.voc_corners import origin
    >>> text = "<annotation><source><database>The VOC2007 Database</database></source></annotation>"
    >>> origin(ET.parse(io.StringIO(text)), [])
    Origin(corners='pixels', name='Pascal VOC')
    """
    paths = "source/database", "source/annotation", "owner/name"
    texts = (tree.findtext(path) for path in paths)
    database, annotation, owner = (None if t is None else t.strip().lower() for t in texts)
    if OFFICIAL.search(f"{database}, {annotation}"):
        return Origin(PIXELS, "Pascal VOC")
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


def decide(origins):
    """Decides what the corners of all boxes of a data set are, from some of its files.

    They are edges if more than half of the files say so, else pixels, as VOC has it.

    Args:
        origins: list of `Origin` or `None`, of the files that were asked.

    Returns:
        Tuple of `"pixels"` or `"edges"`, and a note on why, `None` if nothing told.

    Example:

    >>> from libra_keras.data.voc_corners import Origin, decide
    >>> decide([Origin("edges", "LabelImg")] * 2 + [None])
    ('edges', 'corners: edges (LabelImg)')
    >>> decide([Origin("edges", "LabelImg"), None])
    ('pixels', None)
    """
    said = collections.Counter(each for each in origins if each is not None)
    edges = sum(number for each, number in said.items() if each.corners == EDGES)
    corners = EDGES if edges > len(origins) / 2 else PIXELS
    names = [each.name for each, _ in said.most_common() if each.corners == corners]
    return corners, f"corners: {corners} ({names[0]})" if names else None


def sample(files):
    """Returns some of a sorted list of files, spread over it: always the same.

    Example:

    >>> from libra_keras.data.voc_corners import sample
    >>> len(sample(range(1000))), sample(range(3))
    (200, [0, 1, 2])
    """
    count = min(len(files), SAMPLED)
    return [files[i * len(files) // count] for i in range(count)]
