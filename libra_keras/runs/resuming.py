"""Which folder a run gets: a new one, or that of a run which was interrupted and goes on."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from libra_keras.files import atomic
from libra_keras.runs.checks import flag
from libra_keras.runs.config import TrainConfig, from_settings, settings
from libra_keras.runs.folder import RunFolder, numbers_of

# Settings that change no weights and no numbers.
FREE = {"to", "overwrite", "save_every", "cache"}
# What the data and the program decide, beside the settings.
DECIDED = ("train", "val", "class_names", "steps_per_epoch", "input_policy", "backend")


@contextlib.contextmanager
def opened(config: TrainConfig) -> Iterator[RunFolder]:
    """Finds where a run goes, and whether it goes on; no other process may train there meanwhile.

    Without a folder in the config, a run goes on in the newest `runs/<model>-<data>-<number>` that
    is unfinished and has the same settings; else it gets the next number. With `overwrite` a run
    begins anew, unless it is an unfinished one that this very config began. Nothing is made or
    deleted yet: `RunFolder.begin` does that.

    Args:
        config: `TrainConfig`, resolved.

    Yields:
        `RunFolder`, locked if the run goes on.

    Raises:
        ValueError: if the folder is in use, or holds an unfinished run with other settings.
    """
    folder = _named(config) if config.run.folder else _numbered(stem(config), config)
    try:
        yield folder
    finally:
        folder.release()


def _named(config):
    """The folder that the config names, held if the run in it goes on."""
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
        if folder.is_unfinished and not differences(recorded_settings(folder), settings(config)):
            try:
                folder.hold()
            except ValueError:  # the same command is at work, in another window
                continue
            folder.goes_on = True
            return folder
    RunFolder("runs").check_writable()
    return RunFolder.next_of(name)


def stem(config: TrainConfig) -> str:
    """Name of the folders of runs whose config names none, without their numbers.

    Example:

    >>> from libra_keras.runs import ModelConfig, TrainConfig
    >>> from libra_keras.runs.resuming import stem
    >>> stem(TrainConfig(model=ModelConfig("libra_rpn_small")))
    'libra_rpn_small-shapes'
    """
    from libra_keras.data.sources import short_name

    start = config.model.name or Path(config.model.init or "model").stem
    return f"{start}-{short_name(config.data.source)}"


def recorded_config(folder: RunFolder) -> TrainConfig | None:
    """Returns the config of the run in a folder; `None` if there is none.

    Raises:
        ValueError: if what is recorded is no config.
    """
    record = folder.read_config()
    try:
        if "config" in record:
            return TrainConfig.from_dict(record["config"])
        return from_settings(record["settings"]) if "settings" in record else None
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{folder.path / 'config.json'} holds no config of a run: {error}"
        ) from None


def recorded_settings(folder: RunFolder) -> dict[str, Any]:
    """Returns the settings of the run in a folder; `{}` if there are none."""
    found = folder.read_config().get("settings", {})
    freeze = found.get("freeze")  # may have been written with blanks once
    return {**found, "freeze": freeze.replace(" ", "")} if freeze else found


def differences(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns the names of the settings that would give another run.

    A setting that an earlier version did not have counts as equal.

    Example:

    >>> from libra_keras.runs.resuming import differences
    >>> differences({"epochs": 2, "to": "a"}, {"epochs": 3, "to": "b", "new": 1})
    ['epochs']
    """
    names = [name for name in recorded if name in given and name not in FREE]
    return [name for name in names if recorded[name] != given[name]]


def reads_as_before(config: TrainConfig, folder: RunFolder | None) -> bool:
    """Whether a run goes on that began when all of VOC's corners were read as pixels."""
    from libra_keras.data.sources import is_voc

    if folder is None or not folder.goes_on or "corners" in recorded_settings(folder):
        return False
    return config.data.corners == "auto" and is_voc(config.data.source, config.data.format)


def check_record(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Checks that the unfinished run in a folder is this one.

    Args:
        folder: `RunFolder` of a run that goes on.
        record: dict for its `config.json`, as this program would write it.

    Raises:
        ValueError: if the data or the program are others.
    """
    import keras

    recorded = folder.read_config()
    given = json.loads(json.dumps({**record, "backend": keras.backend.backend()}, default=str))
    for name in DECIDED:
        if name in recorded and recorded[name] != given[name]:
            raise ValueError(
                f"{folder.path} holds an unfinished run that cannot go on: its {name} was "
                f"{recorded[name]}, now it is {given[name]}. Choose another "
                "folder with --to, or delete this one"
            )


@contextlib.contextmanager
def disk_explained(path: Path) -> Iterator[None]:
    """Turns what libraries raise over a full or read-only disk into an error that names the folder.

    Args:
        path: of the run folder.

    Raises:
        OSError: if the error in the block is about the disk.

    Example:

    >>> from libra_keras.runs.resuming import disk_explained
    >>> with disk_explained("runs/mine"):
    ...     raise RuntimeError("flush failed: No space left on device; errno = 28")
    Traceback (most recent call last):
    OSError: Files cannot be written to runs/mine: No space left on device. What was saved before \
is whole: once there is room, the same command goes on
    """
    try:
        yield
    except Exception as error:
        why = atomic.disk_error(error)
        if why is None:
            raise
        raise OSError(
            f"Files cannot be written to {path}: {why}. What was saved before is whole: "
            "once there is room, the same command goes on"
        ) from error


def _begins_anew(folder, config):
    """Whether `overwrite` replaces a run: not its own, if a scheduler repeats the command."""
    recorded = recorded_settings(folder)
    is_own = recorded.get("overwrite") and not differences(recorded, settings(config))
    return config.run.overwrite and not is_own


def _check_unused(folder, overwrite):
    """Raises before the data are read if a folder is in use; a finished run can go further."""
    try:
        folder.check(overwrite)
    except ValueError as error:
        if overwrite or not folder.is_finished:
            raise
        hint = f"It holds a finished run; to train further from its weights: --init {folder.path}"
        raise ValueError(f"{error}. {hint}") from None


def _check_settings(folder, config):
    recorded, given = recorded_settings(folder), settings(config)
    different = differences(recorded, given)
    if different:
        named = ", ".join(
            f"{_option(name)} {recorded[name]} there, {given[name]} here" for name in different
        )
        raise ValueError(
            f"{folder.path} holds an unfinished run with other settings: {named}. Give the same "
            "to go on with it, begin anew with --overwrite, or choose another folder with --to"
        )


def _option(name):
    return "DATA" if name == "data" else flag(name)
