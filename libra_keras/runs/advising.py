"""What a run gives the callback that warns: defaults, anchors, proposals."""

import keras
import numpy as np

from libra_keras.data import evaluation_batches
from libra_keras.evaluation import ProposalEvaluation, collect_proposals
from libra_keras.evaluation.proposal_recall import proposal_coverage
from libra_keras.runs import advice
from libra_keras.runs.config import TrainConfig
from libra_keras.runs.defaults import usual_rate
from libra_keras.training.averages import averaged_weights

PROPOSED_FOR = 8  # images, whose proposals tell enough


def at_start(config: TrainConfig, train, model) -> dict[str, str | None]:
    """Returns what there is to say before training: dict from subjects to sentences or `None`.

    Args:
        config: `TrainConfig`, resolved.
        train: `DetectionData`.
        model: detector.
    """
    said = {"learning_rate": advice.high_rate(config.schedule.learning_rate, usual_rate(config))}
    counts = [example.num_boxes for example in train.examples]
    said["max_detections"] = advice.too_many_objects(counts, model.max_detections)
    anchors, sizes = anchor_sizes(model), object_sizes(train, model.input_policy)
    if len(anchors) and len(sizes):
        said["anchors"] = advice.unfitting_anchors(sizes, anchors)
    return said


def object_sizes(data, policy):
    """Returns widths and heights `(M, 2)` of all objects in pixels of the resized images.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.runs.advising import object_sizes
    >>> object_sizes(data.shapes(4), data.InputPolicy(160, 160)).shape[1]
    2
    """
    sizes = [np.zeros((0, 2))]
    for example in data.examples:
        boxes = example.boxes[~example.ignore]
        height, _ = policy.fitted_size(example.height, example.width)
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * (height / example.height))
    return np.concatenate(sizes)


def anchor_sizes(model):
    """Returns widths and heights `(A, 2)` of a model's anchors; none if it has no anchors.

    Example:

    >>> from libra_keras.runs.advising import anchor_sizes
    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> anchor_sizes(libra_faster_rcnn_small(num_classes=6)).shape[1]
    2
    """
    settings = model.heads()[0].settings
    if not hasattr(settings, "ratios"):
        return np.zeros((0, 2))
    sides = np.outer(settings.strides, settings.scales).reshape(-1, 1)
    roots = np.sqrt(settings.ratios)[None]
    return np.stack([sides / roots, sides * roots], -1).reshape(-1, 2)


def recall_of(model, evaluation):
    """Returns what `Advisor` calls to know the recall of proposals.

    Args:
        model: detector.
        evaluation: `COCOEvaluation` or `ProposalEvaluation` of the run.

    Returns:
        Function without arguments that returns the share of objects that proposals cover, and the
        number of images; `None` if the model proposes nothing, or several devices share it.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.runs.advising import recall_of
    >>> from libra_keras.evaluation import COCOEvaluation
    >>> from libra_keras.models import libra_faster_rcnn_small, retinanet_small
    >>> evaluation = COCOEvaluation(data.shapes(2), batch_size=2)
    >>> recall_of(retinanet_small(num_classes=6), evaluation)
    >>> share, images = recall_of(libra_faster_rcnn_small(num_classes=6), evaluation)()
    >>> 0 <= share <= 1, images
    (True, 2)
    """
    if isinstance(evaluation, ProposalEvaluation):
        data = evaluation.data
        return lambda: (proposal_coverage(data, evaluation.detections), len(data))
    if not hasattr(model, "propose") or _has_several_devices(model):
        return None
    return lambda: _recall(model, evaluation)


def _has_several_devices(model):
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.num_replicas_in_sync > 1
    return keras.distribution.distribution() is not None


def _recall(model, evaluation):
    data = evaluation.data
    places = np.linspace(0, len(data) - 1, min(PROPOSED_FOR, len(data))).astype(int)
    data = data.subset(sorted(set(places.tolist())))
    batches = evaluation_batches(data, model.input_policy, evaluation.batch_size)
    with averaged_weights(model):  # what the evaluation has just measured
        found = collect_proposals(model, batches, verbose=0)
    return proposal_coverage(data, found), len(data)
