"""Errors of a detector by kind, and the AP that fixing each kind would add."""

import dataclasses
from typing import Any

import numpy as np

from libra_keras.evaluation.matches import Columns, Overlaps, average_precision, match, mean_or_none

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU
FALSE_POSITIVES = ("class", "location", "both", "duplicate", "background")
KINDS = (*FALSE_POSITIVES, "missed")
CLASS, LOCATION, BOTH, DUPLICATE, NOWHERE = range(len(FALSE_POSITIVES))


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """Every error of a detector on a data set, and what each kind costs.

    Args:
        ap50: AP at IoU 0.5, `None` without objects.
        costs: dict of dicts by kind, `"class"`, `"location"`, `"both"`, `"duplicate"`,
            `"background"`, `"missed"`, and for all `"false_positives"` and all `"false_negatives"`:
            `"count"`, and `"delta_ap50"`, the AP that fixing this kind alone would add.
        false_positives: columns of arrays, best score first: `"kind"` (position in the first five
            kinds), `"score"`, `"label"`, `"box"` `(x, y, width, height)`, `"image_id"`, `"iou"`
            with the object that decided the kind (for a background: that it overlaps most),
            and `"object"`, the position of this object in `Overlaps.truth`, or -1.
        missed: columns of the missed objects: `"label"`, `"box"`, `"image_id"`,
            `"object"`, and `"iou"` with the detection, of whatever class, that overlaps it most.
        class_names: tuple of str.
    """

    ap50: float | None
    costs: dict[str, dict[str, Any]]
    false_positives: Columns
    missed: Columns
    class_names: tuple[str, ...]

    def worst(self, most: int = 8) -> dict[str, list[dict]]:
        """Returns the errors of each kind to look at first, as rows for JSON.

        These are the false positives with the highest scores, and the largest missed objects.
        """
        chosen = {}
        for kind, name in enumerate(FALSE_POSITIVES):
            places = np.flatnonzero(self.false_positives["kind"] == kind)[:most]
            chosen[name] = self._rows(self.false_positives, places, name)
        sizes = np.prod(self.missed["box"][:, 2:], -1)
        largest = np.argsort(-sizes, kind="stable")[:most]
        return {**chosen, "missed": self._rows(self.missed, largest, "missed")}

    def _rows(self, columns, places, kind):
        rows = []
        for i in places.tolist():
            row = {name: values[i].tolist() for name, values in columns.items()}
            rows.append({**row, "kind": kind, "class": self.class_names[row["label"]]})
        return rows


def errors_by_kind(given: Overlaps) -> Errors:
    """Sorts false positives and missed objects by what is wrong with them, as TIDE does.

    A detection that is wrong at IoU 0.5 gets the first kind that applies. `"location"`: its overlap
    with objects of its own class is 0.1 to below 0.5. `"class"`: its overlap with one of another
    class is at least 0.5. `"duplicate"`: its overlap with one of its own class, which has a better
    detection, is at least 0.5. `"background"`: its overlap with all objects is below 0.1. `"both"`,
    class and location: all others. An object without a detection is `"missed"`, unless it is the
    one that an error of class or location overlaps most.

    Fixing an error of class or location makes it right, if its object is still free and no such
    error on it (of either kind) has a higher score; otherwise it is dropped, as all other false
    positives are. Missed objects need no longer be found. `"false_positives"` fixes all wrong
    detections by dropping them, `"false_negatives"` all objects without a detection by not counting
    them.

    Differs from the authors' tool, tidecv 1.0.1: matches, crowds, ignored objects and the AP are
    pycocotools', as everywhere in this package (100 detections of a class in an image rather than
    of all; of equal overlaps the last object; a class without objects does not enter the mean). A
    detection that does not count because it lies on an ignored object is no error; the tool can
    turn it into a hit. A duplicate at exactly 0.5 is a duplicate, not an error of location. A class
    for which fixing leaves nothing to find and no wrong detection has an AP of 1; the tool would
    drop it from the mean.

    Args:
        given: `Overlaps` of detections with annotations. A class that the detector does not know
            counts like any other: its objects are missed, or errors of class.

    Returns:
        `Errors`. Without objects, AP and costs are `None`.

    Example:

    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation import errors_by_kind, overlaps
    >>> row = {"image_id": 7, "category_id": 3}
    >>> annotations = {
    ...     "images": [{"id": 7, "height": 60, "width": 80}],
    ...     "annotations": [{**row, "id": 1, "bbox": [0, 0, 40, 40]}],
    ...     "categories": [{"id": 3, "name": "cat"}],
    ... }
    >>> data = DetectionData("one cat", ("cat",), (3,), [], annotations)
    >>> found = [{**row, "bbox": [0, 0, 40, 10], "score": 0.9}]  # IoU 0.25
    >>> errors = errors_by_kind(overlaps(data, found))
    >>> errors.ap50, errors.costs["location"], errors.costs["missed"]["count"]
    (0.0, {'count': 1, 'delta_ap50': 1.0}, 0)

    Reference: [Bolya et al., 2020](https://arxiv.org/abs/2008.08115), sections 2.2 and 2.3.
    """
    matches = match(given, FOREGROUND)
    is_free = ~given.truth["is_ignored"]
    is_free[matches.object[matches.is_right]] = False
    kind, target, iou = _kinds(given, matches)
    # Of the errors on an object the first, which has the highest score, becomes its detection.
    mendable = np.flatnonzero((kind == CLASS) | (kind == LOCATION))
    mendable = mendable[is_free[target[mendable]]]
    covered, first = np.unique(target[mendable], return_index=True)
    is_missed = is_free.copy()
    is_missed[covered] = False
    ap50, costs = _costs(given, matches, kind, (mendable[first], covered), is_free, is_missed)
    wrong, missed = np.flatnonzero(matches.is_wrong), np.flatnonzero(is_missed)
    decided = {"iou": iou[wrong], "object": target[wrong]}
    false_positives = {"kind": kind[wrong], "score": given.found["score"][wrong], **decided}
    _, nearest = _largest(given, np.full(len(given.pairs["iou"]), True), "truth")
    return Errors(
        ap50,
        costs,
        {**false_positives, **_places(given, given.found, wrong)},
        {"object": missed, "iou": nearest[missed], **_places(given, given.truth, missed)},
        given.data.class_names,
    )


