"""What a pyramid of feature maps is: a dict or a sequence of levels, finest first."""

import re
import types
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from libra_keras.functional.argument_checks import check_arguments
from libra_keras.typing import Tensor

Pyramid: TypeAlias = Mapping[str, Tensor] | Sequence[Tensor]  # or shapes in the place of tensors

_EXPECTED = "A pyramid must be a dict such as {'P2': ..., 'P3': ...}, or a list of levels."


def unpack(pyramid):
    """Returns the names, or `None` of a list, and the levels or their shapes, finest first."""
    _refuse_one_tensor(pyramid)
    if not isinstance(pyramid, dict | list | tuple):
        raise TypeError(f"{_EXPECTED} Received: {type(pyramid).__name__}")
    if not pyramid:
        raise ValueError(f"A pyramid must have at least one level. Received: {pyramid!r}")
    if not isinstance(pyramid, dict):
        return None, list(pyramid)
    # Frameworks sort dicts as they like, and by the alphabet "P10" comes before "P2".
    names = sorted(pyramid, key=level_number)
    return names, [pyramid[name] for name in names]


def pack(pyramid, names, levels):
    """Returns levels in the structure of `pyramid`: a dict with these names, a list or a tuple."""
    if names is not None:
        return dict(zip(names, levels, strict=True))
    return tuple(levels) if isinstance(pyramid, tuple) else list(levels)


def level_number(name):
    """Returns the number of a level's name: 2 for "P2", whose stride is `2 ** 2`."""
    match = re.search(r"\d+$", str(name))
    if match is None:
        raise ValueError(f"Names of levels must end in a number, such as 'P2'. Received: {name!r}")
    return int(match.group())


def asked_of(names, levels, channels):
    """What `check_arguments` takes to check levels, each of as many channels, `"C"` or `"C_l"`."""
    return {
        f"{place(names, i)} (B, H_l, W_l, {size}) float": level
        for i, (level, size) in enumerate(zip(levels, channels, strict=True))
        if size is not None
    }


def place(names, i):
    """Returns what a message calls a level: `pyramid['P2']`, or `pyramid[0]` in a list."""
    return f"pyramid[{i}]" if names is None else f"pyramid[{names[i]!r}]"


class BuiltFor:
    """The levels that a layer was built for, and takes from then on."""

    def __init__(self, pyramid, unused=0, channels="C_l"):
        self.names, shapes = unpack(pyramid)
        kinds = [None if i < unused else channels for i in range(len(shapes))]
        levels = [types.SimpleNamespace(shape=tuple(shape)) for shape in shapes]
        check_arguments(asked_of(self.names, levels, kinds))
        self.channels = [kind and shape[-1] for kind, shape in zip(kinds, shapes, strict=True)]
        for i in range(unused, len(shapes)):
            if self.channels[i] is None:
                raise ValueError(
                    f"The channels of `{place(self.names, i)}` must be known. "
                    f"Received: shape={tuple(shapes[i])}"
                )

    def unpack(self, pyramid):
        """Returns names and levels of tensors, if these are such levels."""
        names, levels = unpack(pyramid)
        same_names = None in (names, self.names) or names == self.names  # a list has none
        if len(levels) != len(self.channels) or not same_names:
            raise ValueError(
                "`pyramid` must have what the layer was built for, "
                f"{_listed(self.names, self.channels)}. Received: {_listed(names, levels)}"
            )
        check_arguments(asked_of(names, levels, self.channels))
        return names, levels


def _listed(names, levels):
    count = f"{len(levels)} level{'s' * (len(levels) != 1)}"
    return count if names is None else f"{count}: {', '.join(map(str, names))}"


def _refuse_one_tensor(pyramid):
    shape = getattr(pyramid, "shape", pyramid)
    is_shape = isinstance(shape, list | tuple) and {int, type(None)} & set(map(type, shape))
    if shape is not pyramid or is_shape:
        raise ValueError(f"{_EXPECTED} Received: one tensor of shape {tuple(shape)}")
