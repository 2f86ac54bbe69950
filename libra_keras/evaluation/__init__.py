"""COCO metrics and proposal recall, as functions and as a Keras callback."""

from libra_keras.evaluation.callback import COCOEvaluation
from libra_keras.evaluation.coco_metrics import (
    METRICS,
    collect_detections,
    detections_to_coco,
    evaluate,
    evaluate_detections,
    rescale_detections,
)
from libra_keras.evaluation.proposal_recall import collect_proposals, proposal_recall

__all__ = [
    "METRICS",
    "COCOEvaluation",
    "collect_detections",
    "collect_proposals",
    "detections_to_coco",
    "evaluate",
    "evaluate_detections",
    "proposal_recall",
    "rescale_detections",
]
