"""How good a detector is on a data set: its metrics, or the proposals of its first stage."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from libra_keras import evaluation
from libra_keras.data import DetectionData, evaluation_batches
from libra_keras.data.findings import DamagedImage, read_checked
from libra_keras.evaluation.class_matching import check_classes, relabelled
from libra_keras.models import FastRCNN, RegionProposalNetwork
from libra_keras.runs.inputs import damage_told
from libra_keras.runs.progress import is_watched


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to measure: COCO's numbers, Pascal VOC's AP, the recall of proposals, which is always
    measured for a region proposal network. `tiling` holds the arguments of `detect` for tiles."""

    voc: bool = False
    proposals: bool = False
    coco: bool = True
    tiling: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a model has found on a data set, and how good it is.

    Args:
        data: the `DetectionData`.
        detections: dicts as `evaluation.collect_detections` returns them, with the labels of the
            data; for a region proposal network, its proposals.
        metrics: dict of floats by name; empty if not computed yet.
    """

    data: DetectionData
    detections: list[dict]
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)


def measure(
    model: keras.Model, data: DetectionData, batch: int = 4, wanted: Wanted = Wanted()
) -> Measured:
    """Measures a detector, with classes matched by name, or the recall of a region proposal
    network, as `libra-keras evaluate` does."""
    _check_classes(model, data)
    batches = evaluation_batches(data, model.input_policy, batch)
    with damage_told(lambda: {"evaluation": batches.source.damaged}):
        return _measured(model, data, batches, wanted)


def propose(
    detector: keras.Model, data: DetectionData, batch: int = 4, num: int | None = None
) -> list[dict[str, Any]]:
    """Collects the proposals of a detector's first stage as `libra-keras propose` does: a dict per
    image, with at most `num` of them."""
    model = RegionProposalNetwork.of(detector, num)
    batches = evaluation_batches(data, model.input_policy, batch)
    with damage_told(lambda: {"proposals": batches.source.damaged}):
        return evaluation.collect_proposals(model, batches, _verbosity())


def _check_classes(model, data):
    """Refuses data with classes that the detector does not know; prints if it knows more."""
    if isinstance(model, RegionProposalNetwork):
        return
    check_classes(model.class_names, model.num_classes, data)
    if data.num_classes < model.num_classes:
        print(
            f"{data.name} has {data.num_classes} of the detector's {model.num_classes} classes; "
            "the numbers refer to these"
        )


def _measured(model, data, batches, wanted):
    is_rpn = isinstance(model, RegionProposalNetwork)
    # In one piece it runs faster. First of all, since not every detector has a first stage.
    first = RegionProposalNetwork.of(model) if is_rpn or wanted.proposals else None
    if wanted.tiling and (is_rpn or isinstance(model, FastRCNN)):
        raise ValueError(f"a {type(model).__name__} is measured on whole images, without tiles")
    metrics, detections = {}, []
    if not is_rpn:
        detections = _detections(model, data, batches, wanted.tiling)
        detections = relabelled(detections, model.class_names, data)
        if wanted.coco:
            metrics |= evaluation.evaluate_detections(data, detections, model.max_detections)
        if wanted.voc:
            metrics |= evaluation.voc_ap(data, detections)
    if first is not None:
        found = evaluation.collect_proposals(first, batches, _verbosity())
        metrics |= evaluation.proposal_recall(data, found)
        detections = found if is_rpn else detections
    return Measured(data, detections, metrics)


def _detections(model, data, batches, tiling):
    if not tiling:
        return evaluation.collect_detections(model, batches, _verbosity())
    images = (_pixels(data, i, batches.source.damage) for i in range(len(data)))
    found = (model.detect(image, 0.0, **tiling) for image in images)
    keys = "boxes", "scores", "labels"
    return [
        {"image_id": example.image_id, **{key: own[key] for key in keys}}
        for example, own in zip(data.examples, found, strict=True)
    ]


def _pixels(data, i, damage):
    """An image; a damaged one is noted and is blank."""
    example = data.examples[i]
    try:
        with read_checked(data, i) as image:
            return np.array(image)
    except DamagedImage as error:
        damage.add(example.file, str(error))
        return np.zeros((example.height, example.width, 3), "uint8")


def _verbosity():
    return int(is_watched())
