"""Where `libra-keras train` writes to: a new run folder, or one of a run that was interrupted."""

import contextlib
import json
import re
from pathlib import Path

from libra_keras import atomic

# Settings that change no weights and no numbers.
FREE = {"to", "overwrite", "save_every", "cache"}
# What the data and the program decide, beside the settings.
DECIDED = ("train", "val", "class_names", "steps_per_epoch", "input_policy", "backend")
COPIES = 4  # of weights and optimizer at most: saved, being saved, best, and room for the rest


def add_arguments(group):
    """Adds the options about runs that are interrupted or repeated."""
    group.add_argument(
        "--save-every",
        type=int,
        default=500,
        metavar="N",
        help="steps after which the run is saved, to go on if it is killed; 0 saves when epochs "
        "end; default 500",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="the same command gives the same weights bit for bit; may be slower",
    )


def stem(options):
    """Name of the folders of runs without `--to`, without their numbers.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.resuming import stem
    >>> stem(argparse.Namespace(model="libra_rpn_small", init=None, data="shapes"))
    'libra_rpn_small-shapes'
    """
    from libra_keras.cli.datasets import short_name

    return f"{options.model or Path(options.init).stem}-{short_name(options.data)}"


@contextlib.contextmanager
def opened(options):
    """Finds where a run goes, and whether it goes on; no other process may train there meanwhile.

    Without `--to` a run goes on in the newest `runs/<model>-<data>-<number>` that is unfinished
    and has the same settings; else it gets the next number. With `--overwrite` a run begins anew,
    unless it is an unfinished one that this very command began. Nothing is made or deleted yet.

    Args:
        options: namespace of `libra-keras train`, resolved.

    Yields:
        `Place`.

    Raises:
        ValueError: if the folder is in use, or holds an unfinished run with other settings.
    """
    from libra_keras.training.run import RunFolder

    with contextlib.ExitStack() as locks:
        if options.to:
            folder = RunFolder(options.to)
            if folder.is_unfinished and not _begins_anew(folder, options):
                folder.check_writable()
                _check_settings(folder, options)
                locks.enter_context(folder.lock())
                yield Place(folder, options, locks, goes_on=True)
                return
            folder.check(options.overwrite)  # said before the data are read
            yield Place(folder, options, locks)
            return
        for number in sorted(_numbers(stem(options)), reverse=True):
            folder = RunFolder(Path("runs") / f"{stem(options)}-{number}")
            if folder.is_unfinished and not differences(settings_of(folder), settings(options)):
                try:
                    locks.enter_context(folder.lock())
                except ValueError:  # the same command is at work, in another window
                    continue
                yield Place(folder, options, locks, goes_on=True)
                return
        RunFolder("runs").check_writable()
        yield Place(None, options, locks)


@contextlib.contextmanager
def disk_explained(folder):
    """Turns what libraries raise over a full or read-only disk into an error that names the folder.

    Args:
        folder: `RunFolder`.

    Raises:
        OSError: if the error in the block is about the disk.

    Example:

    >>> from libra_keras.cli.resuming import disk_explained
    >>> from libra_keras.training.run import RunFolder
    >>> with disk_explained(RunFolder("runs/mine")):
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
            f"Files cannot be written to {folder.path}: {why}. What was saved before is whole: "
            "once there is room, the same command goes on"
        ) from error


class Place:
    """Where a run goes.

    Args:
        folder: `RunFolder`; `None` for the next one that is free.
        options: namespace of `libra-keras train`.
        locks: `ExitStack` that keeps the folder's lock.
        goes_on: bool, whether an unfinished run in it goes on.

    Attributes:
        batches: int, batches that the run has trained on already.
    """

    def __init__(self, folder, options, locks, goes_on=False):
        self.folder = folder
        self.options = options
        self.locks = locks
        self.goes_on = goes_on
        self.batches = folder.checkpoints.read()["batches"] if goes_on else 0

    def prepare(self, record, model):
        """Makes the run folder, or checks that the unfinished run in it is this one.

        Args:
            record: dict for `config.json`.
            model: compiled detector.

        Returns:
            `RunFolder`.

        Raises:
            ValueError: if the data or the program are others than those of the unfinished run.
            OSError: if the disk is too small.
        """
        from libra_keras.training.run import RunFolder

        if self.goes_on:
            _check_record(self.folder, record)
            self.folder.checkpoints.check_space(model, copies=1)
            return self.folder
        path = self.folder.path if self.folder else _next_folder(self.options)
        RunFolder(path).checkpoints.check_space(model, COPIES)
        self.folder = RunFolder.create(path, self.options.overwrite)
        self.locks.enter_context(self.folder.lock())
        self.folder.write_config(record)
        self.folder.write_architecture(model)
        return self.folder


def settings(options):
    """Returns all options as `config.json` records them: a dict.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.resuming import settings
    >>> settings(argparse.Namespace(verb="train", epochs=2))
    {'epochs': 2}
    """
    own = {name: value for name, value in vars(options).items() if name not in ("run", "verb")}
    return json.loads(json.dumps(own, default=str))


def settings_of(folder):
    """Returns the settings that a run folder has recorded; `{}` if there is no such record."""
    return _config(folder).get("settings", {})


def differences(recorded, given):
    """Returns the names of the settings that would give another run.

    A setting that an earlier version did not have counts as equal.

    Example:

    >>> from libra_keras.cli.resuming import differences
    >>> differences({"epochs": 2, "to": "a"}, {"epochs": 3, "to": "b", "new": 1})
    ['epochs']
    """
    names = [name for name in recorded if name in given and name not in FREE]
    return [name for name in names if recorded[name] != given[name]]


def _config(folder):
    try:
        return json.loads((folder.path / "config.json").read_text())
    except (OSError, ValueError):
        return {}


def _begins_anew(folder, options):
    """Whether `--overwrite` replaces a run: not its own, if a scheduler repeats the command."""
    recorded = settings_of(folder)
    is_own = recorded.get("overwrite") and not differences(recorded, settings(options))
    return options.overwrite and not is_own


def _check_settings(folder, options):
    recorded, given = settings_of(folder), settings(options)
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
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"


def _check_record(folder, record):
    import keras

    recorded = _config(folder)
    given = json.loads(json.dumps({**record, "backend": keras.backend.backend()}, default=str))
    for name in DECIDED:
        if name in recorded and recorded[name] != given[name]:
            raise ValueError(
                f"{folder.path} holds an unfinished run that cannot go on: its {name} was "
                f"{recorded[name]}, now it is {given[name]}. Choose another "
                "folder with --to, or delete this one"
            )


def _numbers(name):
    found = (
        re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in Path("runs").glob("*")
    )
    return [int(match[1]) for match in found if match]


def _next_folder(options):
    return Path("runs") / f"{stem(options)}-{max(_numbers(stem(options)), default=0) + 1}"
