"""What is told of a data set in which something is wrong."""

import collections
import dataclasses
from collections.abc import Callable

_WARNINGS = ("rotation", "empty box", "empty class", "many objects")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Args:
        kind: str: `"missing file"`, `"unreadable file"`, `"damaged image"`, `"image size"`,
            `"rotation"` (a warning: pixels are used as stored), `"image id"`,
            `"duplicate image"`, `"category"`, `"class"`, `"empty class"` (a warning: no box of it),
            `"entry"` (no object of a JSON), `"not a number"` (or no flag), `"degenerate box"`,
            `"empty box"` (a warning of readers, which leave out such boxes), `"box outside"`;
            `"many objects"` (a warning: more than detectors give out); `"no images"` and
            `"no boxes"`: there is nothing to learn from.
        image: str, the file (or the annotation file, for what concerns no single image).
        box: the box's position in its image (int), its annotation id (`"annotation 7"`), or
            `None` if the image as a whole is meant.
        message: str, what is wrong, with the values as the file has them.

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


@dataclasses.dataclass(frozen=True)
class Written:
    """What the files of a data set say of its boxes: readers know it, and findings show it.

    Args:
        name: function of the positions of an example and of a box in it: what findings call it.
        values: function of the same: the numbers of the box as they are written.
        ignored: what the boxes that are ignored are called, such as `"crowds"`.
        are_fractions: bool, whether there are boxes and all their numbers lie in 0..1.

    Example:

    >>> from libra_keras.data.findings import Written
    >>> rows = [[{"id": 7, "bbox": [1, 2, 3, 4]}]]
    >>> written = Written(lambda i, k: rows[i][k]["id"], lambda i, k: str(rows[i][k]["bbox"]))
    >>> written.name(0, 0), written.values(0, 0), written.ignored
    (7, '[1, 2, 3, 4]', 'ignored')
    """

    name: Callable
    values: Callable
    ignored: str = "ignored"
    are_fractions: bool = False


def report(findings, most=10):
    """Lists findings for an error message: the first ones in full, and how many of each kind.

    Example:

    >>> from libra_keras.data.findings import Finding, report
    >>> print(report([Finding("class", "cat.jpg", i, "label 9") for i in range(3)], most=1))
      cat.jpg, box 0: class: label 9
      ... 3 in all: 3 x class
    """
    kinds = collections.Counter(finding.kind for finding in findings)
    lines = [str(finding) for finding in findings[:most]]
    if len(findings) > most:
        counts = ", ".join(f"{number} x {kind}" for kind, number in kinds.items())
        lines.append(f"... {len(findings)} in all: {counts}")
    return "\n".join(f"  {line}" for line in lines)
