"""How fast and how exact a detector is in every runtime that it can be exported to, in float32,
bfloat16 and int8, with free and with fixed shapes of images, and how large its files are.

    python recipes/benchmarks/serving_speed.py --size 800x1344 --beside torchvision-env/bin/python
    python recipes/benchmarks/serving_speed.py --run runs/mine --data my_photos --to table.json

Speed: every row gets the same noise, prepared as in training; the SavedModel's signature `images`
also resizes it. Each row is a process of its own with the same number of threads. Latency is the
median of calls with one image. One row after the other runs beside the first, and they alternate
call by call, so that other load on the machine affects both, and no more than two need memory. Of
batches of 8 the best call counts: one process exists at a time, and rows alternate turn by turn.
LiteRT takes one image after the other, and requires the size that the detector pads images to.
Ratios are to the first row, Keras as `predict_on_batch` runs it, unless `--only` leaves it out.

AP: with `--run` and `--data`, each row also detects in the images of `--split`, with the settings
of the run. Those of another split, `--calibrate-split`, calibrate int8. What a row loses to the
first one comes with the interval that 95 % of 1,000 resamples of the images give, the same for all
rows. A fixed shape is that of `--size`: images that do not fit once they are resized are left out,
and smaller ones are padded, which may cost AP too. `--runs 0 --turns 0` measures AP alone.

Without `--run`, weights are random, few boxes reach the end, and int8 is calibrated on four drawn
scenes. bfloat16 is a setting of OpenVINO, and a detector of Keras' with layers of mixed_bfloat16.
`--beside` adds torchvision's R50-FPN Faster R-CNN in torch, from an interpreter that has it; see
`torchvision_speed.py`.

Exporting takes minutes, in int8 several of them; `--files` keeps the exports for the next time. A
row that fails is named with its error. `--to` writes all calls, and what they were measured on. No
figure means anything unless the machine is idle: the load at the start is printed and recorded.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import serving_accuracy
from serving_accuracy import compared
from serving_runtimes import (
    PRECISIONS,
    RUNTIMES,
    TORCHVISION,
    Row,
    build,
    megabytes,
    note_of_int8,
    rows_of,
    write,
)
from serving_table import finite, machine, markdown, shown, times, versions
from serving_timing import ERROR, Failed, asked, latencies, serve, throughputs
from workers import load_line

# Options of `libra-keras evaluate` that say how data are read.
OF_DATA = ("format", "annotations", "images", "class_names", "corners", "skip_bad", "allow_outside")
SETTINGS = ("model", "run", "size", "data", "calibrate_split")  # that exports depend on


def exports(rows, options):
    """Writes what is not there yet, a process each; returns why rows have no file, by row."""
    failed, folders = {}, {row.folder: row.file for row in rows if row.file}
    for folder, row in folders.items():
        start = time.perf_counter()
        if Path(options.files, folder).exists():
            continue
        try:
            asked(options, "write", row)
            shown(f"export of {folder}: {time.perf_counter() - start:.0f} s")
        except Failed as error:
            shown(f"export of {folder}: {error}")
            failed[folder] = {"error": f"export: {error}"}
    return {row: failed[row.folder] for row in rows if row.file and row.folder in failed}


def accuracies(rows, options):
    """AP of the rows that have one of their own, compared with the first row's; or `error`."""
    found, first = {}, None
    for row in rows:
        if row.runtime == TORCHVISION or not RUNTIMES[row.runtime].is_measured:
            continue
        try:
            own = asked(options, "measure", row)
        except Failed as error:
            shown(f"{row}, AP: {error}")
            found[row] = {"error": str(error)}
            continue
        found[row] = compared(own, first)
        first = own if row == rows[0] else first
        shown(f"{row}: AP {found[row]['AP']:.4f} on {found[row]['images']} images")
    return found


def timed(rows, options):
    """What the table has of each row but AP, a dict by row; what fails is left out of what comes
    after it.

    Raises:
        Failed: if the first row fails.
    """
    failed = exports(rows, options)
    if rows[0] in failed:
        raise Failed(failed[rows[0]]["error"])
    one = {row: {} for row in rows} | failed
    if options.runs:
        one |= latencies([row for row in rows if row not in failed], options)
    batch = one | throughputs([row for row in rows if "error" not in one[row]], options)
    return {
        row: {
            **dataclasses.asdict(row),
            "times": times(one[row], batch[row], batch[rows[0]]),
            **files_of(row, options),
        }
        for row in rows
    }


def files_of(row, options):
    """The size of the files of a row, and what an export in int8 says of itself."""
    folder = row.file and Path(options.files, row.folder)
    if not folder or not folder.exists():
        return {}
    return {"megabytes": megabytes(folder), "int8": note_of_int8(row, options)}


