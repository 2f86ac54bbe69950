"""From the fields of a config to the options of a verb, and from those to a config or a run."""

import argparse
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from libra_keras import runs
from libra_keras.ranges import Range
from libra_keras.runs.config import DataConfig, TrainConfig, flag, option_name
from libra_keras.runs.defaults import default_texts
from libra_keras.runs.fields import reader
from libra_keras.runs.groups import IMAGES, SHARE_BELOW_ALL, TILE
from libra_keras.runs.precision import CHOICES, of_this_cpu, tell

# The heading of each group of the config in `--help`; groups without one come first.
HEADINGS = {
    "model": "model",
    "parts": "parts of the detector (default: as its name says)",
    "schedule": "schedule (defaults: small models | others)",
    "optimizer": "schedule (defaults: small models | others)",
    "augmentation": "augmentation of training images",
    "fine-tuning": "fine-tuning",
    "devices": "multiple devices",
    "interruptions": "interruptions",
}


FIELDS = {field.name: field for field in dataclasses.fields(DataConfig)}
# Those that say how a folder is read.
OF_FOLDERS = ("annotations", "images", "class_names", "corners", "allow_outside", "max_pixels")
TILES_AT_ONCE = 4  # where there is no `--batch`
# Those that say how images are varied.
OF_AUGMENTATION = ("augment", "short_sides", "flip", "vertical_flip", "quarter_turns")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds an option for every field of a `TrainConfig`; options that are not given are absent."""
    defaults = default_texts()
    headings = dict.fromkeys(HEADINGS.values())
    places: dict[str | None, Any] = {text: parser.add_argument_group(text) for text in headings}
    places[None] = parser
    for name, group, field in TrainConfig().options():
        heading = HEADINGS.get(field.metadata.get("group", group))
        text = _help(field).replace("{}", str(defaults[name]))
        _add(places[heading], name, field, text, dest=f"{group}.{field.name}")


def config_of(options: argparse.Namespace) -> TrainConfig:
    """Returns the config that the options of `add_config` make."""
    given: dict[str, dict[str, Any]] = {}
    for dest, value in vars(options).items():
        group, _, field = dest.partition(".")
        if field:
            given.setdefault(group, {})[field] = value
    return TrainConfig().replace(**given)


def add_data(
    parser: argparse.ArgumentParser, names: Iterable[str] = (), is_required: bool = True
) -> None:
    """Adds DATA and `--format`, and other fields of a `DataConfig`, to a verb that reads data."""
    add_fields(parser, ("source", "format", *names), is_required=is_required)


def add_fields(
    place: Any,
    names: Iterable[str],
    prefix: str = "",
    renamed: Mapping[str, str] = {},
    is_required: bool = True,
) -> None:
    """Adds fields of a `DataConfig`, some `renamed`; `prefix` keeps them apart from other options
    in the namespace."""
    for name in names:
        field = FIELDS[name]
        option = renamed.get(name, option_name(field))
        _add(place, option, field, _help(field), f"{prefix}{name}", is_required)


def data_of(options: argparse.Namespace, prefix: str = "") -> DataConfig:
    """Returns the config that the options of `add_data`, or of `add_fields`, make."""
    return DataConfig(**given_data(options, prefix))


def given_data(options: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """Returns the fields of a `DataConfig` that were given."""
    places = {name: f"{prefix}{name}" for name in FIELDS if hasattr(options, f"{prefix}{name}")}
    return {name: getattr(options, place) for name, place in places.items()}


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds RUN and `--weights`."""
    parser.add_argument(
        "run_folder",
        metavar="RUN",
        help="a run folder, a converted folder, a .keras file, or a name that libra-keras models "
        "--pretrained lists",
    )
    parser.add_argument(
        "--weights",
        default="last",
        metavar="last|best|kept-N",
        help="for a run folder: the weights of the last step (default), the best ones, or those "
        "kept after a share of the run, such as kept-0.5",
    )


def load_run(options: argparse.Namespace) -> "runs.Run":
    """Opens the RUN that `add_run` has read, with the limit of `add_limit` and the precision of
    `add_precision` if there are any, and leaves all GPUs but one to other programs."""
    from libra_keras.devices.hardware import leave_gpus

    leave_gpus(1)
    policy = getattr(options, "policy", None)
    run = runs.open(options.run_folder, options.weights, policy)
    if hasattr(options, "limit"):
        run.model.max_detections = options.limit
    if hasattr(options, "policy") and policy is None:
        tell(run.model, "inference")
    return run


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Adds `--max-detections` to a verb that detects."""
    field = next(field for name, _, field in TrainConfig().options() if name == "max_detections")
    _add(parser, "max_detections", field, _help(field), dest="limit")


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Adds `--precision` to a verb that detects."""
    text = f"what layers compute with; {of_this_cpu()}. Default: as in training"
    parser.add_argument("--precision", dest="policy", choices=CHOICES, help=text)


def add_pixels(parser: argparse.ArgumentParser) -> None:
    """Adds `--max-pixels` to a verb that reads images but no data set."""
    add_fields(parser, ["max_pixels"])


def add_tiles(parser: argparse.ArgumentParser) -> None:
    """Adds `--tile` and `--overlap` to a verb that detects."""
    text = "cut larger images into tiles with this side in pixels; default: no tiles"
    add_number(parser, "--tile", TILE, text, default=None)
    text = "share of a tile that overlaps the next one; default: 0.2"
    add_number(parser, "--overlap", SHARE_BELOW_ALL, text, default=None)


def tiling_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `detect` for tiles; `{}` if none are requested."""
    tile, overlap = options.tile, options.overlap
    if tile is None and overlap is not None:
        raise ValueError("--overlap requires --tile")
    if tile is None:
        return {}
    at_once = getattr(options, "batch", TILES_AT_ONCE)
    return {"tile": tile, "overlap": 0.2 if overlap is None else overlap, "batch_size": at_once}


def add_number(place: Any, name: str, within: Range, help: str, **details: Any) -> None:
    """Adds a numeric option; a value out of range is refused with one line."""
    place.add_argument(name, type=_told(within.read), help=_limited(help, within), **details)


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Adds `--batch` to a verb that detects."""
    add_number(parser, "--batch", IMAGES, "images at a time; default: 4", default=4, metavar="N")


def _add(place, name, field, text, dest, is_required=False):
    """Adds the option of a field; only DATA is positional."""
    details = {"help": text, "default": argparse.SUPPRESS, **_reading(field)}
    for detail in ("metavar", "choices"):
        if detail in field.metadata:
            details[detail] = field.metadata[detail]
    if name == "data":
        place.add_argument(dest, nargs=None if is_required else "?", **details)
    else:
        if "choices" not in details and "action" not in details:
            details.setdefault("metavar", name.upper())
        place.add_argument(flag(name), dest=dest, **details)


def _reading(field):
    """How argparse reads the value of a field."""
    kind = reader(field)
    if kind is not bool:
        return {"type": _told(kind)}
    return {"action": "store_true" if field.default is False else argparse.BooleanOptionalAction}


def _told(read):
    """`read` with errors that argparse passes on: it replaces the messages of other kinds."""

    @functools.wraps(read)  # argparse names a type in its own errors
    def parse(text):
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _help(field):
    text = field.metadata["help"].replace("{cpu}", of_this_cpu())
    return _limited(text, field.metadata["within"]) if "within" in field.metadata else text


def _limited(text, within):
    return f"{text} ({within.limits})"
