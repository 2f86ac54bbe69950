"""Export a trained detector for programs without Keras: images in, boxes out."""

import argparse
import dataclasses
import importlib
import json
import re

from libra_keras.cli.options import (
    FIELDS,
    OF_FOLDERS,
    add_fields,
    add_number,
    add_run,
    data_of,
    load_run,
)
from libra_keras.ranges import SHARE, whole
from libra_keras.runs.config import flag, option_name
from libra_keras.runs.groups import BOXES

FORMATS = ("saved_model", "onnx", "openvino", "litert")  # modules of `libra_keras.export`
VERSIONS = whole(1, 2**63 - 1)  # as TensorFlow Serving counts them
PIXELS = whole(1)
WITH_SHAPE = ("onnx", "openvino")
# How --calibrate is read. `--format` is taken; so is `--max-pixels`, which is for a saved_model.
OF_CALIBRATION = (
    *("format", "skip_bad", "proposals_file"),
    *(name for name in OF_FOLDERS if name != "max_pixels"),
)
RENAMED, PREFIX = {"format": "data_format"}, "calibration."
EXAMPLES = """examples:
  libra-keras export runs/mine --to exported/mine
      writes exported/mine/1, a SavedModel that TensorFlow Serving serves as is;
      in another program: tf.saved_model.load("exported/mine/1").signatures
  libra-keras export runs/mine --to exported/mine --score-threshold 0.5 --precision bfloat16
      the next version beside it, with other settings
  libra-keras export runs/mine --to exported/onnx --format onnx
      writes detector.onnx and detector.json; recipes/run_onnx.py runs them
  libra-keras export runs/mine --to exported/landscape --format openvino --shape 800x1344
      for images that are padded to this size, which lets OpenVINO plan ahead
  libra-keras export runs/mine --to exported/int8 --format onnx --precision int8 \\
      --calibrate my_photos --split val
      for CPUs: calibrated on some images, AP before and after measured on others; --corners,
      --annotations and the like say how they are read, as for libra-keras evaluate
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_run(parser)
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        required=True,
        help="folder for all versions of a saved_model, which takes its name; for other formats, "
        "folder for the files",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="what to write; default: saved_model"
    )
    add_number(
        parser,
        "--version",
        VERSIONS,
        "of a saved_model; default: one more than the highest in the folder, or 1",
        metavar="N",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier export; for a saved_model, the given --version",
    )
    parser.add_argument(
        "--shape",
        type=_shape,
        metavar="HEIGHTxWIDTH",
        help="for onnx and openvino: size that all images are padded to, in multiples of 32; "
        "default: any size",
    )
    _add_settings(parser.add_argument_group("settings", "Default: the detector's own."))
    _add_calibration(parser.add_argument_group("calibration of int8"))


def _shape(text):
    """Reads `800x1344`."""
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected a height and a width such as 800x1344, found {text[:80]!r}"
        )
    return tuple(map(int, found.groups()))


def _add_settings(group):
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the layers' computations and stored weights; boxes and scores are always "
        "float32. bfloat16 is for a saved_model; int8 is for onnx and openvino, requires "
        "--calibrate, and keeps layers in float that would cost too much AP; default: float32",
    )
    add_number(group, "--score-threshold", SHARE, "keep detections that score higher", metavar="P")
    add_number(
        group, "--nms-iou", SHARE, "overlap above which only the better box is kept", metavar="P"
    )
    add_number(group, "--max-detections", BOXES, "maximum per image", metavar="N")
    add_number(
        group,
        "--max-pixels",
        PIXELS,
        "for a saved_model: refuse larger images before decoding them; default: 89478485",
        metavar="N",
    )


def _add_calibration(group):
    group.add_argument(
        "--calibrate",
        metavar="DATA",
        help="images with boxes of the detector's classes, as for libra-keras train; some "
        "calibrate, AP is measured on others",
    )
    group.add_argument("--split", help="of --calibrate; default: train")
    add_fields(group, OF_CALIBRATION, PREFIX, RENAMED)


def run(options) -> int:
    """Exports the detector and returns the exit status."""
    from libra_keras.files import atomic
    from libra_keras.runs import inputs
    from libra_keras.runs.progress import is_watched

    _check_options(options)
    module = importlib.import_module(f"libra_keras.export.{options.format}")
    given = {"version": options.version} if options.format == "saved_model" else {}
    settings = _settings(options)
    # Before loading a model for nothing.
    module.check_export(
        options.to, overwrite=options.overwrite, precision=settings.precision, **given
    )
    if options.shape:
        given["shape"] = options.shape
    read = _read(options) if options.calibrate else None
    model = load_run(options).model
    if read is not None:
        own, data = read
        given["calibration"] = inputs.add_given(data, own.proposals_file, model)
        given["verbose"] = 1 if is_watched() else 2
    export = getattr(module, f"export_{options.format}")
    try:
        written = export(model, options.to, overwrite=options.overwrite, options=settings, **given)
    except Exception as error:  # TensorFlow has its own for a full disk
        reason = atomic.disk_error(error)
        if reason is None:
            raise
        raise OSError(f"--to {options.to}: {reason}") from error
    print(f"{written}: {options.format}, {settings.precision}")
    if options.calibrate:
        _print_int8(written)
    if options.format == "saved_model":
        print(f"saved_model_cli show --dir {written} --all shows its inputs and outputs")
    return 0


def _read(options):
    """The config of the data that calibrate, and the data."""
    from libra_keras.runs import inputs

    own = dataclasses.replace(data_of(options, PREFIX), source=options.calibrate)
    try:
        data = inputs.load(own, options.split, "train")
    except ValueError as error:  # which advises what other verbs call it
        raise ValueError(str(error).replace("--format", "--data-format")) from error
    print(f"{data.summary()}; calibrating and measuring takes minutes", flush=True)
    return own, data


def _print_int8(written):
    """Prints what the note says of AP."""
    told = json.loads(written.with_suffix(".json").read_text())["int8"]
    lost = [
        f"{name.replace('_', ' in ')} {told[name]}" for name in told if "@" in name or "AP" in name
    ]
    print(f"{', '.join(lost)} on {told['images']} images of {told['data']}")
    if told["float_layers"]:
        print(f"in float: {', '.join(told['float_layers'])}")


def _check_options(options):
    """Raises if an option would have no effect."""
    if options.calibrate and options.precision != "int8":
        raise ValueError(
            f"--calibrate requires --precision int8. Received: --precision {options.precision}"
        )
    given = [name for name in OF_CALIBRATION if hasattr(options, f"{PREFIX}{name}")]
    names = [RENAMED.get(name, option_name(FIELDS[name])) for name in given]
    names += ["split"] if options.split else []
    if names and not options.calibrate:
        raise ValueError(f"{flag(names[0])} requires --calibrate: it says how those data are read")
    if options.precision == "int8" and not options.calibrate:
        raise ValueError(
            "--precision int8 requires --calibrate DATA: images like those that the detector will "
            "see, with their boxes"
        )
    if options.shape and options.format not in WITH_SHAPE:
        raise ValueError(
            f"--shape applies only to {' and '.join(WITH_SHAPE)}. "
            f"Received: --format {options.format}"
        )
    if options.format == "saved_model":
        if options.overwrite and options.version is None:
            raise ValueError(
                "--overwrite requires --version N for a saved_model: without it, the export "
                "becomes the next version and replaces nothing"
            )
        return
    for name in ("version", "max_pixels"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"{flag(name)} applies only to a saved_model. Received: --format {options.format}"
            )


def _settings(options):
    from libra_keras.export import ExportOptions

    names = ("precision", "score_threshold", "nms_iou", "max_detections", "max_pixels")
    given = {name: getattr(options, name) for name in names}
    return ExportOptions(**{name: value for name, value in given.items() if value is not None})
