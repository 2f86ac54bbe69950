"""Reader of tables: a CSV with a box per row."""

import collections
import io
from collections.abc import Sequence
from csv import Error as CSVError
from csv import reader as csv_reader
from pathlib import Path
from typing import NamedTuple

from libra_keras.data.assembly import NO_BOXES, WrittenBox, assembled, with_boxes
from libra_keras.data.collecting import no_collecting
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Finding
from libra_keras.data.layouts import (
    ALL,
    IMAGE_SUFFIXES,
    Layout,
    Place,
    chosen,
    image_folders,
    image_paths,
)
from libra_keras.data.written_numbers import finite, pixels

# What columns may be called, in any case. Those of the image's size need not be there.
COLUMNS = {
    "image": ("image", "filename", "file_name", "image_path"),
    "x1": ("x1", "xmin", "x_min"),
    "y1": ("y1", "ymin", "y_min"),
    "x2": ("x2", "xmax", "x_max"),
    "y2": ("y2", "ymax", "y_max"),
    "class": ("class", "label", "class_name"),
    "height": ("height",),
    "width": ("width",),
}
CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("height", "width")
DELIMITERS = (",", ";", "\t")
USUAL = ("train", "trainval", "val", "valid", "validation", "test")  # names of splits
ANNOTATIONS, ROBOFLOW = "annotations.csv", "_annotations.csv"
HEADER = 2**16  # bytes of a first line


class Row(NamedTuple):
    """A row as it is written; a field that is not there is empty."""

    line: int
    image: str
    corners: tuple[str, ...]
    label: str
    sides: tuple[str, ...]

    @property
    def has_box(self):
        """Whether there is an object at all."""
        return any(self.corners)


def csv(
    folder: str | Path,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
) -> DetectionData:
    """Reads a CSV with a box per row, and a header: `image,x1,y1,x2,y2,class` in any order.

    Boxes are their edges in pixels. `filename`, `xmin`, `ymin`, `xmax` and `ymax` are known too,
    with `width` and `height` of the image, which are then compared with the file; other columns
    are passed over. A row without a box is an image without objects. Fields are separated by `,`
    `;` or tabs.

    Read are `<folder>/<split>.csv`, a single CSV of any name, `annotations.csv` (whose split is
    `"all"`), and `<folder>/<split>/_annotations.csv` (Roboflow); of the latter, an image in the
    folder without a row is one without objects. Images lie beside the CSV, in `<split>/`,
    `images/` or `images/<split>/`.

    Boxes are clipped to the image, and left out if a side is at most 1 px. The image's id is its
    position in the CSV, from 1.

    Args:
        folder: path of the data set, or of a CSV.
        split: str, or `None` for the only one.
        class_names: names in the order of the labels. Defaults to those in the CSVs of *all*
            splits, sorted, so that the splits of a data set agree.
        skip_bad: bool, whether bad rows and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers. Those of images
            without a size in the CSV must in any case.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing, or the file is no text in UTF-8; if there is no such
            split; if rows or files are bad and `skip_bad` is false.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from libra_keras.data import csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (30, 20)).save(f"{folder}/a.png")
    ...     table = "image,x1,y1,x2,y2,class\\na.png,2,4,12,12,cat\\n"
    ...     _ = pathlib.Path(folder, "train.csv").write_text(table)
    ...     data = csv(folder, "train")
    >>> data.class_names, data.examples[0].boxes.tolist()
    (('cat',), [[2.0, 4.0, 12.0, 12.0]])
    """
    folder = Path(folder).expanduser()
    layout = find(folder)
    if layout is None:
        columns = ", ".join(name for name in COLUMNS if name not in SIDES)
        raise FileNotFoundError(f"Expected a CSV with the columns {columns} in {folder}")
    return from_place(*chosen(layout, folder, split), class_names, skip_bad, check_files)


def find(folder: Path) -> Layout | None:
    """Returns the layout of CSVs that a folder has, or the folder of one."""
    top = [folder] if folder.is_file() else sorted(folder.glob("*.csv"))
    top = [file for file in top if _is_table(file)]
    usual = [file for file in top if file.stem in USUAL]
    files = usual or [file for file in top if file.name == ANNOTATIONS] or top
    if folder.name == ROBOFLOW and files:
        return Layout("Roboflow CSV", "csv", {folder.parent.name: Place(folder, (folder.parent,))})
    if files:
        named = {ALL if file.name == ANNOTATIONS else file.stem: file for file in files}
        splits = {name: Place(f, image_folders(f.parent, name)) for name, f in named.items()}
        return Layout("CSV", "csv", splits)
    files = [file for file in sorted(folder.glob(f"*/{ROBOFLOW}")) if _is_table(file)]
    if files:
        splits = {file.parent.name: Place(file, (file.parent,)) for file in files}
        return Layout("Roboflow CSV", "csv", splits)
    return None


def _is_table(file):
    """Whether the first line names most of the columns; that others are missing is an error."""
    with open(file, "rb") as stream:
        line = stream.readline(HEADER).decode("utf-8-sig", "replace")
    return len(_columns(line)[1].keys() - SIDES) >= len(CORNERS)


