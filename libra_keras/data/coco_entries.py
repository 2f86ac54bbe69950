"""The entries of COCO's JSON: what cannot be used is a finding; which categories are classes."""

import collections
import itertools
import math
import os

from libra_keras.data.findings import Finding

SHOWN = 3  # names of categories


def is_id(value):
    """Whether a value of a JSON can be an id: an integer of 64 bits, and not `true`."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_number(value):
    """Whether a value of a JSON is a finite number, and not `true`."""
    return type(value) is float and math.isfinite(value) or is_id(value)


def is_box(value):
    """Whether a value of a JSON is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def _is_name(value, encode=str.encode):
    """Whether a value of a JSON is text with something to see that can be written elsewhere."""
    try:
        return isinstance(value, str) and bool(value.strip()) and b"\0" not in encode(value)
    except UnicodeEncodeError:  # half of a character
        return False


def _is_side(value):
    """Whether a value of a JSON is a number of pixels, or 0, which says nothing."""
    return is_number(value) and 0 <= value < 2**31 and value == int(value)


def sound_images(images, file):
    """Returns the entries of `"images"` that readers can use, and findings on the others."""
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
    if not isinstance(entry, dict):
        return "entry", f"it is {entry!r:.80}, not an object"
    if missing := [key for key in ("id", "file_name") if key not in entry]:
        return "entry", f"it has no {' and no '.join(missing)}: {entry!r:.200}"
    image_id, name = entry["id"], entry["file_name"]
    if not is_id(image_id):
        return "image id", f"its id, {image_id!r:.80}, is not an integer"
    if not _is_name(name, os.fsencode):
        return "missing file", f"the file_name of image {image_id}, {name!r:.80}, is not a name"
    for key in ("height", "width"):
        value = entry.get(key)
        if value is not None and not _is_side(value):
            return "image size", f"the {key} of {name}, {value!r:.80}, is not a number of pixels"


def completed(rows, file):
    """Fills in ids, areas and crowd flags for pycocotools: rows, names by new ids, findings."""
    ids = [row.get("id") if isinstance(row, dict) else None for row in rows]
    # An id of 0 means "no match" to pycocotools, and of two equal ids it knows only one.
    usable = all(is_id(i) and i > 0 for i in ids) and len(set(ids)) == len(ids)
    if usable and all(None not in (row.get("iscrowd"), row.get("area")) for row in rows):
        return rows, {}, []
    found, names, findings = [], {}, []
    for position, row in enumerate(rows):
        name = f"annotations[{position}]"
        if not isinstance(row, dict):
            findings.append(Finding("entry", str(file), name, f"it is {row!r:.80}, not an object"))
            continue
        if not usable:
            names[position + 1] = name + (f" (id {row['id']!r:.80})" if "id" in row else "")
            row = {**row, "id": position + 1}
        found.append(_with_defaults(row))
    return found, names, findings


def _with_defaults(row):
    row = {**row}
    if row.get("iscrowd") is None:
        row["iscrowd"] = 0
    if row.get("area") is None:
        width, height = row["bbox"][2:] if is_box(row.get("bbox")) else (0, 0)
        area = float(width) * float(height)
        row["area"] = area if math.isfinite(area) else 0.0
    return row


def annotation_problem(row):
    """Returns what is wrong with the box, the area or the flags of an annotation, or `None`."""
    if "bbox" not in row:
        return 'it has no "bbox"'
    if not is_box(row["bbox"]):
        return f"its bbox is {row['bbox']!r:.80}, not four numbers"
    if not (is_number(row["area"]) and row["area"] >= 0):
        return f"its area is {row['area']!r:.80}, not a number of pixels"
    for key in ("iscrowd", "ignore"):
        if row.get(key) not in (None, 0, 1):
            return f"its {key} is {row[key]!r:.80}, not 0 or 1"


