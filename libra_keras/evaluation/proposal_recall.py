"""How many objects the first stage finds: recall and coverage of class-agnostic proposals."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from libra_keras.data import DetectionData
from libra_keras.evaluation.coco_metrics import collect, detections_to_coco
from libra_keras.evaluation.comparison import check_images, compare, mean_present


def collect_proposals(model: Any, batches: Iterable[dict], verbose: int = 1) -> list[dict]:
    """Runs the first stage of a model over batches of images.

    Args:
        model: a two-stage detector; its `propose` returns a dict of `"boxes"` `(B, P, 4)` in
            pixels of the padded image, `"scores"` `(B, P)` and `"mask"` `(B, P)`, false in padding.
        batches: as for `collect_detections`.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        List of one dict per image: `"image_id"`, `"boxes"`, `"scores"` and `"labels"` (all 0).

    Example:

    >>> import numpy as np
    >>> from libra_keras.evaluation import collect_proposals
    >>> class Whole:
    ...     def propose(self, x):
    ...         boxes, mask = np.array([[[0, 0, 16, 16], [0, 0, 0, 0]]]), np.array([[True, False]])
    ...         return {"boxes": boxes, "scores": np.ones((1, 2)), "mask": mask}
    >>> batch = {"image_ids": np.array([7])}
    >>> batch |= {"image_sizes": np.array([[16, 16]]), "original_sizes": np.array([[32, 32]])}
    >>> collect_proposals(Whole(), [batch], verbose=0)[0]["boxes"].tolist()
    [[0.0, 0.0, 32.0, 32.0]]
    """

    def propose(x):
        proposals = {k: keras.ops.convert_to_numpy(v) for k, v in model.propose(x).items()}
        labels = np.where(proposals.pop("mask"), 0, -1)
        return {**proposals, "labels": labels}

    return collect(propose, batches, verbose)


def proposal_recall(
    data: DetectionData, proposals: list[dict], counts: Sequence[int] = (100, 300, 1000)
) -> dict[str, float]:
    """Computes the average recall of proposals, whatever the class of the objects.

    pycocotools averages recall over the IoU thresholds 0.50, 0.55 .. 0.95, on the original
    annotations. With a thousand proposals per image, it needs about a second for every few images.

    Args:
        proposals: list of dicts with `"image_id"`, `"boxes"` `(n, 4)` in pixels of the file, and
            `"scores"` `(n,)`, as `collect_proposals` returns it.
        counts: increasing numbers of best proposals per image to take into account.

    Returns:
        Dict of floats in [0, 1]: `"AR@<count>"` for each count, and for the largest one also
        `"AR_small@<count>"`, `"AR_medium@<count>"` and `"AR_large@<count>"`. NaN where there is
        nothing to find.

    Raises:
        ValueError: if proposals belong to an image that is unknown or came twice, or `counts` does
            not increase.

    Example:

    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation import proposal_recall
    >>> cat = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 40], "area": 1600}
    >>> annotations = {
    ...     "images": [{"id": 7, "height": 60, "width": 80}],
    ...     "annotations": [cat],
    ...     "categories": [{"id": 3, "name": "cat"}],
    ... }
    >>> data = DetectionData("one cat", ("cat",), (3,), [], annotations)
    >>> found = [{"image_id": 7, "boxes": [[50, 0, 80, 60], [0, 0, 40, 40]], "scores": [0.9, 0.8]}]
    >>> recall = proposal_recall(data, found, counts=(1, 2))
    >>> recall["AR@1"], recall["AR@2"], recall["AR_medium@2"]
    (0.0, 1.0, 1.0)
    """
    check_counts(counts)
    check_images(data, proposals)
    one_class = [{**image, "labels": np.zeros(len(image["scores"]), int)} for image in proposals]
    rows = detections_to_coco(one_class, data.category_ids[:1])
    recall = compare(data, rows, list(data.category_ids), counts, by_class=False)["recall"]
    metrics = {f"AR@{n}": mean_present(recall[:, 0, 0, i]) for i, n in enumerate(counts)}
    for size, name in enumerate(("small", "medium", "large"), 1):
        metrics[f"AR_{name}@{counts[-1]}"] = mean_present(recall[:, 0, size, -1])
    return metrics


def check_counts(counts: Sequence[int]) -> None:
    """Raises a `ValueError` unless `counts` are increasing and positive, at least one."""
    if not len(counts) or list(counts) != sorted(set(counts)) or counts[0] < 1:
        raise ValueError(f"`counts` must be increasing and positive. Received: {counts}")


def proposal_coverage(data: DetectionData, proposals: list[dict], min_iou: float = 0.5) -> float:
    """The share of the objects with an IoU of `min_iou` with some proposal; NaN if none."""
    by_id = {image["image_id"]: image["boxes"] for image in proposals}
    found = [
        _best_iou(example.boxes[~example.ignore], by_id[example.image_id]) >= min_iou
        for example in data.examples
        if example.image_id in by_id
    ]
    is_covered = np.concatenate([*found, np.zeros(0, bool)])
    return float(is_covered.mean()) if len(is_covered) else math.nan


def _best_iou(boxes, proposals):
    """The largest IoU `(n,)` of every box with a proposal."""
    boxes = np.asarray(boxes, "float64").reshape(-1, 1, 4)
    others = np.asarray(proposals, "float64").reshape(1, -1, 4)
    corners = (
        np.minimum(boxes[..., 2:], others[..., 2:]),
        np.maximum(boxes[..., :2], others[..., :2]),
    )
    shared = np.prod(np.maximum(corners[0] - corners[1], 0), -1)
    areas = [np.prod(each[..., 2:] - each[..., :2], -1) for each in (boxes, others)]
    iou = shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)
    return iou.max(-1, initial=0.0)
