"""Reader of data sets with annotations in COCO's JSON."""

import gc
import json
from pathlib import Path

import numpy as np

from libra_keras.data.checks import Finding
from libra_keras.data.cleaning import clean
from libra_keras.data.coco_entries import (
    annotation_problem,
    is_id,
    is_number,
    sound_categories,
    sound_images,
)
from libra_keras.data.examples import DetectionData, Example

KEYS = ("images", "annotations", "categories")


def coco(
    folder=None,
    split=None,
    annotation_file=None,
    image_folder=None,
    skip_bad=False,
    check_files=True,
):
    """Reads a data set with annotations in COCO's JSON.

    Looks for `<folder>/annotations/instances_<split>.json` or `<folder>/instances_<split>.json`,
    and for images in `<folder>/<split>` or `<folder>/images/<split>`; either can be given
    explicitly instead. Labels `0..K-1` are the category ids in ascending order. Crowds (and boxes
    with a true `"ignore"`) are not trained on; the evaluation treats crowds as COCO defines, and
    `"ignore"` as VOC defines difficult objects.
    Boxes are clipped to their image for training, and left out there if a side is at most 1 px,
    be it 0 (COCO's train2017 has two such boxes); the evaluation has the JSON's own boxes.

    Args:
        folder: path of the data set.
        split: str, such as `"train2017"`.
        annotation_file: path of the JSON, where it lies elsewhere.
        image_folder: path of the images, where they lie elsewhere.
        skip_bad: bool, whether bad boxes and files are dropped and counted instead of raising.
        check_files: bool, whether image files must exist with readable headers. Those of images
            without height and width in the JSON must in any case.

    Returns:
        `DetectionData`. Its `annotations` is the JSON, less what `skip_bad` dropped.

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
    if folder is None and (annotation_file is None or image_folder is None):
        raise ValueError("Expected `folder` and `split`, or `annotation_file` and `image_folder`")
    file, image_folder = _find(folder, split, annotation_file, image_folder)
    return from_content(load(file), file, image_folder, split or file.stem, skip_bad, check_files)


def from_content(content, file, image_folder, name, skip_bad=False, check_files=True):
    """Makes a data set of what a JSON of COCO's holds.

    Args:
        content: dict as `load` returns it.
        file: path of the JSON, or what else findings shall name.
        image_folder: path of the images.
        name: str, the data set's.
        skip_bad: as for `coco`.
        check_files: as for `coco`.

    Returns:
        `DetectionData`.
    """
    annotations, findings = _sound(_completed(content), file)
    names = {entry["id"]: entry["name"] for entry in annotations["categories"]}
    examples, box_names, found = _examples(annotations, image_folder, sorted(names), file)
    examples, counts, findings = clean(
        examples,
        len(names),
        findings + found,
        skip_bad,
        check_files,
        Path(file).name,
        box_names,
    )
    if any(not finding.is_warning for finding in findings):
        annotations = _without_bad(annotations, examples, findings)
    return DetectionData(
        name,
        tuple(names[i] for i in sorted(names)),
        tuple(sorted(names)),
        examples,
        annotations,
        counts=counts,
        findings=findings,
        headers_checked=check_files,
    )


def _find(folder, split, annotation_file, image_folder):
    """Returns the paths of the JSON and of the folder of images."""
    folder = Path(folder or ".").expanduser()
    name = f"instances_{split}.json"
    files = [annotation_file] if annotation_file else [folder / "annotations" / name, folder / name]
    folders = [image_folder] if image_folder else [folder / str(split), folder / f"images/{split}"]
    found = []
    for what, paths in (("a COCO annotation file", files), ("a folder of images", folders)):
        there = [Path(path) for path in paths if Path(path).exists()]
        if not there:
            places = " or ".join(str(path) for path in paths)
            raise FileNotFoundError(f"Expected {what} at {places}")
        found.append(there[0])
    return found


def load(file):
    """Reads a JSON and makes sure that it is COCO's: a dict with the lists of `KEYS`."""
    collecting = gc.isenabled()
    gc.disable()  # it would go through millions of new objects, again and again, to free none
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    finally:
        if collecting:
            gc.enable()
    is_dict = isinstance(content, dict)
    wrong = [key for key in KEYS if not is_dict or not isinstance(content.get(key), list)]
    if wrong:
        has = sorted(content) if is_dict else f"a {type(content).__name__}"
        raise ValueError(f"{file} is not COCO's JSON: expected lists {wrong}. Received: {has}")
    for key, needed in (("images", {"id", "file_name"}), ("categories", {"id"})):
        for i, entry in enumerate(content[key]):
            if not isinstance(entry, dict) or not needed <= entry.keys():
                raise ValueError(
                    f"{file} is not COCO's JSON: {key}[{i}] has no {sorted(needed)}: {entry!r:.200}"
                )
    return content


