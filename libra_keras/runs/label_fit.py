"""How well the labels of data suit a detector's anchors and the levels of its second stage."""

from typing import Any

import keras

from libra_keras.data import DetectionData
from libra_keras.evaluation import Anchors, label_statistics
from libra_keras.evaluation.anchor_fit import POOR

MOST = 0.5  # of the objects


def statistics_for(data: DetectionData, model: keras.Model) -> dict[str, Any]:
    """Returns the `label_statistics` of data as a detector sees them."""
    head = model.heads()[-1]
    pooling = {}
    if hasattr(head, "roi_align"):
        pooling = {"roi_levels": len(head.roi_align.strides)}
        pooling["finest_scale"] = head.roi_align.finest_scale
    return label_statistics(data, model.input_policy, anchors_of(model), **pooling)


def anchors_of(model: keras.Model) -> Anchors | None:
    """Returns the anchors of a detector; `None` if it is given its proposals."""
    settings = model.heads()[0].settings
    if not hasattr(settings, "ratios"):
        return None
    return Anchors(settings.strides, settings.scales, settings.ratios)


def unfitting_anchors(statistics: dict[str, Any]) -> str | None:
    """Returns advice if most objects overlap no anchor by half; else `None`."""
    fit = statistics["anchors"]
    if fit is None or not fit["inputs"][0][f"below_{POOR}"] > MOST:
        return None
    return ". ".join(statistics["advice"])