def with_ids(categories, file):
    """Returns the categories that have ids, and findings on the others."""
    sound, findings = [], []
    for position, entry in enumerate(categories):
        if not isinstance(entry, dict):
            why = f"it is {entry!r:.80}, not an object"
        elif not is_id(entry.get("id")):
            name, category = entry.get("name"), entry.get("id")
            why = f"({name!r:.80}): its id, {category!r:.80}, is not an integer"
        else:
            sound.append(entry)
            continue
        findings.append(Finding("category", str(file), None, f"categories[{position}] {why}"))
    return sound, findings


def without_groups(categories, used, used_elsewhere, file):
    """Leaves out the categories that do no more than group others: the rest, and findings."""
    # Roboflow writes one: the name of the project, without a box, as the supercategory of all
    # classes. COCO's "person", its own supercategory, is none. All splits are to have the same
    # classes, so that those used elsewhere, pairs of id and name, are asked for then.
    below = collections.defaultdict(list)
    for entry in categories:
        if _is_name(entry.get("supercategory")):
            below[entry["supercategory"]].append(entry)
    groups = [(entry, _members(entry, below)) for entry in categories]
    groups = [(e, members) for e, members in groups if members and e["id"] not in used]
    if not groups:
        return categories, []
    elsewhere = used_elsewhere()
    names_elsewhere = {name for _, name in elsewhere}
    counts = collections.Counter(e["name"] for e in categories if _is_name(e.get("name")))
    left_out, findings = set(), []
    for entry, members in groups:
        name = entry["name"]
        by_name = counts[name] == 1 and name in names_elsewhere
        if by_name or (entry["id"], name) in elsewhere:
            continue
        left_out.add(id(entry))
        listed = ", ".join(map(repr, members[:SHOWN])) + ", ..." * (len(members) > SHOWN)
        why = (
            f"category {entry['id']}, {name!r}, is left out: it has no box in any split, and is "
            f"the supercategory of {listed}"
        )
        findings.append(Finding("empty class", str(file), None, why))
    return [entry for entry in categories if id(entry) not in left_out], findings


def _members(entry, below):
    """Some names of the other categories whose supercategory an entry is."""
    name = entry.get("name")
    if not _is_name(name) or entry.get("supercategory") == name:
        return []
    others = (each.get("name") for each in below.get(name, ()) if each["id"] != entry["id"])
    return list(itertools.islice(others, SHOWN + 1))


def used_categories(content):
    """Returns the ids and names, a set of tuples, of the categories that have boxes."""
    used = used_ids(content["annotations"])
    categories, _ = with_ids(content["categories"], "")
    named = [entry for entry in categories if _is_name(entry.get("name"))]
    return {(entry["id"], entry["name"]) for entry in named if entry["id"] in used}


def used_ids(rows):
    """Returns the ids of the categories that annotations have, as a set."""
    ids = (row.get("category_id") for row in rows if isinstance(row, dict))
    return {category for category in ids if is_id(category)}


def sound_categories(categories, used, file):
    """Returns the categories that can be classes, by their ids, and findings on the others."""
    findings = []
    ids = {}
    for entry in categories:
        category, name = entry["id"], entry.get("name")
        if not _is_name(name):
            has = f"its name is {name!r:.80}" if "name" in entry else "it has no name"
            why = f"category {category}: {has}"
        elif category in ids:
            why = f"category {category}: its id is also that of {ids[category]['name']!r}"
        else:
            ids[category] = entry
            continue
        findings.append(Finding("category", str(file), None, why))
    first = {}
    # Of two categories of one name the one that has boxes is a class.
    for category in sorted(ids, key=lambda i: i not in used):  # a stable sort
        name = ids[category]["name"]
        if first.setdefault(name, category) != category:
            why = f"category {category}: its name, {name!r}, is also that of {first[name]}"
            findings.append(Finding("category", str(file), None, why))
    return {i: ids[i] for i in first.values()}, findings
