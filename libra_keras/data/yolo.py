"""Reader of data sets in YOLO format: a text file of boxes per image, as fractions of it."""

import collections
import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from libra_keras.data.assembly import NO_BOXES, assembled
from libra_keras.data.checks import NUM_THREADS, header_findings, read_headers
from libra_keras.data.collecting import no_collecting
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Finding, Written
from libra_keras.data.layouts import ALL, Layout, Place, chosen
from libra_keras.data.text_lines import NO_TEXT, no_text, read_lines
from libra_keras.data.yolo_folders import (
    first_source,
    images_of_folder,
    images_of_listing,
    is_listing,
    labels_without_image,
    possible_sources,
    read_yaml,
    starts,
    values,
)
from libra_keras.data.yolo_labels import read_labels
from libra_keras.files.reading import explained

YAMLS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
NAMES, CLASSES = "obj.names", "classes.txt"  # of CVAT's older form, and of Label Studio
OTHERS = ("path", "names", "download")  # that may name a file, too
SPLITS = ("train", "val", "valid", "validation", "test")  # keys of a YAML


def yolo(
    folder: str | Path,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
    allow_outside: bool = False,
) -> DetectionData:
    """Reads a data set in YOLO format: a text file per image, a line per box.

    A line is `class center_x center_y width height`, the latter as fractions of the image. A
    polygon (the class and at least four points) becomes its bounding box; a sixth number is taken
    for a confidence, with a warning. With `kpt_shape` in the YAML, what follows the box is left
    out. The labels of `.../images/a.jpg` are in `.../labels/a.txt`, or beside the image. An image
    without such a file has no objects.

    Supported are folders with `data.yaml` or `dataset.yaml` (Ultralytics, Roboflow, CVAT), with
    `obj.names` and `obj_<split>_data` (CVAT's YOLO 1.1), and with `classes.txt`, `images` and
    `labels` (Label Studio, whose only split is `"all"`). Fractions do not reveal the size, so the
    headers of all images are read.

    Boxes are clipped to the image, and left out if a side is at most 1 px. Of identical lines, only
    the first counts. The image's id is its position in the sorted split, from 1.

    Args:
        folder: path of the data set, or of its YAML.
        split: str, a key of the YAML, such as `"val"`, or a name as in `obj_<split>_data`.
        class_names: names in the order of the labels. Defaults to those of the files.
        skip_bad: bool, whether bad lines and files are dropped and counted instead of raising.
        check_files: bool, without effect: all files are opened for their size.
        allow_outside: bool, whether to read listed images outside of the folder and of the `path`
            in the YAML. Folders and lists that the YAML itself names may be anywhere.

    Returns:
        `DetectionData`; its `annotations` are made from these boxes.

    Raises:
        FileNotFoundError: if the folder has none of these layouts, or a path in the YAML does not
            exist.
        ValueError: if there is no such split; if there are no names of classes; if lines or files
            are bad and `skip_bad` is false.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from libra_keras.data import yolo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("images", "labels"):
    ...         pathlib.Path(folder, name).mkdir()
    ...     Image.new("RGB", (30, 20)).save(f"{folder}/images/a.png")
    ...     _ = pathlib.Path(folder, "labels/a.txt").write_text("0 0.5 0.5 0.2 0.4")
    ...     _ = pathlib.Path(folder, "data.yaml").write_text("train: images\\nnames: [cat]")
    ...     data = yolo(folder)
    >>> data.class_names, data.examples[0].boxes.tolist()
    (('cat',), [[12.0, 6.0, 18.0, 14.0]])
    """
    folder = Path(folder).expanduser()
    layout = find(folder)
    if layout is None:
        raise FileNotFoundError(
            f"Expected a YOLO data set: data.yaml or dataset.yaml in {folder}, obj.names and "
            "obj_<split>_data/, or classes.txt, images/ and labels/"
        )
    place, name = chosen(layout, folder, split, allow_outside)
    return from_place(place, name, class_names, skip_bad, check_files)


def find(folder: Path) -> Layout | None:
    """Returns the layout in YOLO format that a folder, or the folder of a file, has."""
    names = [folder.name] if folder.is_file() else [*YAMLS, NAMES, CLASSES]
    top = folder.parent if folder.is_file() else folder
    files = [top / name for name in names if (top / name).is_file()]
    yamls = [file for file in files if file.suffix in (".yaml", ".yml")]
    found = _of_yaml(yamls[0]) if yamls else None
    if found is None and top / NAMES in files:
        ends = "obj_", "_data"
        folders = [each.name for each in sorted(top.glob("*".join(ends))) if each.is_dir()]
        keys = [name.removeprefix(ends[0]).removesuffix(ends[1]) for name in folders]
        splits = {key: Place(top / NAMES, part=key) for key in keys}
        found = Layout("CVAT YOLO 1.1", "yolo", splits) if splits else None
    if found is None and top / CLASSES in files and (top / "labels").is_dir():
        found = Layout("Label Studio YOLO", "yolo", {ALL: Place(top / CLASSES)})
    return found


def _of_yaml(file):
    content = read_yaml(file)
    splits = {key: Place(file, part=key) for key in content if _is_split(file, content, key)}
    title = "Roboflow YOLO" if "roboflow" in content else "Ultralytics YOLO"
    return Layout(title, "yolo", splits) if splits else None


def _is_split(file, content, key):
    found = values(content, key)
    if key == "test" and found:  # Roboflow names one that it may not have written
        return any(first_source(possible_sources(file, content, value)) for value in found)
    # CVAT has a list for each subset, whatever that is called.
    is_listed = key not in OTHERS and all(value.endswith(".txt") for value in found)
    return bool(found) and (key in SPLITS or is_listed)


