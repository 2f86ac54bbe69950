"""What `serving_speed.py` writes: of the machine, of the packages, and its table in Markdown."""

import importlib.metadata
import os
import platform
import statistics
import sys
from pathlib import Path

from serving_timing import BATCH

PACKAGES = (
    *("libra-keras", "keras", "tensorflow", "numpy"),
    *("onnxruntime", "openvino", "ai-edge-litert", "tf2onnx", "onnx"),
)
FLAGS = ("amx_", "avx512_vnni", "avx_vnni", "avx512_bf16")  # how those begin that matter here
HEAD = (
    *("", "precision", "shape", "one image", "ratio", f"{BATCH} images", "ratio"),
    *("files", "AP", "AP lost [95 %]"),
)


def machine():
    """The name of the CPU, its flags that matter here, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = sorted(each for each in told.get("flags", "").split() if each.startswith(FLAGS))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": told.get("model name", platform.machine()), "flags": flags, "cores": cores}


def versions():
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def times(one, batch, first):
    """The times of a row as the table has them.

    Args:
        one: `seconds` of one image, and those of the first row `beside` them; or `error`.
        batch, first: `seconds` of batches, of the row and of the first one; or `error`.
    """
    return {
        "one image": _time(one, statistics.median, one.get("beside")),
        f"{BATCH} images": _time(batch, min, first.get("seconds")),
    }


def _time(own, middle, beside):
    """One figure of the calls of a row, and its ratio to that of the first row."""
    if not own.get("seconds"):  # failed, or not asked for
        return own
    figure = middle(own["seconds"])
    return {"figure": figure, "ratio": figure / middle(beside) if beside else None, **own}


def markdown(result):
    """The table of a result, with what it was measured on above it, and what failed below it."""
    lines = [_title(result), "", _line(HEAD), "|---" * len(HEAD) + "|"]
    lines += [_line(_cells(row, result)) for row in result["rows"]]
    failed = [
        f"- {row['runtime']}, {row['precision']}, {row['shape']}: {what}: {why}"
        for row in result["rows"]
        for what, why in _errors(row).items()
    ]
    return "\n".join([*lines, "", *(["Failed:", "", *failed, ""] if failed else [])])


def _title(result):
    machine = result["machine"]
    flags = f" ({', '.join(machine['flags'])})" if machine["flags"] else ""
    text = (
        f"{result['detector']} at {result['size']}, weights {result['weights'] / 1e6:.1f} MB; "
        f"{result['threads']} threads on {machine['cpu']}{flags}, load {result['load'][0]:.2f} at "
        f"the start. One image: median of {result['runs']} calls, ratio to the first row's beside "
        f"them; {BATCH} images: the best call in {result['turns']} turns."
    )
    if "data" in result:
        padded = "" if result["size"] == result["padded"] else f" (padded from {result['padded']})"
        text += (
            f" AP on {result['images']} images of {result['data']}, where the shape is fixed on "
            f"those that fit{padded}, and what is lost to the first row on the same ones; int8 "
            f"calibrated on {result['calibrated_on']}."
        )
    return f"{text} {', '.join(f'{name} {own}' for name, own in result['versions'].items())}."


def _cells(row, result):
    cells = [row["runtime"], _precision(row), row["shape"]]
    for time in row["times"].values():
        shown = [_seconds(time["figure"]), _two(time)] if "figure" in time else ["", ""]
        cells += ["failed", ""] if "error" in time else shown
    size = row.get("megabytes")
    return [*cells, "" if size is None else f"{size:.1f} MB", *_accuracy(row, result)]


def _precision(row):
    kept = len((row.get("int8") or {}).get("float_layers", ()))
    return f"{row['precision']}, {kept} layers in float" if kept else row["precision"]


def _seconds(value):
    return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"


def _two(time):
    return "" if time["ratio"] is None else f"{time['ratio']:.2f}"


def _accuracy(row, result):
    own = row.get("accuracy")
    if own is None:
        return "", ""
    if "error" in own:
        return "failed", ""
    shown = f"{own['AP']:.4f}"
    if own["images"] != result["images"]:
        shown += f" ({own['images']} images)"
    if "lost" not in own:
        return shown, ""
    low, high = own["interval"]
    return shown, f"{own['lost']:.4f} [{low:.4f}, {high:.4f}]"


def _errors(row):
    """What figures of a row are missing, by why they are."""
    reasons = {}
    for what, own in {**row["times"], "AP": row.get("accuracy") or {}}.items():
        if "error" in own:
            reasons.setdefault(own["error"], []).append(what)
    return {", ".join(whats): why for why, whats in reasons.items()}


def _line(cells):
    return f"| {' | '.join(cells)} |"


def finite(value):
    """Replaces NaN, which JSON lacks, with `None` in nested dicts and lists."""
    if isinstance(value, dict):
        return {name: finite(own) for name, own in value.items()}
    if isinstance(value, list):
        return [finite(own) for own in value]
    return None if value != value else value


def shown(text):
    """Prints at once: the output may be a file, and processes write into it too."""
    print(text, file=sys.stdout, flush=True)