def _columns(text):
    """Returns the delimiter of a first line, the columns that are known, and the names of all."""
    line = next(iter(text.splitlines()), "")
    delimiter = max(DELIMITERS, key=line.count)
    written = [name.strip() for name in next(csv_reader([line], delimiter=delimiter), [])]
    lower = [name.lower() for name in written]
    known = {
        column: lower.index(name)
        for column, names in COLUMNS.items()
        for name in reversed(names)
        if name in lower
    }
    return delimiter, known, written


@no_collecting()
def from_place(
    place: Place,
    name: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
) -> DetectionData:
    """Reads a split as `find` has found it; the data are called `name`."""
    rows, findings = _read(place.annotations)
    if class_names is None:
        class_names = _class_names(place.annotations, rows)
    images, found = _images(rows, place)
    others = _without_rows(rows, place)
    examples, written, unfit = with_boxes([*images, *others], class_names)
    return assembled(
        name,
        class_names,
        examples,
        written,
        findings + found + unfit,
        skip_bad,
        check_files,
        {"images_without_a_row": len(others)},
    )


def _read(file):
    """Returns the rows of a CSV, and findings on lines that are none."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error}") from error
    rows, findings, line = [], [], 1
    try:
        delimiter, known, written = _columns(text[:HEADER])
        missing = [column for column in COLUMNS if column not in (*known, *SIDES)]
        if missing:
            has = f"{', '.join(written):.400}" or "none"
            raise ValueError(f"{file} has no column {', '.join(missing)}; it has {has}")
        reader = csv_reader(io.StringIO(text, newline=""), delimiter=delimiter)
        next(reader)
        line = reader.line_num + 1  # where a row begins; it may have several lines
        for fields in reader:
            row, problem = _row(line, fields, known), None
            if any(field.strip() for field in fields[len(written) :]):
                problem = f"{len(fields)} fields, but the header has {len(written)}"
            elif any(map(str.strip, fields)) and not row.image:
                problem = "it names no image"
            if problem:
                findings.append(Finding("entry", str(file), f"line {line}", problem))
            elif row.image:
                rows.append(row)
            line = reader.line_num + 1
    except CSVError as error:
        raise ValueError(f"{file}, line {line}: {error}") from error
    return rows, findings


def _row(line, fields, known):
    texts = [
        fields[i].strip() if (i := known.get(c, HEADER)) < len(fields) else "" for c in COLUMNS
    ]
    return Row(line, texts[0], tuple(texts[1:5]), texts[5], tuple(texts[6:]))


def _class_names(file, rows):
    """Returns the names of all classes in the CSVs of all splits, sorted."""
    layout = find(file.parent.parent if file.name == ROBOFLOW else file.parent)
    files = {place.annotations for place in layout.splits.values()} if layout else set()
    found = [rows]
    for other in sorted(files - {file}) if file in files else ():
        try:
            found.append(_read(other)[0])
        except (OSError, ValueError):  # said where that split is read
            continue
    return sorted({row.label for rows in found for row in rows if row.has_box} - {""})


def _images(rows, place):
    """Returns examples with the boxes of each, and findings on other images."""
    file, images, findings = place.annotations, [], []
    paths = image_paths(dict.fromkeys(row.image for row in rows), place.images)
    groups = collections.defaultdict(list)
    for row in rows:
        groups[paths[row.image] or row.image].append(row)
    for number, (path, own) in enumerate(groups.items(), 1):
        first, problem = f"line {own[0].line}: {own[0].image!r:.200}", None
        try:
            height, width = _size(own)
        except ValueError as error:
            problem = "image size", f"{first}: {error}"
        if paths[own[0].image] is None:
            problem = "missing file", f"{first} leads out of the data set"
        if problem:
            findings.append(Finding(problem[0], str(file), None, problem[1]))
            continue
        boxes = [_box(row, file) for row in own if row.has_box]
        images.append((Example(number, path, height, width, *NO_BOXES), boxes))
    return images, findings


def _size(rows):
    sizes = dict.fromkeys(row.sides for row in rows)
    if len(sizes) > 1:
        raise ValueError(f"its rows have {len(sizes)} sizes: {list(sizes)!r:.80}")
    return [pixels(text, side) for text, side in zip(rows[0].sides, SIDES, strict=True)]


def _box(row, file):
    corners, problem = (), None
    try:
        corners = tuple(finite(t, name) for t, name in zip(row.corners, CORNERS, strict=True))
    except ValueError as error:
        problem = str(error)
    return WrittenBox(
        f"{file.name} line {row.line}", row.label, ", ".join(row.corners), corners, problem
    )


def _without_rows(rows, place):
    """Returns the images of Roboflow's folder of a split that have no row: they show nothing."""
    folder = place.annotations.parent
    if place.annotations.name != ROBOFLOW or folder not in place.images:
        return []
    names = dict.fromkeys(row.image for row in rows)
    named = set(image_paths(names, place.images).values())
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
    others = [file for file in files if file not in named and not file.name.startswith(".")]
    return [(Example(i, f, 0, 0, *NO_BOXES), []) for i, f in enumerate(others, len(names) + 1)]
