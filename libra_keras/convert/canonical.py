"""Checkpoints of all sources under one set of names: those of mmdetection 3."""

import dataclasses
import re

import numpy as np

COUNTER = r"(.*\.)?num_batches_tracked"
COUNTER_REASON = "counts batches; moving averages here have a fixed momentum"


@dataclasses.dataclass
class Canonical:
    """The values of a checkpoint under mmdetection 3's names, and what else it says.

    Attributes:
        tensors: dict from a name of mmdetection 3 to an array in torch's layout.
        origin: dict from that name to the name in the file.
        unused: dict from names in the file to the reason why nothing needs them.
        source: str, what wrote the file, for people.
        geometry: how its boxes are computed, as `RPNSettings.geometry`.
        style: `"pytorch"` or `"caffe"`, as of `ResNet`.
        epsilon: float, of batch normalisation.
        class_names: list of strings, or `None` if the file does not say.
        extra_relu: bool, whether a ReLU stands between the pyramid's two extra levels.
        normalization, image_sides, anchors, box_stds: what a configuration in the file says, as
            the functions of `convert.configuration` return it; `None` or empty if it says nothing.
        notes: list of sentences that a user should read.

    Example:

    >>> from libra_keras.convert.canonical import Canonical
    >>> Canonical({}, {}, {}, "mmdetection 2.x or 3.x").geometry
    'continuous'
    """

    tensors: dict
    origin: dict
    unused: dict
    source: str
    geometry: str = "continuous"
    style: str = "pytorch"
    epsilon: float = 1e-5
    class_names: list | None = None
    extra_relu: bool = False
    normalization: dict | None = None
    image_sides: tuple | None = None
    anchors: dict = dataclasses.field(default_factory=dict)
    box_stds: tuple | None = None
    notes: list = dataclasses.field(default_factory=list)

    def has(self, prefix):
        """Whether a name starts with `prefix`."""
        return any(name.startswith(prefix) for name in self.tensors)

    @property
    def is_libra(self):
        """Whether a balanced pyramid follows the pyramid: mmdetection's neck is a list then.

        Without a refiner it has no tensors, but the first part of a list has a number.
        """
        return any(name.startswith(("neck.0.", "neck.1.")) for name in self.origin.values())

    def count(self, prefix):
        """Number of different integers that follow `prefix` in names.

        Example:

        >>> from libra_keras.convert.canonical import Canonical
        >>> names = ["a.0.weight", "a.0.bias", "a.1.weight", "b.0.weight"]
        >>> Canonical(dict.fromkeys(names), {}, {}, "").count("a.")
        2
        """
        found = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in self.tensors)
        return len({match[1] for match in found if match})

    def shape(self, name, *sides):
        """Returns the shape of a tensor that the architecture is read from.

        Sides that are known are checked before a network is built: a few numbers of a damaged file
        could otherwise ask for one that no memory holds.

        Args:
            name: str, one of mmdetection 3's.
            *sides: the expected shape, an int or, where any positive number will do, `None` each.

        Raises:
            ValueError: if it is missing, or has another shape.

        Example:

        >>> import numpy as np
        >>> from libra_keras.convert.canonical import Canonical
        >>> canonical = Canonical({"conv.weight": np.zeros((8, 3, 7, 7))}, {}, {}, "")
        >>> canonical.shape("conv.weight", None, 3, 7, 7)
        (8, 3, 7, 7)
        """
        if name not in self.tensors:
            raise ValueError(
                f"it has no tensor {name} (as mmdetection 3 calls it), which every network that "
                "can be converted has"
            )
        found = tuple(self.tensors[name].shape)
        fits = len(found) == len(sides) and all(
            side > 0 and expected in (None, side)
            for side, expected in zip(found, sides, strict=False)
        )
        if not fits:
            expected = ", ".join("any" if side is None else str(side) for side in sides)
            raise ValueError(f"{self.origin.get(name, name)} is {found}; expected ({expected})")
        return found

    def replace(self, name, change):
        """Replaces a tensor, if it is there, by what `change` makes of it."""
        if name in self.tensors:
            self.tensors[name] = change(self.tensors[name])


def renamed(tensors, rules, unused):
    """Sorts the tensors of a file into those that are placed, by their new names, and others.

    Args:
        tensors: dict from names to arrays.
        rules: list of (pattern, replacement), regular expressions; all are applied in turn.
        unused: list of (pattern of a whole name, reason), for the names in the file.

    Returns:
        Tuple of the three dicts `tensors`, `origin` and `unused` of a `Canonical`.

    Raises:
        ValueError: if two tensors of the file get one name, or one is a number without a shape.

    Example:

    >>> from libra_keras.convert.canonical import renamed
    >>> renamed({"a.w": [1.0], "n": 2}, [(r"^a\\.", "b.")], [("n", "not needed")])
    ({'b.w': [1.0]}, {'b.w': 'a.w'}, {'n': 'not needed'})
    """
    placed, origin, left = {}, {}, {}
    for name, tensor in tensors.items():
        reason = next((why for pattern, why in unused if re.fullmatch(pattern, name)), None)
        if reason is not None:
            left[name] = reason
            continue
        if np.ndim(tensor) == 0:
            raise ValueError(f"{name} is a single number, which no layer has")
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in placed:
            raise ValueError(
                f"{origin[new]} and {name} would both be {new}: these are not the layers of a "
                "detector that can be converted"
            )
        placed[new], origin[new] = tensor, name
    return placed, origin, left
