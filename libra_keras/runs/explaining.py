"""A page that explains a detector on a data set: what is computed for it, and where it goes."""

import dataclasses
import datetime
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

import libra_keras
from libra_keras import evaluation
from libra_keras.data import DetectionData
from libra_keras.files import atomic
from libra_keras.files.reading import explained, read_text
from libra_keras.files.replacing import check_replaceable_files, check_writable_file
from libra_keras.models import RegionProposalNetwork
from libra_keras.runs.error_pictures import error_pictures
from libra_keras.runs.folder import RunFolder
from libra_keras.runs.label_fit import statistics_for
from libra_keras.runs.measuring import Measured
from libra_keras.runs.resuming import recorded_settings
from libra_keras.visualization.curves import read_panels
from libra_keras.visualization.page import quality
from libra_keras.visualization.page.elements import Markup, facts
from libra_keras.visualization.page.frame import Section, document, is_own
from libra_keras.visualization.page.labels import labels
from libra_keras.visualization.page.mistakes import errors
from libra_keras.visualization.page.training import training

PAGE = "report.html"
NAMED = 5  # classes without objects
LONGEST_NAME = 50  # characters of data, in the name of a file, of up to four bytes


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a model came from: its path or name, which weights, and the run folder if any."""

    name: str
    weights: str = "last"
    folder: RunFolder | None = None


def place(origin: Origin, data: DetectionData | None = None) -> Path:
    """Returns where the page of a run goes: in its folder, named after the data if they are not its
    own; raises a `ValueError` if there is no folder."""
    if origin.folder is None:
        raise ValueError(f"{origin.name} is not a run folder: set the report's file with --to FILE")
    if data is None and origin.weights == "last":
        return origin.folder.path / PAGE
    name = origin.weights if data is None else data.name
    stem = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME].strip("-.")
    if data is not None and origin.weights != "last":
        stem += f"-{origin.weights}"
    return origin.folder.path / f"{Path(PAGE).stem}-{stem}.html"


def check_page(to: Path) -> None:
    """Refuses to write a page where that is impossible, or where something else is."""
    check_writable_file(to, "The report")
    check_replaceable_files([to], "report of libra-keras", is_own, overwrite=True)


def beside(numbers: str) -> Path:
    """Returns the path of the page for a file of numbers."""
    if Path(numbers).suffix == ".html":
        raise ValueError(f"--to is for numbers, as JSON. Received: {numbers}")
    return Path(numbers).with_suffix(".html")


def write_beside(
    numbers: str | None, model: keras.Model, measured: Measured, origin: Origin
) -> Path | None:
    """Writes the page next to a file of numbers, or without one into the run folder; returns its
    path, or prints a message and returns `None` if there is no place for it."""
    try:
        to = beside(numbers) if numbers else place(origin, measured.data)
        check_page(to)
    except ValueError as error:
        print(f"No report: {error}", file=sys.stderr)
        return None
    write_page(to, model, measured, origin)
    return to


def write_page(to: Path, model: keras.Model, measured: Measured, origin: Origin) -> None:
    """Writes the page, completely or not at all."""
    check_page(to)
    content = page(model, measured, origin)
    with atomic.replacing(to) as unfinished:  # file names may have bytes that are not text
        unfinished.write_text(content, encoding="utf-8", errors="backslashreplace")


def page(model: keras.Model, measured: Measured, origin: Origin) -> str:
    """Returns the page as HTML."""
    title = f"{Path(origin.name).name} on {measured.data.name}"
    return document(title, _head(model, measured, origin), list(_sections(model, measured, origin)))


def _sections(model, measured, origin) -> Iterator[Section]:
    if isinstance(model, RegionProposalNetwork):
        note = "A region proposal network knows no classes: its recall is measured."
        yield quality.summary(measured.metrics, [note])
        yield from _training(origin.folder)
    else:
        yield from _of_detections(measured, origin)
    yield labels(statistics_for(measured.data, model))


def _of_detections(measured, origin):
    data = measured.data
    given = evaluation.overlaps(
        data, evaluation.detections_to_coco(measured.detections, data.category_ids)
    )
    by_size = evaluation.ap_by_size(given)
    metrics = measured.metrics
    if "AP" not in metrics:  # which pycocotools computes many times more slowly
        metrics = {**evaluation.coco_numbers(given, by_size), **metrics}
    curves, f1 = evaluation.precision_recall(given), evaluation.f1_by_threshold(given)
    best = f1["all"]["best"] or {}
    threshold = best.get("threshold", 0.0)
    found = evaluation.errors_by_kind(given)
    objects = given.num_objects().tolist()
    yield quality.summary(metrics, _notes(measured, objects))
    yield from _training(origin.folder)
    yield quality.by_class(data.class_names, objects, metrics, curves, f1)
    yield errors(found.ap50, found.costs, error_pictures(data, given, found, threshold))
    yield quality.confusion(evaluation.confusion(given, threshold), data.class_names)
    yield quality.parts(by_size, evaluation.ap_by_crowding(given))
    yield quality.calibration(evaluation.calibration(given))


def _notes(measured, objects):
    """Notes on why the numbers mean less than they seem to."""
    data, notes = measured.data, []
    if not any(len(image["scores"]) for image in measured.detections):
        notes.append("The detector found nothing in these images: all numbers are 0, or missing.")
    if not any(objects):
        notes.append("There are no objects to find in these data: no AP can be computed.")
    empty = [name for name, count in zip(data.class_names, objects, strict=True) if not count]
    if empty and any(objects):
        more = ", ..." if len(empty) > NAMED else ""
        notes.append(
            f"{len(empty)} of {data.num_classes} classes have no object in these data, so they do "
            f"not enter the means: {', '.join(empty[:NAMED])}{more}"
        )
    return notes


def _training(folder):
    if folder is None:
        return
    epochs, steps = folder.tables
    told = folder.read_json("metrics.json").get("warnings", {})
    with explained(folder.path / "metrics.json"):
        warnings = [f"Epoch {each['epoch']}: {each['message']}" for each in told.values()]
    # A run that ended before a table had its first row has none to draw.
    has_rows = all(
        path.exists() and len(read_text(path).splitlines()) > 1 for path in folder.tables
    )
    yield training(*(read_panels(steps, epochs) if has_rows else ("step", {})), warnings)


def _head(model, measured, origin) -> Markup:
    data = measured.data
    record, name, kind = {}, None, type(model).__name__
    if origin.folder:
        record, name = origin.folder.read_config(), recorded_settings(origin.folder).get("model")
    settings = model.heads()[-1].settings
    entries: dict[str, Any] = {
        "run": origin.name,
        "weights": origin.weights,
        "model": f"{name} ({kind})" if name else kind,
        "parameters": f"{model.count_params():,}",
        "input": f"{model.input_policy.short_side} × {model.input_policy.long_side} pixels",
        "data": data.summary(),
    }
    for name in ("score_threshold", "max_detections"):
        if hasattr(settings, name):
            entries[name.replace("_", " ")] = getattr(settings, name)
    if record:
        with explained(origin.folder.path / "config.json"):
            entries |= _of_record(record)
    made = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
    entries["written"] = f"{made}, libra_keras {libra_keras.__version__}"
    return facts(entries)


def _of_record(record):
    versions = record.get("versions", {})
    command = map(str, record.get("command", ()))
    return {
        "trained on": f"{record.get('train')}; {record.get('device')}",
        "trained with": ", ".join(
            f"{name} {versions[name]}"
            for name in ("libra_keras", "keras", "tensorflow", "jax", "torch")
            if name in versions
        ),
        "command": shlex.join([Path(next(command, "")).name, *command]),
    }
