"""Write a trained detector for programs without Keras: images in, boxes out."""

import argparse
import importlib
import re

from libra_keras.cli.options import add_number, add_run, load_run
from libra_keras.ranges import SHARE, whole
from libra_keras.runs.config import flag
from libra_keras.runs.groups import BOXES

FORMATS = ("saved_model", "onnx", "openvino", "litert")  # modules of `libra_keras.export`
VERSIONS = whole(1, 2**63 - 1)  # as TensorFlow Serving counts them
PIXELS = whole(1)
WITH_SHAPE = ("onnx", "openvino")
EXAMPLES = """examples:
  libra-keras export runs/mine --to exported/mine
      writes exported/mine/1, a SavedModel that TensorFlow Serving serves as it is;
      in another program: tf.saved_model.load("exported/mine/1").signatures
  libra-keras export runs/mine --to exported/mine --score-threshold 0.5 --precision bfloat16
      the next version beside it, with other settings
  libra-keras export runs/mine --to exported/onnx --format onnx
      writes detector.onnx and detector.json; recipes/run_onnx.py runs them
  libra-keras export runs/mine --to exported/landscape --format openvino --shape 800x1344
      for images that are padded to this size, which OpenVINO can plan ahead for
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_run(parser)
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        required=True,
        help="of all versions of a saved_model, whose name is its own; else of the files",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="what to write; default: saved_model"
    )
    add_number(
        parser,
        "--version",
        VERSIONS,
        "of a saved_model. Default: the highest in the folder and 1, or 1",
        metavar="N",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier export; of a saved_model the --version that is given",
    )
    parser.add_argument(
        "--shape",
        type=_shape,
        metavar="HEIGHTxWIDTH",
        help="of onnx and openvino: what all images are padded to, multiples of 32. "
        "Default: any size",
    )
    _add_settings(parser.add_argument_group("settings", "Default: the detector's own."))


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
        choices=("float32", "bfloat16"),
        default="float32",
        help="what layers compute with and their weights are stored in; boxes and scores are "
        "float32 always. Default: float32",
    )
    add_number(group, "--score-threshold", SHARE, "detections score more", metavar="P")
    add_number(
        group, "--nms-iou", SHARE, "overlap from which the better box stays alone", metavar="P"
    )
    add_number(group, "--max-detections", BOXES, "most of an image", metavar="N")
    add_number(
        group,
        "--max-pixels",
        PIXELS,
        "of a saved_model: images with more are refused before they are decoded. Default: 89478485",
        metavar="N",
    )


def run(options) -> int:
    """Exports as the options say; returns the exit status."""
    from libra_keras.files import atomic

    _check_options(options)
    module = importlib.import_module(f"libra_keras.export.{options.format}")
    given = {"version": options.version} if options.format == "saved_model" else {}
    # Before a model is loaded for nothing.
    module.check_export(options.to, overwrite=options.overwrite, **given)
    if options.shape:
        given["shape"] = options.shape
    settings = _settings(options)
    model = load_run(options).model
    export = getattr(module, f"export_{options.format}")
    try:
        written = export(model, options.to, overwrite=options.overwrite, options=settings, **given)
    except Exception as error:  # TensorFlow's of a full disk are its own
        reason = atomic.disk_error(error)
        if reason is None:
            raise
        raise OSError(f"--to {options.to}: {reason}") from error
    print(f"{written}: {options.format}, {settings.precision}")
    if options.format == "saved_model":
        print(f"saved_model_cli show --dir {written} --all shows what it takes and gives")
    return 0


def _check_options(options):
    """Raises if an option would have no effect."""
    if options.shape and options.format not in WITH_SHAPE:
        raise ValueError(
            f"Only {' and '.join(WITH_SHAPE)} files have --shape. "
            f"Received: --format {options.format}"
        )
    if options.format == "saved_model":
        if options.overwrite and options.version is None:
            raise ValueError(
                "--overwrite needs --version N for a saved_model: without it the export becomes "
                "the next version and replaces none"
            )
        return
    for name in ("version", "max_pixels"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"Only a saved_model has {flag(name)}. Received: --format {options.format}"
            )


def _settings(options):
    from libra_keras.export import ExportOptions

    names = ("precision", "score_threshold", "nms_iou", "max_detections", "max_pixels")
    given = {name: getattr(options, name) for name in names}
    return ExportOptions(**{name: value for name, value in given.items() if value is not None})