def _kinds(given, matches):
    """Kind (-1: none), deciding object (-1: none) and overlap with it of every detection."""
    to_find = ~given.truth["is_ignored"][given.pairs["truth"]]
    own_at, own_iou = _largest(given, to_find & given.is_own_class, "found")
    other_at, other_iou = _largest(given, to_find & ~given.is_own_class, "found")
    rules = {
        LOCATION: (own_iou >= BACKGROUND) & (own_iou < FOREGROUND),
        CLASS: other_iou >= FOREGROUND,
        DUPLICATE: own_iou >= FOREGROUND,
        NOWHERE: np.maximum(own_iou, other_iou) < BACKGROUND,
    }
    kind = np.select(list(rules.values()), list(rules), BOTH)
    by_own = (kind == LOCATION) | (kind == DUPLICATE)
    by_own |= (kind == NOWHERE) & (own_iou >= other_iou)
    kind[~matches.is_wrong] = -1
    return kind, np.where(by_own, own_at, other_at), np.where(by_own, own_iou, other_iou)


def _largest(given, chosen, side):
    """For each detection or object: the partner it overlaps most among some pairs, and the IoU."""
    num, other = len(getattr(given, side)["label"]), {"found": "truth", "truth": "found"}[side]
    mine, partner, iou = (given.pairs[name][chosen] for name in (side, other, "iou"))
    order = np.lexsort((partner, -iou, mine))  # of equal overlaps the first partner
    owners, first = np.unique(mine[order], return_index=True)
    at, best = np.full(num, -1), np.zeros(num)
    at[owners], best[owners] = partner[order][first], iou[order][first]
    return at, best


def _costs(given, matches, kind, repairs, is_free, is_missed):
    """The AP, and by kind how often it is there and by how much the AP rises without it.

    `repairs` are the detections that mending turns right, and the objects that they then find.
    """
    labels, right, wrong = given.found["label"], matches.is_right, matches.is_wrong
    had = given.num_objects()
    new, turned = labels.copy(), np.zeros(len(labels), bool)
    new[repairs[0]], turned[repairs[0]] = given.truth["label"][repairs[1]], True
    mended = {}
    for number, name in enumerate(FALSE_POSITIVES):
        is_it = kind == number
        columns = np.where(is_it, new, labels), right | (turned & is_it), wrong & ~is_it
        mended[name] = is_it, (*columns, had)
    mended["missed"] = is_missed, (labels, right, wrong, had - given.num_objects(is_missed))
    mended["false_positives"] = wrong, (labels, right, np.zeros_like(wrong), had)
    found = had - given.num_objects(is_free)
    mended["false_negatives"] = is_free, (labels, right, wrong, found)
    ap50 = _ap50(had, labels, right, wrong, had)
    return ap50, {
        name: {"count": int(is_it.sum()), "delta_ap50": _gain(_ap50(had, *columns), ap50)}
        for name, (is_it, columns) in mended.items()
    }


def _ap50(had, labels, is_right, is_wrong, num_objects):
    """Mean AP of the classes that had objects, also where mending left none of them to find."""
    values = average_precision(labels, is_right, is_wrong, num_objects)
    has_wrong = np.bincount(labels[is_wrong], minlength=len(had)) > 0
    emptied = (had > 0) & (num_objects == 0)
    values[emptied] = np.where(has_wrong[emptied], 0.0, 1.0)
    return mean_or_none(values)


def _gain(mended, ap50):
    """No mending lowers an AP, but the rounding of a sum may."""
    return None if ap50 is None else max(mended - ap50, 0.0)


def _places(given, columns, chosen):
    """Where some detections or objects are: label, box and image id."""
    places = {name: columns[name][chosen] for name in ("label", "box")}
    return {**places, "image_id": given.image_ids[columns["image"][chosen]]}
