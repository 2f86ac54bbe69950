"""Reader of data sets with annotations in COCO's JSON."""

import dataclasses
import os
import reprlib
from pathlib import Path

import numpy as np

from libra_keras.data.checks import clean
from libra_keras.data.coco_entries import (
    annotation_problem,
    completed,
    is_id,
    sound_categories,
    sound_images,
    used_categories,
    used_ids,
    with_ids,
    without_groups,
)
from libra_keras.data.collecting import no_collecting
from libra_keras.data.examples import DetectionData, Example
from libra_keras.data.findings import Finding, Written
from libra_keras.data.layouts import (
    SAMPLED,
    Place,
    find_coco,
    image_folders,
    image_paths,
    outside,
    visible,
)
from libra_keras.files.reading import explained, memory, read_json

KEYS = ("images", "annotations", "categories")


def coco(
    folder: str | Path | None = None,
    split: str | None = None,
    annotation_file: str | Path | None = None,
    image_folder: str | Path | None = None,
    skip_bad: bool = False,
    check_files: bool = True,
    allow_outside: bool = False,
) -> DetectionData:
    """Reads a data set with annotations in COCO's JSON.

    Known layouts are COCO's own (`annotations/instances_<split>.json` or `instances_<split>.json`;
    images in `<split>/`, `images/<split>/` or `images/`, where CVAT has them), Roboflow's
    (`<split>/_annotations.coco.json` beside the images), FiftyOne's (`labels.json` and `data/`) and
    Label Studio's (`result.json` and `images/`); JSON and images can be given explicitly instead.
    Image names may contain folders and backslashes. For names that lead out of the folder, the last
    part is tried.

    Labels `0..K-1` are the category ids in ascending order. A category without
    a box in any split (the JSONs beside this one, or of its name in the folders beside its own)
    is left out if it is the supercategory of another: Roboflow writes one. Crowds (and boxes
    with a true `"ignore"`) are not trained on; the evaluation treats crowds as COCO defines, and
    `"ignore"` as VOC defines difficult objects.
    Boxes are clipped to their image for training, and left out there if a side is at most 1 px,
    including 0 (COCO's train2017 has two such boxes); the evaluation uses the JSON's own boxes.

    Args:
        folder: path of the data set.
        split: str, such as `"train2017"`; `"all"` where the tool names none.
        annotation_file: path of the JSON, if it is elsewhere.
        image_folder: path of the images, if they are elsewhere.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers. Those of images
            without height and width in the JSON must in any case.
        allow_outside: bool, whether to read images whose names lead out of the folder.

    Returns:
        `DetectionData`. Its `annotations` is the JSON, without what `skip_bad` dropped.

    Raises:
        FileNotFoundError: if there is no JSON, or no folder of images.
        ValueError: if the file is not COCO's JSON; if annotations or files are bad and
            `skip_bad` is false.

    Example:

    >>> import json, pathlib, tempfile
    >>> from PIL import Image
    >>> from libra_keras.data import coco
    >>> annotations = {
    ...     "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
    ...     "categories": [{"id": 3, "name": "cat"}],
    ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [2, 4, 10, 8]}],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (30, 20)).save(f"{folder}/a.png")
    ...     file = pathlib.Path(folder, "mine.json")
    ...     _ = file.write_text(json.dumps(annotations))
    ...     data = coco(annotation_file=file, image_folder=folder)
    >>> data.class_names, data.examples[0].boxes.tolist()
    (('cat',), [[2.0, 4.0, 12.0, 12.0]])
    """
    if annotation_file is None or image_folder is None:
        if folder is None:
            raise ValueError(
                "Expected `folder` and `split`, or `annotation_file` and `image_folder`"
            )
        place = _find(Path(folder).expanduser(), split, annotation_file)
    else:
        place = Place(Path(annotation_file).expanduser())
    if image_folder is not None:
        place = dataclasses.replace(place, images=(Path(image_folder).expanduser(),))
    place = dataclasses.replace(place, allow_outside=allow_outside)
    return from_place(place, split or place.annotations.stem, skip_bad, check_files)


