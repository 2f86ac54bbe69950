"""Configs as the command makes them, and other values for their fields."""

import zipfile

from libra_keras.cli import parser
from libra_keras.cli.options import config_of
from libra_keras.runs import resolve
from libra_keras.runs.fields import reader
from libra_keras.runs.groups import names, sides


def given(*arguments):
    """What `libra-keras train` with these arguments says."""
    return config_of(parser().parse_args(["train", *arguments]))


def resolved(*arguments):
    """The same, with the defaults for what it does not say."""
    return resolve(given(*arguments))


def write_unnamed(path):
    """Writes a `.keras` file that does not say which ready-made detector it is."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "")


def another(field):
    """A value for a field of a config that is not its default."""
    if choices := field.metadata.get("choices"):
        return next(choice for choice in choices if choice != field.default)
    kind = reader(field)
    if kind is bool:
        return not field.default
    if kind in (str, names, sides):
        return {str: "other", names: ("backbone", "neck"), sides: (640, 704)}[kind]
    return field.metadata["within"].read("3" if field.metadata["within"].is_whole else "0.25")
