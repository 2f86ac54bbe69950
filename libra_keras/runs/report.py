"""What a run reports when it ends: lines for people, JSON for programs, pictures."""

import dataclasses
import math
import sys
from typing import Any

import numpy as np

from libra_keras.evaluation import METRICS, VOC_METRICS
from libra_keras.evaluation.class_matching import relabelled
from libra_keras.files import atomic
from libra_keras.models import RegionProposalNetwork
from libra_keras.runs import explaining
from libra_keras.runs.config import TrainConfig
from libra_keras.runs.defaults import rate_scaled_from
from libra_keras.runs.measuring import Measured
from libra_keras.training.averages import has_averages

GALLERY, SIDE = 8, 480  # images in detections.png, and pixels of their longer sides
GALLERY_SCORE = 0.3
MOST_CLASSES = 100  # that get a line each
MUCH = 0.05  # of the first weights in the averages: then the run is short for such a momentum


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run went."""

    evaluation: Any  # the callback that has measured it
    damaged: dict[str, dict[str, str]]  # files by what the images were for
    seconds: float
    warnings: dict[str, dict]  # of `Advisor`
    stopped_early: bool


def write(model, val, folder, result: Result) -> None:
    """Fills the run folder, deletes the checkpoints, and prints the numbers."""
    record = {**_measurement(model, val, result), "warnings": result.warnings}
    record["damaged_images"] = {
        purpose: {"count": len(files), "files": files} for purpose, files in result.damaged.items()
    }
    folder.check_there()
    folder.save_model(model)  # first: numbers can be measured again
    if record["averaged"]:  # what was measured, which the checkpoint has beside the last weights
        atomic.save_weights(model, folder.last_weights)
    folder.write_json("metrics.json", record)
    _draw(folder, val, result.evaluation.detections, model.class_names)
    _print_result(folder, record, result.evaluation.metrics)  # before the page, which may fail
    _explain(model, val, folder, result.evaluation)
    folder.checkpoints.clear()  # last: a run that is killed before goes on to here


def describe(config: TrainConfig, steps: int) -> str:
    """Describes in one line how the run will learn."""
    schedule, ema = config.schedule, config.optimizer.ema
    text = f"{schedule.epochs} epochs of {steps} steps of {schedule.batch} images"
    if schedule.accumulate > 1:
        text += f", an update every {schedule.accumulate} steps"
    text += f", learning rate {schedule.learning_rate:g}"
    if scaled := rate_scaled_from(config):
        text += f" = {scaled}"
    if share := config.optimizer.average_last:
        text += f", averages over the last {100 * share:g}% of the updates"
    left = ema ** (schedule.epochs * steps // schedule.accumulate - 1) if ema else 0
    if left >= MUCH:
        text += f", averages that are {left:.0%} the first update's weights at the end"
    return text


def tell_interruption(model, folder, why: str = "Interrupted") -> None:
    """Prints where a run was stopped, and where its weights are."""
    folder.check_there()
    if not has_averages(model):  # else the run has saved them, if it could
        atomic.link(folder.checkpoints.weights, folder.last_weights)
    state = folder.checkpoints.read()
    print(
        f"\n{why}. The run is saved at epoch {state['epoch'] + 1}, step {state['step']}; the same "
        "command continues from there.",
        file=sys.stderr,
    )
    if folder.last_weights.exists():
        kind = "averaged weights" if has_averages(model) else "weights"
        print(f"The {kind} are in {folder.last_weights}", file=sys.stderr)


def panel(model, evaluation):
    """Returns a picture of annotations and detections of the last evaluation."""
    from libra_keras import visualization

    names = model.class_names
    return visualization.panel(
        evaluation.data, evaluation.detections, names, min_score=GALLERY_SCORE
    )


def _measurement(model, val, result):
    """What `metrics.json` contains: the numbers, and how they were measured."""
    settings = model.heads()[-1].settings  # of the last stage
    limits = ("score_threshold", "max_detections", "post_nms")
    evaluation = result.evaluation
    return {
        "weights": "last",
        "averaged": has_averages(model),
        "trained_steps": int(np.asarray(model.trained_steps)),
        "stopped_early": result.stopped_early,
        "seconds": round(result.seconds, 1),
        "data": val.name,
        "images": len(val),
        "measured_by": "pycocotools on the annotations and image sizes of the data set",
        **{name: getattr(settings, name) for name in limits if hasattr(settings, name)},
        **finite({f"best_{evaluation.monitor}": evaluation.best}),
        "metrics": finite(evaluation.metrics),
    }


def _draw(folder, val, detections, names):
    """Writes the pictures: detections on images spread over the whole set, and curves."""
    from libra_keras import visualization

    picture = visualization.panel(val, detections, names, GALLERY, SIDE, GALLERY_SCORE)
    if picture is not None:
        visualization.save_image(picture, folder.path / "detections.png")
    epochs, steps = folder.tables
    try:
        visualization.plot_curves(steps, folder.path / "curves.png", epochs)
    except ImportError as error:
        print(f"No curves.png: {error}")


def _explain(model, val, folder, evaluation):
    """Writes the report, from what the run has measured."""
    found = evaluation.detections
    if not isinstance(model, RegionProposalNetwork):
        found = relabelled(found, model.class_names, val)
    measured = Measured(val, found, evaluation.metrics)
    origin = explaining.Origin(str(folder.path), folder=folder)
    try:
        explaining.write_page(explaining.place(origin), model, measured, origin)
    except (ValueError, OSError) as error:  # the run has ended, and its numbers are written
        print(f"No report: {error}", file=sys.stderr)


def _print_result(folder, record, metrics):
    weights = "averaged weights" if record["averaged"] else "weights"
    print(
        f"\n{record['data']}, {record['images']} images, {weights} of the last step:\n"
        f"{metric_lines(metrics)}\n\n"
        f"{record['seconds']:.0f} s; everything is in {folder.path}"
    )


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """Replaces NaN and infinities, which JSON lacks, with `None` (null) in a dict."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def metric_lines(metrics: dict[str, float]) -> str:
    """Returns COCO's numbers and recall of proposals in rows of three, then Pascal VOC's, then one
    line per class, unless there are too many."""
    named = [f"{name} {_number(metrics[name])}" for name in METRICS if name in metrics]
    named += [f"{name} {_number(value)}" for name, value in metrics.items() if _is_recall(name)]
    named += [f"{name} {_number(value)}" for name, value in metrics.items() if _is_beyond(name)]
    rows = ["  ".join(named[start : start + 3]) for start in range(0, len(named), 3)]
    voc = [name for name in VOC_METRICS if name in metrics]
    rows += ["  ".join(f"{name} {_number(metrics[name])}" for name in voc)] if voc else []
    classes = [name[3:] for name in metrics if name.startswith("AP/")]
    if len(classes) > MOST_CLASSES:
        return "\n".join([*rows, f"  AP of {len(classes):,} classes: see the report"])
    width = max([len(name) for name in classes], default=0)
    for name in classes:
        line = f"  AP of {name:<{width}}  {_number(metrics[f'AP/{name}'])}"
        rows.append("  ".join([line, *(f"{v} {_number(metrics[f'{v}/{name}'])}" for v in voc)]))
    return "\n".join(rows)


def _is_beyond(name):
    """AP with more detections than COCO's, `AP@300`, and its variants."""
    return name.startswith("AP") and "@" in name and "/" not in name


def _is_recall(name):
    return name.startswith("AR") and "@" in name


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"