def compare(options):
    """Measures all rows; prints the table, and writes it as JSON if asked to."""
    start, load = time.time(), os.getloadavg()
    shown(load_line(load[0]))
    told = described(options)
    options.size = told["size"]
    found = timed(rows_of(options), options)
    result = {
        "machine": machine(),
        "versions": versions() | torchvision_of(found),
        "load": load,
        "date": time.strftime("%Y-%m-%d", time.gmtime(start)),
        **{name: getattr(options, name) for name in ("threads", "runs", "turns")},
        **told,
        "rows": list(found.values()),
    }
    write_result(result, options)  # AP takes long
    if options.data:
        alive = [row for row in found if "error" not in found[row]["times"]["one image"]]
        for row, own in accuracies(alive, options).items():
            found[row]["accuracy"] = own
    result |= {"load_at_end": os.getloadavg(), "minutes": (time.time() - start) / 60}
    write_result(result, options)
    shown(f"\n{markdown(result)}\n{result['minutes']:.0f} minutes")


def write_result(result, options):
    """Writes the JSON if one is asked for."""
    if options.to:
        options.to.write_text(json.dumps(finite(result), indent=1, allow_nan=False) + "\n")


def described(options):
    """What the detector is; exports that are there must be of it.

    Raises:
        SystemExit: if they are not.
    """
    note = Path(options.files, "settings.json")
    settings = {name: getattr(options, name) for name in SETTINGS}
    if note.exists() and json.loads(note.read_text()) != settings:
        raise SystemExit(
            f"{options.files} holds exports of {note.read_text()}: choose other --files"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings))
    return asked(options, "describe")


def torchvision_of(rows):
    """What torchvision's process has said of its versions."""
    own = rows.get(Row(TORCHVISION), {"times": {"one image": {}}})["times"]["one image"]
    return {"beside": own["versions"]} if "versions" in own else {}


def describe(options):
    """Writes down what the detector is, for the processes that do not build it, and prints it."""
    told = serving_accuracy.describe(build(options), options)
    Path(options.files, serving_accuracy.NOTE).write_text(json.dumps(told))
    return told


# What a process of this program does for another, of a row.
JOBS = {
    "describe": lambda row, options: describe(options),
    "write": lambda row, options: write(row, options, serving_accuracy.calibration),
    "serve": serve,
    "measure": serving_accuracy.measure,
}


def do(options):
    """Does a job, and prints what comes of it as JSON; returns the exit status."""
    try:
        row = Row(*json.loads(options.row)) if options.row else None
        print(json.dumps(JOBS[options.job](row, options)), flush=True)
    except Exception as error:  # of whatever runtime: the others are worth having
        traceback.print_exc()
        lines = str(error).replace(str(options.files), "...").strip().splitlines() or [""]
        print(f"\n{ERROR}{type(error).__name__}: {lines[0][:300]}", flush=True)
        return 1
    return 0


def parser():
    """The options; those of data have `data.` before the name of their field."""
    from libra_keras.runs import DataConfig
    from libra_keras.runs.config import flag, option_name
    from libra_keras.runs.fields import reader

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="faster_rcnn_resnet50")
    add("--run", metavar="FOLDER", help="a run folder, whose model is used instead of --model")
    add(
        "--size",
        metavar="HEIGHTxWIDTH",
        help="multiples of 32; default: 800x1344, or what --run pads landscapes to",
    )
    add("--runs", type=int, default=7, help="calls of each row with one image; 0: none")
    add("--turns", type=int, default=2, help="processes of each row with batches of 8; 0: none")
    add("--threads", type=int, default=os.cpu_count())
    add("--only", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    add("--precisions", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    add("--beside", metavar="PYTHON", help="Python interpreter with torchvision")
    add("--files", metavar="FOLDER", help="folder to keep exports in and reuse them from")
    add("--to", type=Path, metavar="FILE", help="where to write everything as JSON")
    add("--data", help="of --run: shapes, a folder, or tfds:<name>")
    add("--split", help="what AP is measured on; default: val, else test; of shapes, also a number")
    add("--calibrate-split", metavar="SPLIT", help="what calibrates int8; default: train")
    add("--num-images", type=int, metavar="N", help="that AP is measured on; default: all")
    for field in dataclasses.fields(DataConfig):
        if field.name in OF_DATA:
            kind = reader(field)
            reading = {"action": "store_true"} if kind is bool else {"type": kind}
            help, dest = "as in libra-keras evaluate", f"data.{field.name}"
            add(
                flag(option_name(field)), dest=dest, default=argparse.SUPPRESS, help=help, **reading
            )
    add("--job", choices=list(JOBS), help=argparse.SUPPRESS)
    add("--row", help=argparse.SUPPRESS)
    return parser


def main(words):
    """Runs the benchmark, or does a job for one that runs; returns the exit status."""
    options = parser().parse_args(words)
    options.words = words
    if options.job:
        return do(options)
    if options.data and not options.run:
        raise SystemExit("--data requires --run: random weights have no AP")
    if options.to and not options.to.parent.is_dir():
        raise SystemExit(f"there is no folder {options.to.parent} for --to")
    if not options.run and not options.size:
        options.size = "800x1344"
    with tempfile.TemporaryDirectory() as folder:
        options.files = options.files or folder
        try:
            compare(options)
        except Failed as error:
            raise SystemExit(f"serving_speed.py: {error}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
