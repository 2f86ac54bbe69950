"""From what a user calls a data set to a `DetectionData`: shapes, a tool's folder, TFDS."""

import collections
import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from libra_keras.data.coco import from_place as read_coco
from libra_keras.data.csv_table import find as find_csv
from libra_keras.data.csv_table import from_place as read_csv
from libra_keras.data.cvat import find as find_cvat
from libra_keras.data.cvat import from_place as read_cvat
from libra_keras.data.examples import DetectionData
from libra_keras.data.findings import empty_classes
from libra_keras.data.layouts import Layout, Place, find_coco, find_voc, image_folders
from libra_keras.data.shapes import shapes
from libra_keras.data.tfds import splits_with_annotations, tfds
from libra_keras.data.voc import voc
from libra_keras.data.yolo import find as find_yolo
from libra_keras.data.yolo import from_place as read_yolo

# What the splits of a data set are usually called, best first.
USUAL = {
    "train": ("train", "trainval", "train2017", "train2014", "training"),
    "val": ("val", "val2017", "val2014", "valid", "validation", "test"),
}
TFDS = "tfds:"  # before a name of TensorFlow Datasets
FINDERS = {
    "coco": find_coco,
    "voc": find_voc,
    "yolo": lambda folder: _listed(find_yolo(folder)),
    "cvat": lambda folder: _listed(find_cvat(folder)),
    "csv": lambda folder: _listed(find_csv(folder)),
}
READERS = {"yolo": read_yolo, "cvat": read_cvat, "csv": read_csv}
SUFFIXES = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".xml": "cvat", ".csv": "csv"}
# What a folder must hold.
FORMS = {
    "coco": "annotations/instances_<split>.json (or instances_<split>.json) with images in "
    "<split>/, images/<split>/ or images/; <split>/_annotations.coco.json; labels.json and data/; "
    "result.json and images/",
    "voc": "Annotations/*.xml and JPEGImages/ or images/, with or without "
    "ImageSets/Main/<split>.txt; <split>/*.xml or *.xml beside their images",
    "yolo": "data.yaml or dataset.yaml; obj.names and obj_<split>_data/; classes.txt, images/ and "
    "labels/",
    "cvat": "annotations.xml and images/",
    "csv": "*.csv or <split>/*.csv with the columns image, x1, y1, x2, y2, class",
}
NOWHERE = Place(Path())  # of data that are no files of the user
SHOWN = 3  # names of files of a kind
ROBOFLOW_COPY = re.compile(r"\.rf\.[0-9A-Za-z]{16,}(?=\.\w+$)")  # `.rf.<hash>` in a name


def load(
    where: str | Path,
    split: str | None = None,
    role: str = "train",
    form: str = "auto",
    skip_bad: bool = False,
    annotations: str | Path | None = None,
    corners: str = "auto",
    images: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    val_fraction: float | None = None,
    allow_outside: bool = False,
) -> DetectionData:
    """Reads one split of a data set in any supported format.

    Args:
        where: `"shapes"`, a folder as annotation tools write it (COCO, Pascal VOC, YOLO, CVAT, CSV;
            detected automatically), or `"tfds:<name>"`.
        split: str, or `None` for the split that is usually called so, or for the only one. A
            number is that many of the drawn scenes, of those held out if the role is `"val"`.
        role: `"train"` or `"val"`, which usual names are looked for, and which part of a split is
            read if it is divided.
        form: `"coco"`, `"voc"`, `"yolo"`, `"cvat"` or `"csv"`, if more than one fits.
        skip_bad: bool, whether bad boxes and files are dropped and counted.
        annotations: path of the annotations, if they are not in the usual place; `{split}` in it
            stands for the name of a split. For TFDS data, COCO's original JSON.
        corners: `"pixels"` or `"edges"`, what the corners in VOC's files are, or `"auto"`; see
            `data.voc`.
        images: path of the image folder, if it is not the usual one; `{split}` as above.
        class_names: names in the order of the labels, if the files have none or another order.
        val_fraction: share of a split to measure on, such as 0.2, if there is only one. The hash
            of its path below the folder decides where an image goes, so that others may be added.
        allow_outside: bool, whether to read images whose names in the annotations lead out of the
            image folder (`../a.jpg`, `/photos/a.jpg`).

    Returns:
        `DetectionData`.

    Raises:
        ValueError: if the data do not exist, two layouts fit, an option does not apply to them, or
            they are bad and `skip_bad` is false.

    Example:

    >>> from libra_keras import data
    >>> data.load("shapes", "4", role="val").summary()
    'shapes/val: 4 images, 27 boxes, 6 classes'
    """
    where = os.path.expanduser(where)
    layout = find_layout(where, form, annotations, images)
    said = None if corners == "auto" else corners
    _check_options(where, layout.form, said, images, class_names, annotations, allow_outside)
    split = split or usual_split(layout, where, role, val_fraction is not None)
    if layout.form == "shapes":
        found = shapes(role, int(split)) if split.isdecimal() else shapes(split)
    elif layout.form == "tfds":
        name = where.removeprefix(TFDS)
        found = tfds(name, split, annotations=annotations, skip_bad=skip_bad)
    elif split not in layout.splits:
        raise ValueError(f"{where} has no split {split!r}. It is {layout}")
    elif layout.form == "voc":
        elsewhere = layout.splits[split].images[0] if images else None
        options = class_names, None, skip_bad, True, corners, elsewhere, allow_outside
        found = voc(where, split, *options)
    else:
        name = f"{short_name(where)}/{split}"
        place = dataclasses.replace(layout.splits[split], allow_outside=allow_outside)
        if layout.form == "coco":
            found = read_coco(place, name, skip_bad)
        else:
            found = READERS[layout.form](place, name, class_names, skip_bad)
    if val_fraction is None:
        return found
    roots = [data_folder(where), *(layout.splits[split].images if images else ())]
    return divided(found, role, val_fraction, roots)


