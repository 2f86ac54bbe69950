"""One annotation file of Pascal VOC: what it says, as it says it."""

import dataclasses
import math
import xml.etree.ElementTree as ET

from libra_keras.data.voc_corners import origin

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclasses.dataclass(frozen=True)
class VOCObject:
    """An object of a file.

    Args:
        name: str, of its class; empty if it has none.
        texts: tuple of four str or `None`, its `CORNERS` as they are written; `None` if it has no
            box.
        is_difficult: bool.
    """

    name: str
    texts: tuple | None
    is_difficult: bool

    @property
    def problem(self):
        """What is wrong with the corners, or `None`."""
        if self.texts is None:
            return 'it has no "bndbox"'
        for name, text in zip(CORNERS, self.texts, strict=True):
            if text is None:
                return f"its bndbox has no {name}"
            if _number(text) is None:
                return f"its {name} is {text!r:.80}"
        return None

    @property
    def corners(self):
        """The corners as floats, where there is no problem."""
        return [float(text) for text in self.texts]

    def __str__(self):
        return ", ".join(f"{n} {text}" for n, text in zip(CORNERS, self.texts, strict=True))


@dataclasses.dataclass(frozen=True)
class VOCFile:
    """What a file says.

    Args:
        image: str, the name of the image.
        sides: tuple of str or `None`, its height and its width.
        objects: list of `VOCObject`.
        origin: `Origin`, who wrote the file, or `None` if nothing tells.
    """

    image: str
    sides: tuple
    objects: list
    origin: object

    @property
    def size(self):
        """Height and width as ints, 0 where there is none.

        Raises:
            ValueError: if one is no number.
        """
        for name, text in zip(("height", "width"), self.sides, strict=True):
            if text and _number(text) is None:
                raise ValueError(f"its {name} is {text!r:.80}")
        return tuple(int(float(text)) if text else 0 for text in self.sides)


def read_xml(file):
    """Reads an annotation file.

    Names lose the namespace that some tools give them.

    Args:
        file: path.

    Returns:
        `VOCFile`.

    Raises:
        OSError, ValueError, LookupError, xml.etree.ElementTree.ParseError: if it cannot be read.

    Example:

    >>> import pathlib, tempfile
    >>> from libra_keras.data.voc_xml import read_xml
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.xml")
    ...     _ = file.write_text(
    ...         "<annotation><object><name>cat</name><bndbox><xmin>3</xmin><ymin>x</ymin>"
    ...         "<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
    ...     )
    ...     (cat,) = read_xml(file).objects
    >>> cat.name, cat.problem
    ('cat', "its ymin is 'x'")
    """
    tree = ET.parse(file)
    for entry in tree.iter():
        entry.tag = entry.tag.rpartition("}")[2]
    sides = tuple(_text(tree, f"size/{side}") for side in ("height", "width"))
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


def _number(text):
    """A finite number, or `None`."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
