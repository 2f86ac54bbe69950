"""One label file in YOLO format: its boxes, and what is wrong with its lines."""

import dataclasses
from collections.abc import Iterable

from libra_keras.data.findings import Finding
from libra_keras.data.written_numbers import number
from libra_keras.files.reading import read_bytes, reason

TOLERANCE = 0.01  # what rounding may add to a fraction
BOX, WITH_CONFIDENCE = 5, 6  # numbers of a line
POLYGON = 9  # the class and four points, at least


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line that has a box."""

    number: int
    text: str
    label: int
    corners: tuple[float, ...]  # x1, y1, x2, y2 as fractions of the image


@dataclasses.dataclass
class Labels:
    """What a label file says."""

    file: str | None  # `None` if there is none
    lines: list[Line] = dataclasses.field(default_factory=list)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    is_readable: bool = True
    num_duplicates: int = 0
    num_polygons: int = 0
    confidences: list[int] = dataclasses.field(default_factory=list)  # numbers of lines


def read_labels(files: Iterable[str], num_classes: int, has_points: bool) -> Labels:
    """Reads the first of the files that is there; with points of a pose, lines are longer."""
    for file in files:
        try:
            text = read_bytes(file).decode("utf-8-sig")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            finding = Finding("unreadable file", file, None, reason(error))
            return Labels(file, findings=[finding], is_readable=False)
        return _parsed(file, text, num_classes, has_points)
    return Labels(None)


def _parsed(file, text, num_classes, has_points):
    labels, seen = Labels(file), set()
    for position, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        values = list(map(number, line.split()))
        problem = _problem(values, num_classes, has_points)
        if problem:
            kind, message = problem
            message = f"{line.strip()!r:.80}: {message}"
            labels.findings.append(Finding(kind, file, f"line {position}", message))
            continue
        is_polygon = not has_points and len(values) >= POLYGON
        box = Line(position, line.strip(), int(values[0]), _corners(values, is_polygon))
        if (box.label, box.corners) in seen:
            labels.num_duplicates += 1
            continue
        seen.add((box.label, box.corners))
        labels.lines.append(box)
        labels.num_polygons += is_polygon
        if len(values) == WITH_CONFIDENCE and not has_points:
            labels.confidences.append(position)
    return labels


def _problem(values, num_classes, has_points):
    """The kind and the message of a finding on the numbers of a line, or `None`."""
    if None in values:
        return "not a number", f"its field {values.index(None) + 1} is not a number"
    count, label = len(values), values[0]
    is_polygon = not has_points and count >= POLYGON
    is_box = count >= BOX if has_points else count in (BOX, WITH_CONFIDENCE)
    if not is_box and not (is_polygon and count % 2):
        return "entry", (
            f"{count} numbers. A box has {BOX}: class, center x, center y, width, height; "
            f"a polygon has its class and at least four points"
        )
    if not (label.is_integer() and 0 <= label < num_classes):
        return "class", f"class {label:g} is not one of 0..{num_classes - 1}"
    fractions = values[1:] if is_polygon else values[1:BOX]
    if min(fractions) < -TOLERANCE or max(fractions) > 1 + TOLERANCE:
        return "box outside", "coordinates are fractions of the image, from 0 to 1"
    return None


def _corners(values, is_polygon):
    if is_polygon:
        x, y = values[1::2], values[2::2]
        return min(x), min(y), max(x), max(y)
    center_x, center_y, width, height = values[1:BOX]
    return (
        center_x - width / 2, center_y - height / 2, center_x + width / 2, center_y + height / 2,
    )  # fmt: skip
