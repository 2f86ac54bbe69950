"""Which folder a run gets, what is recorded there, and whether it can continue."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from libra_keras.data import DetectionData
from libra_keras.data.sources import TFDS, is_voc, short_name
from libra_keras.devices import Devices, device_name, missing_gpu_advice
from libra_keras.files.reading import explained
from libra_keras.runs.config import DataConfig, TrainConfig, flag, from_settings, settings
from libra_keras.runs.defaults import rate_scaled_from
from libra_keras.runs.folder import RunFolder, numbers_of
from libra_keras.runs.precision import AUTO, BFLOAT16, FLOAT32, policy_of

# Settings that change no weights and no numbers.
FREE = {"to", "overwrite", "save_every", "cache"}
# Settings that change the numbers of a run, which had their defaults before they were known.
LATER = {"average_last", "early_stop", "augment", "short_sides", "vertical_flip", "quarter_turns"}
# Settings that may be paths, which can be spelled in several ways, and words instead of a path.
OF_DATA = ("data", "annotations", "images", "proposals_file", "val_proposals_file")
PATHS, WORDS = {*OF_DATA, "init", "backbone_weights"}, {"shapes", "imagenet", "none"}
# What the data and the program decide, in addition to the settings.
DECIDED = ("train", "val", "class_names", "steps_per_epoch", "input_policy", "backend")


@contextlib.contextmanager
def opened(config: TrainConfig) -> Iterator[RunFolder]:
    """Finds the folder of a run, and locks it if the run in it continues; nothing is made or
    deleted yet."""
    folder = _named(config) if config.run.folder else _numbered(stem(config), config)
    try:
        yield folder
    finally:
        folder.release()


def _named(config):
    """The folder that the config names, held if the run in it continues."""
    folder = RunFolder(config.run.folder)
    if not folder.is_unfinished or _begins_anew(folder, config):
        _check_unused(folder, config.run.overwrite)
        return folder
    folder.check_writable()
    _check_settings(folder, config)
    folder.hold()
    folder.goes_on = True
    return folder


def _numbered(name, config):
    """The newest folder of an unfinished run with the same settings, held, or the next one."""
    for number in reversed(numbers_of(name)):
        folder = RunFolder(f"runs/{name}-{number}")
        if folder.is_unfinished and _has_settings(folder, config):
            try:
                folder.hold()
            except ValueError:  # the same command is at work, in another window
                continue
            folder.goes_on = True
            return folder
    RunFolder("runs").check_writable()
    return RunFolder.next_of(name)


def _has_settings(folder, config):
    """Whether the run in a folder has these settings; `False` if it cannot be read."""
    try:
        recorded = recorded_settings(folder)
    except (ValueError, OSError):
        return False
    return not differences(recorded, settings(config))


def stem(config: TrainConfig) -> str:
    """Returns the name, without the number, of the folder of a run whose config names none."""
    start = config.model.name or Path(config.model.init or "model").stem
    return f"{start}-{short_name(config.data.source)}"


def record_of(
    config: TrainConfig, train: DetectionData, val: DetectionData, model: keras.Model, steps: int
) -> dict[str, Any]:
    """Returns the content of `config.json`: everything needed to understand and repeat a run."""
    return {
        "config": config.to_dict(),
        "settings": {
            **settings(config),
            "rate_scaled_from": rate_scaled_from(config),
            "started_in": os.getcwd(),  # where relative paths begin
        },
        "device": _device(),
        "steps_per_epoch": steps,
        "train": train.summary(),
        "val": val.summary(),
        "class_names": list(train.class_names),
        "input_policy": model.input_policy.get_config(),
        "parameters": model.count_params(),
        "dtype_policy": model.dtype_policy.name,
    }


def _device():
    """The name of the device of a run; warns if it could have been a GPU."""
    device = device_name()
    if advice := missing_gpu_advice(device):
        print(f"Warning: {advice}", file=sys.stderr, flush=True)
    return device


def recorded_config(folder: RunFolder) -> TrainConfig | None:
    """Returns the config of the run in a folder; `None` if there is none."""
    record = folder.read_config()
    with explained(folder.path / "config.json"):
        if "config" in record:
            return TrainConfig.from_dict(record["config"])
        return from_settings(record["settings"]) if "settings" in record else None


def reading_of(folder: RunFolder, source: str) -> DataConfig | None:
    """Returns how the run in a folder read its data, with paths as they lead from here; `None` if
    there is no run, or `source` is not what it learned from."""
    config, recorded = recorded_config(folder), recorded_settings(folder)
    if config is None or not _is_equal("data", {"data": None, **recorded}, {"data": source}):
        return None
    own, start = config.data, recorded.get("started_in")
    start = start if isinstance(start, str) else ""
    paths = {name: getattr(own, name) for name in ("annotations", "images")}
    paths = {name: path and _place(path, start) for name, path in paths.items()}
    # Proposals are of other images where another split is measured.
    return dataclasses.replace(
        own, source=source, proposals_file=None, val_proposals_file=None, **paths
    )


def recorded_settings(folder: RunFolder) -> dict[str, Any]:
    """Returns the settings of the run in a folder; `{}` if there are none."""
    found = folder.read_config().get("settings", {})
    if not isinstance(found, dict):
        raise ValueError(
            f"{folder.path / 'config.json'} cannot be read: 'settings' must be an object. "
            f"Received: {found!r:.80}"
        )
    freeze = found.get("freeze")  # may have been written with blanks once
    return {**found, "freeze": freeze.replace(" ", "")} if isinstance(freeze, str) else found


def differences(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns the names of the settings that would give another run; one that an earlier version
    did not have counts as equal, except for parts that replace those which it trained."""
    names = [name for name in recorded if name in given and name not in FREE]
    changed = [name for name in names if not _is_equal(name, recorded, given)]
    if given.get("precision") == AUTO and recorded.get("precision") in (FLOAT32, BFLOAT16):
        changed.remove("precision")  # what `auto` may have stood for
    fields, usual = {n: f for n, _, f in TrainConfig().options()}, settings(TrainConfig())
    new = [name for name in given if recorded and name in fields and name not in recorded]
    return changed + [
        name
        for name in new
        if (fields[name].metadata.get("group") == "parts" or name in LATER)
        and given[name] != usual[name]
    ]