def from_place(place, name, skip_bad=False, check_files=True):
    """Reads a split of a `Layout`."""
    file = place.annotations
    if not file.exists():
        raise FileNotFoundError(f"Expected a COCO annotation file at {file}")
    content = load(file)
    if not _has_images(content, place):
        raise FileNotFoundError(
            "Expected a folder of images, which --images (in Python `image_folder`) names, at "
            + " or ".join(map(str, place.images))
        )
    return from_content(content, place, name, skip_bad, check_files)


def _has_images(content, place):
    """Whether a folder of images is there; that of the data set itself always is, and is one only
    if some names of images start from it."""
    *folders, last = place.images or (None,)
    if not folders:
        return last is not None and last.exists()
    if any(folder.exists() for folder in folders):
        return True
    entries = (entry for entry in content["images"][:SAMPLED] if isinstance(entry, dict))
    names = [entry["file_name"] for entry in entries if isinstance(entry.get("file_name"), str)]
    paths = image_paths(names, [last], place.allow_outside).values()
    return any(path is not None and os.path.isfile(path) for path in paths)


@no_collecting()
def from_content(content, place, name, skip_bad=False, check_files=True):
    """Makes a data set of what `load` returns; findings name the file of the `Place`."""
    file = place.annotations
    with explained(file):  # values may be nested so deeply that they cannot be shown
        rows, names, findings = completed(content["annotations"], file)
        annotations, paths, found = _sound({**content, "annotations": rows}, place)
        findings += found
        class_names = {entry["id"]: entry["name"] for entry in annotations["categories"]}
        ids = sorted(class_names)
        examples, kept_rows, found = _examples(annotations, paths, ids, file, names)
    examples, counts, findings = clean(
        examples,
        [class_names[i] for i in ids],
        _written(kept_rows, names),
        findings + found,
        skip_bad,
        check_files,
        file.name,
    )
    if any(not finding.is_warning for finding in findings):
        annotations = _without_bad(annotations, examples, findings, names)
    return DetectionData(
        name,
        tuple(class_names[i] for i in ids),
        tuple(ids),
        examples,
        annotations,
        counts=counts,
        findings=findings,
        headers_checked=check_files,
    )


def _find(folder, split, annotation_file):
    """Returns the `Place` of a split, with another JSON if one is given."""
    if annotation_file is not None:
        return Place(Path(annotation_file).expanduser(), image_folders(folder, str(split)))
    layouts = find_coco(folder)
    for layout in layouts:
        if split in layout.splits:
            return layout.splits[split]
    there = "; ".join(map(str, layouts)) or "no data in COCO format"
    raise FileNotFoundError(
        f"Expected a COCO annotation file at {folder / f'annotations/instances_{split}.json'} or "
        f"{folder / f'instances_{split}.json'}, or one of another tool. Found: {there}"
    )


def load(file):
    """Reads a JSON and makes sure that it is COCO's: a dict with the lists of `KEYS`."""
    with no_collecting(), explained(file):
        return _checked(read_json(file, memory()), file)


def _checked(content, file):
    is_dict = isinstance(content, dict)
    wrong = [key for key in KEYS if not is_dict or not isinstance(content.get(key), list)]
    if wrong:
        has = sorted(content) if is_dict else content
        raise ValueError(
            f"{file} is not COCO's JSON: expected lists {wrong}. Received: {reprlib.repr(has)}"
        )
    return content


def _sound(content, place):
    """Leaves out the images and categories that cannot be used: the content, paths of images by
    their written names, and findings."""
    file, rows = place.annotations, content["annotations"]
    used = used_ids(rows)
    images, found = sound_images(content["images"], file)
    names = (image["file_name"] for image in images)
    paths = image_paths(names, place.images, place.allow_outside)
    left_out = [image for image in images if paths[image["file_name"]] is None]
    found += [outside(file, f"image {image['id']}", image["file_name"]) for image in left_out]
    images = [image for image in images if paths[image["file_name"]] is not None]
    categories, findings = with_ids(content["categories"], file)
    categories, groups = without_groups(categories, used, lambda: _used_elsewhere(file), file)
    categories, others = sound_categories(categories, used, file)
    findings += others + groups
    if found:  # a box that goes with its image is no finding of its own
        gone = {image["id"] for image in with_ids(content["images"], file)[0]}
        gone -= {image["id"] for image in images}
        rows = [r for r in rows if not is_id(r.get("image_id")) or r["image_id"] not in gone]
    sound = {"images": images, "annotations": rows, "categories": list(categories.values())}
    return {**content, **sound}, paths, found + findings