def _completed(content):
    """Fills in what pycocotools needs and many tools do not write: ids, areas, crowd flags."""
    rows = [row if isinstance(row, dict) else {} for row in content["annotations"]]
    ids = [row.get("id") for row in rows]
    # An id of 0 means "no match" to pycocotools, and of two equal ids it knows only one.
    usable = all(is_id(i) and i > 0 for i in ids) and len(set(ids)) == len(ids)
    if usable and all(None not in (row.get("iscrowd"), row.get("area")) for row in rows):
        return content
    completed = []
    for position, row in enumerate(rows, 1):
        row = {**row, "id": row["id"] if usable else position}
        if row.get("iscrowd") is None:
            row["iscrowd"] = 0
        if row.get("area") is None:
            width, height = _numbers(row.get("bbox"))[2:]
            row["area"] = width * height if is_number(width * height) else 0.0
        completed.append(row)
    return {**content, "annotations": completed}


def _numbers(bbox):
    """Returns the four numbers of a box, NaN where it has none."""
    if isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox)):
        return [float(value) for value in bbox]
    return [np.nan] * 4


def _sound(content, file):
    """Leaves out the images and categories that cannot be used: the content, and findings."""
    rows = content["annotations"]
    used = {row["category_id"] for row in rows if is_id(row.get("category_id"))}
    images, found = sound_images(content["images"], file)
    categories, findings = sound_categories(content["categories"], used, file)
    if found:  # a box that goes with its image is no finding of its own
        gone = {image["id"] for image in content["images"] if is_id(image["id"])}
        gone -= {image["id"] for image in images}
        rows = [r for r in rows if not is_id(r.get("image_id")) or r["image_id"] not in gone]
    sound = {"images": images, "annotations": rows, "categories": list(categories.values())}
    return {**content, **sound}, found + findings


def _examples(content, image_folder, category_ids, file):
    """Returns raw `Example`s, the names of their boxes, and findings on boxes left out."""
    labels = {category: label for label, category in enumerate(category_ids)}
    rows = {image["id"]: [] for image in content["images"]}
    files = {image["id"]: str(image_folder / image["file_name"]) for image in content["images"]}
    findings = []
    for row in content["annotations"]:
        image, category = row.get("image_id"), row.get("category_id")
        if not is_id(image) or image not in rows:
            message = f"there is no image of id {image!r:.80}"
            findings.append(Finding("image id", str(file), _name(row), message))
        elif not is_id(category) or category not in labels:
            message = f"category id {category!r:.80} is not one with a name in the file"
            findings.append(Finding("class", files[image], _name(row), message))
        elif problem := annotation_problem(row):
            findings.append(Finding("not a number", files[image], _name(row), problem))
        else:
            rows[image].append(row)
    examples, names = [], []
    for image in content["images"]:
        own = rows.pop(image["id"], [])  # a second image of the same id, a finding, has none
        names.append([_name(row) for row in own])
        examples.append(_example(image, own, labels, image_folder))
    return examples, names, findings


def _name(row):
    return f"annotation {row['id']}"


def _example(image, rows, labels, image_folder):
    boxes = np.array([_numbers(row.get("bbox")) for row in rows], "float64").reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Example(
        image["id"],
        image_folder / image["file_name"],
        int(image.get("height") or 0),
        int(image.get("width") or 0),
        boxes.astype("float32"),
        np.array([labels[row["category_id"]] for row in rows], "int32"),
        np.array([bool(row["iscrowd"] or row.get("ignore")) for row in rows], bool),
    )


def _without_bad(content, examples, findings):
    """Drops from the JSON what was dropped from the examples, so that evaluation agrees."""
    bad = {finding.box for finding in findings if not finding.is_warning}
    ids = {example.image_id for example in examples}
    images = {image["id"]: image for image in reversed(content["images"]) if image["id"] in ids}
    rows = [row for row in content["annotations"] if _name(row) not in bad]
    return {
        **content,
        "images": list(reversed(images.values())),
        "annotations": [row for row in rows if row["image_id"] in ids],
    }