def data_folder(where: str | Path) -> Path:
    """Returns the folder of a data set, of which DATA may also be a file: COCO's lie in
    `annotations`, beside the images."""
    path = Path(where).expanduser()
    if not path.is_file():
        return path
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def find_layout(
    where: str | Path,
    form: str = "auto",
    annotations: str | Path | None = None,
    images: str | Path | None = None,
) -> Layout:
    """Finds out how a data set is laid out, from names of files and what little must be read."""
    if where == "shapes":
        return Layout("Drawn scenes", "shapes", dict.fromkeys(("train", "val"), NOWHERE))
    if str(where).startswith(TFDS):
        splits = splits_with_annotations(str(where).removeprefix(TFDS))
        return Layout("TFDS", "tfds", dict.fromkeys(splits, NOWHERE))
    folder = Path(where).expanduser()
    if folder.is_file() and annotations is None:
        folder, annotations = data_folder(where), folder
    if not folder.is_dir():
        raise ValueError(
            f"DATA must be 'shapes', an existing folder, or tfds:<name>. Received: {str(where)!r}"
        )
    found = _given(folder, annotations, form) if annotations else _found(folder, form)
    return _with_images(found, images) if images else found


def _found(folder, form):
    if form not in ("auto", *FINDERS):
        raise ValueError(f"`form` must be auto or one of {', '.join(FINDERS)}. Received: {form!r}")
    forms = FINDERS if form == "auto" else {form: FINDERS[form]}
    found = [layout for find in forms.values() for layout in find(folder)]
    if len(found) == 1:
        return found[0]
    if not found:
        expected = "\n".join(f"  {name}: {FORMS[name]}" for name in forms)
        raise ValueError(
            f"no data found in {folder}, which contains {_content(folder)}. Expected one of these "
            f"(or name the file with --annotations, and the images with --images):\n{expected}"
        )
    forms = sorted({layout.form for layout in found})
    option = "--format " + " or ".join(forms) if len(forms) > 1 else "--annotations FILE"
    fitting = "; and ".join(map(str, found))
    raise ValueError(f"{folder} can be read in {len(found)} ways: {fitting}. Choose with {option}")


def _given(folder, annotations, form):
    """The layout of annotations that a user has named."""
    text = os.path.expanduser(annotations)
    suffix = Path(text).suffix.lower()
    form = SUFFIXES.get(suffix) if form == "auto" else form
    if form == "voc":
        raise ValueError(f"data in VOC format must be a folder of files. Received: {text!r}")
    if form not in SUFFIXES.values():
        kinds = ", ".join(SUFFIXES)
        raise ValueError(f"DATA or --annotations must name a file of {kinds}. Received: {text!r}")
    files = _files(text)
    if form == "coco" or (form == "csv" and len(files) > 1):
        places, title = {name: Place(file) for name, file in files.items()}, form.upper()
    else:
        places, title = _places(files, form, "{split}" in text)
    if form == "yolo":  # which says itself where its images are
        return Layout(title, form, places)
    splits = {
        name: dataclasses.replace(place, images=(*image_folders(folder, name), *place.images))
        for name, place in places.items()
    }
    return Layout(title, form, splits)


def _places(files, form, are_splits):
    """The splits of files of a form that has its own, or is one split each; and a title."""
    layouts = {name: layout for name, file in files.items() for layout in FINDERS[form](file)}
    for name, file in files.items():
        if name not in layouts:
            raise ValueError(f"{file} does not have the format {form!r}, or names no split")
        if are_splits and len(layouts[name].splits) > 1:
            raise ValueError(f"{file} has splits of its own, {layouts[name]}: name it alone")
    title = next(iter(layouts.values())).title
    places = {
        name if are_splits else own: place
        for name, layout in layouts.items()
        for own, place in layout.splits.items()
    }
    return places, title


