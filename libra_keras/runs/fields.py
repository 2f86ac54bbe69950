"""Fields of a config: the help text of an option, and what its value must be."""

import dataclasses
import difflib
import functools
import os
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from libra_keras.ranges import plain


def option(default: Any, help: str, **details: Any) -> Any:
    """Returns a dataclass field that is also an option of `libra-keras train`: `metavar` and
    `choices` are argparse's, `name` is the option's if it differs, `within` is the `Range` of a
    number, `parse` reads other text, and `group` is a heading of its own."""
    return dataclasses.field(default=default, metadata={"help": help, **details})


def reader(field: dataclasses.Field) -> Callable[[str], Any]:
    """Returns the function that reads a field's value from text; `bool` for a switch."""
    if "parse" in field.metadata:
        return field.metadata["parse"]
    if "within" in field.metadata:
        return field.metadata["within"].read
    return next(each for each in _kinds(field.type) if each is not types.NoneType)


class Checked:
    """Base of frozen dataclasses whose values must have the types of their fields and be in range,
    after paths became strings, lists became tuples, and NumPy's numbers Python's."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, hint = _plain(getattr(self, field.name)), _hints(type(self))[field.name]
            where = f"{type(self).__name__}.{field.name}"
            if not _fits(value, hint):
                raise TypeError(f"{where} must be {_words(hint)}. Received: {value!r:.80}")
            choices = field.metadata.get("choices")
            if choices and value is not None and value not in choices:
                named = ", ".join(map(str, choices))
                raise ValueError(f"{where} must be one of {named}. Received: {value!r:.80}")
            if "within" in field.metadata and value is not None:
                for each in value if isinstance(value, tuple) else [value]:
                    field.metadata["within"].check(where, each)
            object.__setattr__(self, field.name, value)


def unknown_name(name: str, known: Iterable[str]) -> str:
    """Returns a message that a name is unknown, and which known one is nearest."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"{name!r} is unknown; {hint}"


@functools.cache
def _hints(group):
    return typing.get_type_hints(group)


def _plain(value):
    """The value as JSON gives it back."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else plain(value)


def _kinds(hint):
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value, hint):
    if isinstance(hint, types.UnionType):
        return any(_fits(value, each) for each in _kinds(hint))
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(each, kind) for each in value)
    if hint in (int, float):  # in Python, a bool is a number
        kinds = (int, float) if hint is float else int
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint):
    if isinstance(hint, types.UnionType):
        return " or ".join(map(_words, _kinds(hint)))
    if typing.get_origin(hint) is tuple:
        return f"a tuple of {_words(typing.get_args(hint)[0])}"
    return {types.NoneType: "None"}.get(hint) or getattr(hint, "__name__", str(hint))