def _is_equal(name, recorded, given):
    """Whether a setting is the same; of paths, whether they lead to the same place."""
    there, here = recorded[name], given[name]
    is_path = name in PATHS and isinstance(there, str) and isinstance(here, str)
    if there == here or not is_path:
        return there == here
    # An earlier version did not note it: relative paths are then equal to none but themselves.
    folder = recorded.get("started_in")
    return _place(there, folder if isinstance(folder, str) else "") == _place(here, os.getcwd())


def _place(text, folder):
    """Where a path leads from a folder; the text itself if it is no path."""
    if text in WORDS or text.startswith(TFDS):
        return text
    try:
        return os.path.normpath(os.path.join(folder, os.path.expanduser(text)))
    except ValueError:  # of a damaged file
        return text


def settled(config: TrainConfig, folder: RunFolder | None, devices: Devices) -> TrainConfig:
    """Returns the config with what a run that continues has settled before: how its data are
    spelled, how it reads VOC's corners, and what the precision `auto` stands for, which the
    chief's machine decides at first."""
    config = _spelled_as_before(config, folder)
    if devices.agreed(int(reads_as_before(config, folder))):
        config = config.replace(data={"corners": "pixels"})
    if config.model.precision != AUTO:
        return config
    goes_on = folder is not None and folder.goes_on
    own = recorded_settings(folder).get("precision") if goes_on else policy_of(AUTO)
    precision = BFLOAT16 if devices.agreed(int(own == BFLOAT16)) else FLOAT32
    if folder is not None:
        print(f"--precision auto: {precision}{', as before' if goes_on else ''}", flush=True)
    return config.replace(model={"precision": precision})


def _spelled_as_before(config, folder):
    """A run notes damaged files by their paths, and would count them twice under two."""
    if folder is None or not folder.goes_on:
        return config
    recorded, given = {**recorded_settings(folder), "started_in": os.getcwd()}, settings(config)
    same = [n for n in OF_DATA if n in recorded and _is_equal(n, recorded, given)]
    fields = {name: field.name for name, _, field in config.options()}
    return config.replace(data={fields[name]: recorded[name] for name in same})


def reads_as_before(config: TrainConfig, folder: RunFolder | None) -> bool:
    """Whether a run continues that began when all of VOC's corners were read as pixels."""
    if folder is None or not folder.goes_on or "corners" in recorded_settings(folder):
        return False
    own = config.data
    return own.corners == "auto" and is_voc(own.source, own.format, own.annotations)


def check_record(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Checks that the unfinished run in a folder is this one, with the same data and program."""
    recorded = folder.read_config()
    given = json.loads(json.dumps({**record, "backend": keras.backend.backend()}, default=str))
    for name in DECIDED:
        if name in recorded and recorded[name] != given[name]:
            raise ValueError(
                f"{folder.path} contains an unfinished run that cannot continue: its {name} was "
                f"{recorded[name]}, now it is {given[name]}. Choose another "
                "folder with --to, or delete this one"
            )


def _begins_anew(folder, config):
    """Whether `overwrite` replaces a run; it keeps its own when a scheduler repeats the command."""
    if not config.run.overwrite:
        return False
    try:
        recorded = recorded_settings(folder)
    except ValueError:  # it is damaged and will be replaced
        return True
    return not recorded.get("overwrite") or bool(differences(recorded, settings(config)))


def _check_unused(folder, overwrite):
    """Raises before the data are read if a folder is in use, with a hint if a run is finished."""
    try:
        folder.check(overwrite)
    except ValueError as error:
        if overwrite or not folder.is_finished:
            raise
        hint = f"It contains a finished run; to train on from its weights, use --init {folder.path}"
        raise ValueError(f"{error}. {hint}") from None


def _check_settings(folder, config):
    recorded, given = recorded_settings(folder), settings(config)
    different = differences(recorded, given)
    if different:
        there = {**settings(TrainConfig()), **recorded}
        named = ", ".join(
            f"{_option(name)} {there[name]} there, {given[name]} here" for name in different
        )
        raise ValueError(
            f"{folder.path} contains an unfinished run with other settings: {named}. Use the same "
            "settings to continue it, start over with --overwrite, or choose another folder with "
            "--to"
        )


def _option(name):
    return "DATA" if name == "data" else flag(name)
