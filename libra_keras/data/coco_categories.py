"""Which categories of COCO's JSON are classes."""

from libra_keras.data.coco_entries import is_id
from libra_keras.data.findings import Finding

SHOWN = 3  # names of categories


def without_groups(categories, used, used_elsewhere, file):
    """Leaves out the categories that do no more than group others.

    Roboflow writes one: the name of the project, without a box, as the supercategory of all
    classes. COCO's "person", its own supercategory, is none.

    Args:
        categories: list of dicts with `"id"`.
        used: set of the ids of categories that have boxes.
        used_elsewhere: function without arguments, called if there seems to be such a category. It
            returns the ids and names, a set of tuples, of the categories that have boxes in the
            other splits: all splits of a data set are to have the same classes.
        file: path of the JSON, named in findings.

    Returns:
        Tuple of the other categories, and a list of `Finding`, warnings.
    """
    groups = [(entry, _members(entry, categories)) for entry in categories]
    groups = [(e, members) for e, members in groups if members and e["id"] not in used]
    if not groups:
        return categories, []
    elsewhere, names = used_elsewhere(), [entry.get("name") for entry in categories]
    left_out, findings = [], []
    for entry, members in groups:
        name = entry["name"]
        by_name = names.count(name) == 1 and name in {used_name for _, used_name in elsewhere}
        if by_name or (entry["id"], name) in elsewhere:
            continue
        left_out.append(id(entry))
        listed = ", ".join(map(repr, members[:SHOWN])) + ", ..." * (len(members) > SHOWN)
        why = (
            f"category {entry['id']}, {name!r}, is left out: it has no box in any split, and is "
            f"the supercategory of {listed}"
        )
        findings.append(Finding("empty class", str(file), None, why))
    return [entry for entry in categories if id(entry) not in left_out], findings


def _members(entry, categories):
    """The names of the other categories whose supercategory an entry is."""
    name = entry.get("name")
    if not is_id(entry["id"]) or not isinstance(name, str) or entry.get("supercategory") == name:
        return []
    others = (each for each in categories if each["id"] != entry["id"])
    return [each.get("name") for each in others if each.get("supercategory") == name]


def used_categories(content):
    """Returns the ids and names, a set of tuples, of the categories that have boxes.

    Example:

    >>> from libra_keras.data.coco_categories import used_categories
    >>> categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    >>> used_categories({"categories": categories, "annotations": [{"category_id": 2}]})
    {(2, 'dog')}
    """
    used = used_ids(content["annotations"])
    named = [e for e in content["categories"] if isinstance(e.get("name"), str)]
    return {(e["id"], e["name"]) for e in named if is_id(e["id"]) and e["id"] in used}


def used_ids(rows):
    """Returns the ids of the categories that annotations have, as a set."""
    ids = (row.get("category_id") for row in rows if isinstance(row, dict))
    return {category for category in ids if is_id(category)}


def sound_categories(categories, used, file):
    """Finds the categories that cannot be classes: without a name, or one of another's id or name.

    Of two categories of one name the one that has boxes is a class.

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
            has = f"its name is {name!r:.80}" if "name" in entry else "it has no name"
            why = f"category {category}: {has}"
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