def _files(text):
    """The files of a path in which `{split}` may stand for names, by these."""
    before, mark, after = text.partition("{split}")
    if not mark:
        found = {Path(text).stem.removeprefix("instances_"): Path(text)}
    else:
        paths = glob.glob(f"{glob.escape(before)}*{glob.escape(after)}")
        found = {path[len(before) : len(path) - len(after)]: Path(path) for path in paths}
    if not found or not all(file.is_file() for file in found.values()):
        raise ValueError(f"--annotations must name an existing file. Received: {text!r}")
    return found


def _with_images(layout, images):
    places = {
        name: dataclasses.replace(place, images=(_folder(str(images).replace("{split}", name)),))
        for name, place in layout.splits.items()
    }
    return dataclasses.replace(layout, splits=places)


def _folder(path):
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ValueError(f"--images must name an existing folder. Received: {path!r}")
    return folder


def _content(folder):
    """What a folder holds, for a message."""
    kinds, folders = collections.defaultdict(list), []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            folders.append(f"{entry.name}/")
        else:
            kinds[entry.suffix.lower() or "(no suffix)"].append(entry.name)
    parts = [f"{len(names)} {suffix} ({_some(names)})" for suffix, names in kinds.items()]
    return ", ".join([*parts, *([f"the folders {_some(folders)}"] if folders else [])]) or "nothing"


def _some(names):
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)


def _check_options(where, form, corners, images, class_names, annotations, allow_outside):
    """Refuses options that are not for such data."""
    folders = ("coco", "voc", "yolo", "cvat", "csv")
    for option, value, forms, what in (
        ("--annotations", annotations, ("tfds", *folders), "data in files"),
        ("--corners", corners, ("voc",), "folders in VOC format"),
        ("--images", images, folders, "folders"),
        ("--allow-outside", allow_outside or None, folders, "folders"),
        ("--classes", class_names, folders[1:], "folders in formats other than COCO's"),
    ):
        if value is not None and form not in forms:
            raise ValueError(f"{option} only applies to {what}. Received: DATA {where!r} ({form})")


def usual_split(layout: Layout, where: str | Path, role: str, is_divided: bool = False) -> str:
    """Returns the first split of a data set whose name is usual for its role, or the only one."""
    lower = {name.lower(): name for name in layout.splits}
    usual = next((lower[name] for name in USUAL[role] if name in lower), None)
    others = [name for other in USUAL.values() for name in other]
    if is_divided and len(lower) > 1:
        raise ValueError(
            f"--val-fraction divides the only split, or the one that --train-split or --split "
            f"names. {where} has {', '.join(layout.splits)}"
        )
    if usual is None and len(lower) == 1 and (is_divided or not lower.keys() & set(others)):
        usual = next(iter(layout.splits))
    if usual is None:
        option = f"--split, or --{role}-split of libra-keras train"
        raise ValueError(
            f"name a split of {where} with {option}; it has {', '.join(layout.splits)}"
        )
    return usual


def divided(
    data: DetectionData, role: str, val_fraction: float, roots: Sequence[Path]
) -> DetectionData:
    """Returns the part of a split that is learned from, or that is measured on."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"--val-fraction must be between 0 and 1. Received: {val_fraction}")
    is_val = role == "val"
    folders = [Path(os.path.abspath(root)) for root in roots]  # however they were spelled
    chosen = [
        i for i, e in enumerate(data.examples) if _is_val(e.file, folders, val_fraction) == is_val
    ]
    if not chosen and len(data):
        purpose = "measure on" if is_val else "learn from"
        raise ValueError(
            f"--val-fraction {val_fraction} leaves none of the {len(data)} images of {data.name} "
            f"to {purpose}"
        )
    note = f"{role} part of {len(data)} images, --val-fraction {val_fraction:g}"
    part = data.subset(chosen)
    name, told = f"{data.name}/{role}", {finding.message for finding in data.findings}
    found = empty_classes(name, part.examples, data.class_names)  # all boxes may be in the other
    findings = [*data.findings, *(finding for finding in found if finding.message not in told)]
    return dataclasses.replace(part, name=name, notes=(*data.notes, note), findings=findings)


def _is_val(file, folders, fraction):
    """Decides by the name alone, so that an image stays where it is when others come or go, and
    Roboflow's augmented copies of one photograph stay together."""
    path = Path(os.path.abspath(file))
    root = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
    name = ROBOFLOW_COPY.sub("", path.relative_to(root).as_posix())
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:4]) < fraction * 2**32


def short_name(where):
    """Returns a name for folders of runs."""
    if where.startswith(TFDS):
        return where.removeprefix(TFDS).replace("/", "-")
    return data_folder(where).resolve().name


def is_voc(where, form="auto", annotations=None):
    """Whether data are in Pascal VOC format, whose AP is then measured too."""
    if str(where).startswith(TFDS):
        return str(where).startswith(f"{TFDS}voc/")
    return Path(where).expanduser().exists() and find_layout(where, form, annotations).form == "voc"


def _listed(layout):
    return [] if layout is None else [layout]
