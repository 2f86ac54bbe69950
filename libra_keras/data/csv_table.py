"""Reader of tables: a CSV with a box per row."""

import collections
from collections.abc import Sequence
from csv import Error as CSVError
from csv import reader as csv_reader
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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
    outside,
    visible,
)
from libra_keras.data.text_lines import no_text, read_lines
from libra_keras.data.written_numbers import finite, pixels
from libra_keras.files.image_files import IMAGE_SUFFIXES
from libra_keras.files.reading import is_regular, open_regular

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
HEADER = 2**16  # bytes of a first line; more fields than it has are in no row


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
    allow_outside: bool = False,
) -> DetectionData:
    """Reads a CSV with a box per row, and a header: `image,x1,y1,x2,y2,class` in any order.

    Coordinates are the edges of boxes in pixels. `filename`, `xmin`, `ymin`, `xmax` and `ymax` are
    recognised too, and so are `width` and `height` of the image, which are compared with the file;
    other columns are ignored. A row without a box is an image without objects. Fields are separated
    by `,` `;` or tabs.

    Files are `<folder>/<split>.csv`, a single CSV of any name, `annotations.csv` (whose split is
    `"all"`), or `<folder>/<split>/_annotations.csv` (Roboflow), where an image in the folder
    without a row has no objects. Images are beside the CSV, in `<split>/`, `images/` or
    `images/<split>/`.

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
        allow_outside: bool, whether to read images whose names lead out of the folder.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a column is missing; if there is no such split; if rows or files are bad and
            `skip_bad` is false.

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
    place, name = chosen(layout, folder, split, allow_outside)
    return from_place(place, name, class_names, skip_bad, check_files)


def find(folder: Path) -> Layout | None:
    """Returns the layout of CSVs that a folder has, or the folder of one."""
    top = [folder] if folder.is_file() else sorted(visible(folder, "*.csv"))
    top = [file for file in top if _is_table(file)]
    usual = [file for file in top if _split(file) in USUAL]
    files = usual or [file for file in top if file.name == ANNOTATIONS] or top
    if folder.name == ROBOFLOW and files:
        return Layout("Roboflow CSV", "csv", {folder.parent.name: Place(folder, (folder.parent,))})
    if files:
        named = {ALL if file.name == ANNOTATIONS else _split(file): file for file in files}
        splits = {name: Place(f, image_folders(f.parent, name)) for name, f in named.items()}
        return Layout("CSV", "csv", splits)
    files = [file for file in sorted(visible(folder, f"*/{ROBOFLOW}")) if _is_table(file)]
    if files:
        splits = {file.parent.name: Place(file, (file.parent,)) for file in files}
        return Layout("Roboflow CSV", "csv", splits)
    return None


def _split(file):
    """`train` of `train.csv`, and of `train_labels.csv`, as TensorFlow's tutorials have it."""
    stem = file.stem.removesuffix("_labels").removesuffix("_annotations")
    return stem if stem in USUAL else file.stem


def _is_table(file):
    """Whether the first line names most of the columns; that others are missing is an error."""
    if not is_regular(file):
        return False
    with open_regular(file) as stream:
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
    lines = read_lines(file)
    first = lines[0][:HEADER] if lines else ""
    if problem := no_text(first):
        raise ValueError(f"{file}, line 1: {problem}")
    delimiter, known, written = _columns(first)
    missing = [column for column in COLUMNS if column not in (*known, *SIDES)]
    if missing:
        has = f"{', '.join(written):.400}" or "none"
        raise ValueError(f"{file} has no column {', '.join(missing)}; it has {has}")
    rows, findings = [], []
    for line, fields, error in _fields(lines, delimiter):
        row = _row(line, fields, known)
        problem = error or _problem(row, fields, len(written))
        if problem:
            findings.append(Finding("entry", str(file), f"line {line}", problem))
        elif row.image:
            rows.append(row)
    return rows, findings


def _fields(lines, delimiter):
    """Yields the number of the first line of each row below the header, its fields, and `None` or
    why it has none: such a row costs its first line alone, whatever a quote in it opens."""
    row = 1
    while row < len(lines):
        start = row
        rest = (lines[i] for i in range(start, len(lines)))
        reader = csv_reader(rest, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                yield row + 1, fields, None
                row = start + reader.line_num
        except CSVError as error:
            yield row + 1, [], str(error)
            row += 1


def _problem(row, fields, number):
    """What is wrong with a row of a table that has such a number of columns, or `None`."""
    if problem := no_text("".join(fields)):
        return problem
    if any(field.strip() for field in fields[number:]):
        return f"{len(fields)} fields, but the header has {number}"
    if any(map(str.strip, fields)) and not row.image:
        return "it does not name an image"
    return None


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
    names = dict.fromkeys(row.image for row in rows)
    paths = image_paths(names, place.images, place.allow_outside)
    groups = collections.defaultdict(list)
    for row in rows:
        groups[paths[row.image] or row.image].append(row)
    for number, (path, own) in enumerate(groups.items(), 1):
        line, name = f"line {own[0].line}", own[0].image
        if paths[name] is None:
            findings.append(outside(file, line, name))
            continue
        if len(written := {PurePosixPath(row.image.replace("\\", "/")) for row in own}) > 1:
            message = f"{line}: it is what {sorted(map(str, written))!r:.200} lead to"
            findings.append(Finding("duplicate image", str(path), None, message))
            continue
        try:
            height, width = _size(own)
        except ValueError as error:
            message = f"{line}: {name!r:.200}: {error}"
            findings.append(Finding("image size", str(file), None, message))
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