def _used_elsewhere(file):
    """The categories that have boxes in the JSONs of the other splits; see `used_categories`."""
    file, found = file.absolute(), set()
    pattern = "instances_*.json" if file.name.startswith("instances_") else "*.json"
    own, beside = visible(file.parent, pattern), visible(file.parent.parent, f"*/{file.name}")
    others = {*own, *beside} - {file}
    for other in filter(Path.is_file, sorted(others)):
        try:
            found |= used_categories(load(other))
        except (OSError, ValueError):  # said where that split is read; or it is no split
            continue
    return found


def _examples(content, paths, category_ids, file, names):
    """Returns raw `Example`s, the rows of their boxes, and findings on boxes left out."""
    labels = {category: label for label, category in enumerate(category_ids)}
    rows = {image["id"]: [] for image in content["images"]}
    files = {image["id"]: str(paths[image["file_name"]]) for image in content["images"]}
    findings = []
    for row in content["annotations"]:
        image, category = row.get("image_id"), row.get("category_id")
        if not is_id(image) or image not in rows:
            has = f"there is no image with id {image!r:.80}"
            message = has if "image_id" in row else 'it has no "image_id"'
            findings.append(Finding("image id", str(file), _name(row, names), message))
        elif not is_id(category) or category not in labels:
            has = f"category id {category!r:.80} is not one with a name in the file"
            message = has if "category_id" in row else 'it has no "category_id"'
            findings.append(Finding("class", files[image], _name(row, names), message))
        elif problem := annotation_problem(row):
            findings.append(Finding("not a number", files[image], _name(row, names), problem))
        else:
            rows[image].append(row)
    examples, kept_rows = [], []
    for image in content["images"]:
        own = rows.pop(image["id"], [])  # a second image of the same id, a finding, has none
        kept_rows.append(own)
        examples.append(_example(image, own, labels, paths[image["file_name"]]))
    return examples, kept_rows, findings


def _name(row, names):
    return names.get(row["id"], f"annotation {row['id']}")


def _written(kept_rows, names):
    """What the JSON says of the boxes, from the rows of each image."""
    every = [row for rows in kept_rows for row in rows]
    flags = {"crowds": "iscrowd", "ignored": "ignore"}
    called = [what for what, flag in flags.items() if any(row.get(flag) for row in every)]
    return Written(
        lambda image, box: _name(kept_rows[image][box], names),
        lambda image, box: f"bbox {kept_rows[image][box]['bbox']!r}",
        " or ".join(called) or "ignored",
        bool(every) and all(0 <= number <= 1 for row in every for number in row["bbox"]),
    )


def _example(image, rows, labels, path):
    boxes = np.array([row["bbox"] for row in rows], "float64").reshape(-1, 4)
    with np.errstate(over="ignore"):  # infinite is found
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype("float32")
    return Example(
        image["id"],
        path,
        int(image.get("height") or 0),
        int(image.get("width") or 0),
        boxes,
        np.array([labels[row["category_id"]] for row in rows], "int32"),
        np.array([bool(row["iscrowd"] or row.get("ignore")) for row in rows], bool),
    )


def _without_bad(content, examples, findings, names):
    """Drops from the JSON what was dropped from the examples, so that evaluation agrees."""
    bad = {finding.box for finding in findings if not finding.is_warning}
    ids = {example.image_id for example in examples}
    images = {image["id"]: image for image in reversed(content["images"]) if image["id"] in ids}
    rows = [row for row in content["annotations"] if _name(row, names) not in bad]
    return {
        **content,
        "images": list(reversed(images.values())),
        "annotations": [row for row in rows if row["image_id"] in ids],
    }
