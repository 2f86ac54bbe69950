"""One run of a table: trained, measured three times, and written down, in a process of its own."""

import dataclasses
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import shutil
import signal
import threading
import time
import traceback
from pathlib import Path

import numpy as np
from intervals import resampled_ap, resampled_images, resampled_recall

from libra_keras import data, evaluation, runs
from libra_keras.data.sources import short_name
from libra_keras.files import atomic
from libra_keras.runs import inputs

# AP is the mean of three measurements, whose noise is partly their own. The weights are averages
# over the last quarter of the run, which all three lie in.
KEPT_AT = (10 / 12, 11 / 12)
RECALLS = (100, 300, 1000)
SHOWN = 8  # images that a run measures itself on, for its pictures


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is to be trained, on what, and where it is written.

    Attributes:
        row: key of the table's row.
        config: `TrainConfig`, whose seed is the trial's.
        result: path of its JSON.
        proposals: paths of the proposals to learn from and to measure on, or `None`.
        keep: whether the run folder stays.
    """

    row: str
    config: runs.TrainConfig
    result: Path
    proposals: tuple[Path, Path] | None = None
    keep: bool = False


def in_own_process(function, *arguments):
    """Calls a function in a new process, so that nothing of one trial is left for the next.

    Returns:
        Whether it came to its end.
    """
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_guarded, args=(function, arguments))
    process.start()
    try:
        process.join()
    except BaseException:
        process.terminate()
        process.join()
        raise
    return process.exitcode == 0


def run_trial(trial: Trial, stop_by: float) -> None:
    """Trains and measures; writes the result when all of it is there."""
    try:
        train, test = _with_proposals(trial)
        run = _trained(trial, train, test, stop_by)
        if run is None:
            return
        result = {"status": "done", **_measured(run, test)}
    except runs.NonFiniteLoss as error:
        result = {"status": "diverged", "why": str(error).partition(" Files of the batch")[0]}
    except Exception as error:  # the others of the table are worth having
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}".replace(str(trial.config.run.folder), "...")
        result = {"status": "failed", "why": why}
    with atomic.replacing(trial.result) as unfinished:  # in one line: it has long lists
        unfinished.write_text(json.dumps({**described(trial), **result}, allow_nan=False) + "\n")
    if result["status"] == "done" and not trial.keep:
        shutil.rmtree(trial.config.run.folder)


def described(trial: Trial) -> dict:
    """What a result says of its trial, before it is run; nothing of where files lie."""
    config = runs.resolve(trial.config)
    weights = config.model.backbone_weights
    config = config.replace(
        data={"source": short_name(config.data.source), "cache": None},
        model={"backbone_weights": weights and Path(weights).name},
        run={"folder": None},
        devices={"count": None},
    )
    return {
        "row": trial.row,
        "seed": config.run.seed,
        "config": config.to_dict(),
        "proposals": [digest(path) for path in trial.proposals or ()],
    }


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_proposals(
    config: runs.TrainConfig, paths: tuple[Path, Path], num: int, stop_by: float
) -> None:
    """Trains a region proposal network, and writes what it proposes for both splits."""
    from libra_keras.runs import measuring

    run = runs.Run(Path(config.run.folder))
    if not run.is_finished:  # else it was killed while it proposed
        run = runs.train(config, stop_by=stop_by)
    if not run.is_finished:
        return
    for path, own in zip(paths, inputs.load_both(config.data), strict=True):
        found = measuring.propose(run.model, own, num=num)
        recall = evaluation.proposal_recall(own, found, RECALLS)
        print(f"{own.name}: AR@100 {recall['AR@100']:.3f} -> {path}", flush=True)
        data.write_proposals(path, found)


def _guarded(function, arguments):
    """Ends with the process that started this one, however that ends."""
    parent = multiprocessing.parent_process()

    def watch():
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    function(*arguments)


def _trained(trial, train, test, stop_by):
    """The run, if it has come to its end in time."""
    folder = Path(trial.config.run.folder)
    if (folder / "metrics.json").is_file():  # killed while it was measured
        return runs.open(folder)
    few = test.subset(slice(0, SHOWN))
    run = runs.train(trial.config, train, few, stop_by=stop_by, keep_at=KEPT_AT)
    return run if run.is_finished and time.time() < stop_by else None


def _with_proposals(trial):
    parts = inputs.load_both(trial.config.data)
    if trial.proposals is None:
        return parts
    return [
        data.with_proposals(part, path) for part, path in zip(parts, trial.proposals, strict=True)
    ]


def _measured(run, test):
    """Means over the three measurements, of the images as they are and resampled."""
    counts = resampled_images(len(test))
    found = []
    for weights in (*(f"kept-{share:g}" for share in KEPT_AT), "last"):
        run.model.load_weights(run.folder / f"{weights}.weights.h5")
        found.append(_measure(run.model, test, counts))
    metrics = {name: float(np.mean([each[name] for each, _ in found])) for name in found[0][0]}
    resampled = {
        name: np.mean([own[name] for _, own in found], axis=0).round(5).tolist()
        for name in found[0][1]
    }
    return {
        "metrics": {n: None if np.isnan(v) else round(v, 5) for n, v in metrics.items()},
        "measured": [round(next(iter(each.values())), 5) for each, _ in found],
        "resampled": resampled,
        "images": len(test),
        "seconds": run.record("metrics.json")["seconds"],
        "versions": _versions(run),
    }


def _versions(run):
    """Those that the run has recorded; of the system, no more than matters to others."""
    own = json.loads((run.folder / "config.json").read_text())["versions"]
    return {**own, "platform": f"{platform.system()} {platform.machine()}"}


def _measure(model, test, counts):
    """Metrics of a model, and those of interest on resampled images: two dicts."""
    batches = data.evaluation_batches(test, model.input_policy, 8)
    if hasattr(model, "box_head") or hasattr(model, "head"):
        detections = evaluation.collect_detections(model, batches, 0)
        rows = evaluation.detections_to_coco(detections, test.category_ids)
        given = evaluation.overlaps(test, rows)
        metrics = evaluation.coco_numbers(given, evaluation.ap_by_size(given))
        names, values = ("AP", "AP50", "AP75"), resampled_ap(given, counts)
    else:
        proposals = evaluation.collect_proposals(model, batches, 0)
        metrics = evaluation.proposal_recall(test, proposals, RECALLS)
        names = [f"AR@{number}" for number in RECALLS]
        values = resampled_recall(test, proposals, counts, RECALLS)
    return metrics, dict(zip(names, values.T, strict=True))
