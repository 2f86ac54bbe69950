"""The fields of COCO's JSON that other code computes with: those of a wrong type are findings."""

import math

from libra_keras.data.checks import Finding


def is_id(value):
    """Whether a value of a JSON can be an id: an integer of 64 bits, and not `true`."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_number(value):
    """Whether a value of a JSON is a finite number, and not `true`."""
    return type(value) is float and math.isfinite(value) or is_id(value)


def sound_images(images, file):
    """Finds the entries of `"images"` that no reader can use.

    Args:
        images: list of dicts with `"id"` and `"file_name"`.
        file: path of the JSON, named in findings.

    Returns:
        Tuple of the other entries, and a list of `Finding`.
    """
    sound, findings = [], []
    for position, entry in enumerate(images):
        problem = _image_problem(entry)
        if problem:
            message = f"images[{position}]: {problem[1]}"
            findings.append(Finding(problem[0], str(file), None, message))
        else:
            sound.append(entry)
    return sound, findings


def _image_problem(entry):
    """Returns the kind of a finding and its message, or `None`."""
    image_id, name = entry["id"], entry["file_name"]
    if not is_id(image_id):
        return "image id", f"its id, {image_id!r:.80}, is no integer"
    if not isinstance(name, str) or not name.strip():
        return "missing file", f"the file_name of image {image_id}, {name!r:.80}, is no name"
    for key in ("height", "width"):
        value = entry.get(key)
        if value is not None and not (is_number(value) and value >= 0):
            return "image size", f"the {key} of {name}, {value!r:.80}, is no number of pixels"


def sound_categories(categories, used, file):
    """Finds the categories that cannot be classes: without a name, or one of another's id or name.

    Of two categories of one name the one that has boxes is a class: some tools write an empty
    category of the data set's name before the real ones.

    Args:
        categories: list of dicts with `"id"`.
        used: set of the ids of categories that have boxes.
        file: path of the JSON, named in findings.

    Returns:
        Tuple of a dict from id to entry, and a list of `Finding`.
    """
    findings = []
    ids = {}
    for position, entry in enumerate(categories):
        category, name = entry["id"], entry.get("name")
        if not is_id(category):
            why = f"categories[{position}] ({name!r:.80}): its id, {category!r:.80}, is no integer"
        elif not isinstance(name, str) or not name.strip():
            why = f"category {category}: it has no name"
        elif category in ids:
            why = f"category {category}: its id is also that of {ids[category]['name']!r}"
        else:
            ids[category] = entry
            continue
        findings.append(Finding("category", str(file), None, why))
    first = {}
    for category in sorted(ids, key=lambda i: i not in used):  # a stable sort
        name = ids[category]["name"]
        if first.setdefault(name, category) != category:
            why = f"category {category}: its name, {name!r}, is also that of {first[name]}"
            findings.append(Finding("category", str(file), None, why))
    return {i: ids[i] for i in first.values()}, findings


def annotation_problem(row):
    """Returns what is wrong with the area or the flags of an annotation, or `None`."""
    if not is_number(row["area"]):
        return f"its area is {row['area']!r:.80}"
    for key in ("iscrowd", "ignore"):
        if row.get(key) not in (None, 0, 1):
            return f"its {key} is {row[key]!r:.80}, not 0 or 1"