@no_collecting()
def from_place(
    place: Place,
    name: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
) -> DetectionData:
    """Reads a split as `find` has found it; the data are called `name`.

    The images of a place are those that a user names instead of the data set's own.
    """
    file = place.annotations
    content = {} if file.name in (NAMES, CLASSES) else read_yaml(file)
    class_names = _class_names(file, content) if class_names is None else list(class_names)
    pairs, findings = _pairs(place, content)
    every = _labels(pairs, len(class_names), "kpt_shape" in content)
    findings += [finding for labels in every for finding in labels.findings]
    own = [i for i, labels in enumerate(every) if labels.file or not pairs[i].needs_labels]
    used = [i for i in own if every[i].is_readable]
    examples = [Example(i + 1, Path(pairs[i].image), 0, 0, *NO_BOXES) for i in used]
    examples, lines, missing, warnings = _with_boxes(examples, [every[i].lines for i in used])
    return assembled(
        name,
        class_names,
        examples,
        Written(lambda i, box: f"line {lines[i][box].number}", lambda i, box: lines[i][box].text),
        findings + missing,
        skip_bad,
        headers_checked=True,
        counts={
            "polygons_as_boxes": sum(labels.num_polygons for labels in every),
            "duplicate_lines": sum(labels.num_duplicates for labels in every),
            "images_without_a_label_file": sum(every[i].file is None for i in used),
            "images_left_out_for_want_of_a_label_file": len(every) - len(own),
        },
        warnings=warnings + _of_confidences(every),
    )


def _class_names(file, content):
    """Returns the names in a YAML, or in a text file of theirs."""
    text = file.name in (NAMES, CLASSES)
    names = _text(file) if text else content.get("names")
    if isinstance(names, dict):
        numbers = [str(i) for i in range(len(names))]
        names = [names.get(i) for i in numbers]
    while text and names and not names[-1]:
        names.pop()
    is_list = isinstance(names, list) and all(map(_is_name, names))
    if not names or not is_list:
        expected = "a name per line" if text else "`names`, a list or a dict from 0 on"
        raise ValueError(
            f"{file}: expected {expected}. Or name the classes with --classes (in Python "
            "`class_names`)"
        )
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{file}: names of classes must differ. Received twice: {twice!r:.80}")
    number = content.get("nc")
    if isinstance(number, str) and number.strip() != str(len(names)):
        raise ValueError(f"{file}: nc is {number!r:.80}, but there are {len(names)} names")
    return names


def _text(file):
    lines = [line.strip() for line in read_lines(file)]
    for number, line in enumerate(lines, 1):
        if problem := no_text(line):
            raise ValueError(f"{file}, line {number}: {problem}")
    return lines


def _is_name(name):
    return isinstance(name, str) and bool(name.strip()) and not NO_TEXT.search(name)


def _pairs(place, content):
    """Returns the images of a split and where their labels lie, sorted, and findings."""
    top, pairs, findings = place.annotations.parent, [], []
    sources = _sources(place, content)
    for source in sources:
        if is_listing(source):
            above = starts(place.annotations, content)
            with explained(place.annotations, "followed"):
                listed, found = images_of_listing(source, above, place.images, place.allow_outside)
            pairs += listed
            findings += found
        else:
            pairs += images_of_folder(source, place.images)
    pairs = {pair.image: pair for pair in pairs}
    pairs = [pairs[image] for image in sorted(pairs)]
    message = "it is a label file without an image"
    for file in labels_without_image(pairs, sources, top):
        findings.append(Finding("missing file", file, None, message))
    return pairs, findings


def _sources(place, content):
    """Returns the folders and lists of the images of a split."""
    file, key = place.annotations, place.part
    if file.name == CLASSES:
        return [file.parent / "images"]
    if file.name == NAMES:
        listing = file.parent / f"{key}.txt"
        return [listing if listing.is_file() else file.parent / f"obj_{key}_data"]
    sources = []
    for value in values(content, key):
        tried = possible_sources(file, content, value)
        sources.append(first_source(tried))
        if sources[-1] is None:
            paths = ", ".join(map(str, tried))
            raise FileNotFoundError(f"{file}: {key}: {value!r:.200} does not exist. Tried {paths}")
    return sources


def _labels(pairs, num_classes, has_points):
    def read(pair):
        return read_labels(pair.labels, num_classes, has_points)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(read, pairs))


def _with_boxes(examples, lines):
    """Gives boxes in pixels to the examples whose file has a size: these, their lines, findings
    on the others, and warnings."""
    headers = read_headers(examples)
    sized = [_sized(*each) for each in zip(examples, lines, headers, strict=True)]
    found = header_findings(sized, headers)
    gone = {i for i, finding in found if not finding.is_warning}
    kept = [i for i in range(len(sized)) if i not in gone]
    warnings = [finding for i, finding in found if i not in gone]
    missing = [finding for i, finding in found if i in gone]
    return [sized[i] for i in kept], [lines[i] for i in kept], missing, warnings


def _sized(example, lines, header):
    if isinstance(header, Exception):
        return example
    height, width, _ = header
    corners = np.array([line.corners for line in lines], "float64").reshape(-1, 4)
    return dataclasses.replace(
        example,
        height=height,
        width=width,
        boxes=(corners * [width, height, width, height]).astype("float32"),
        labels=np.array([line.label for line in lines], "int32"),
        ignore=np.zeros(len(lines), bool),
    )


def _of_confidences(every):
    """Warns once of lines with a sixth number."""
    found = [labels for labels in every if labels.confidences]
    if not found:
        return []
    number = sum(len(labels.confidences) for labels in found)
    message = f"{number} lines have a sixth number, a confidence: are these predictions?"
    first = found[0]
    return [Finding("confidence", str(first.file), f"line {first.confidences[0]}", message)]
