"""Checkpoints of all sources under one set of names: those of mmdetection 3."""

import dataclasses
import re

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
    notes: list = dataclasses.field(default_factory=list)

    def has(self, prefix):
        """Whether a name starts with `prefix`."""
        return any(name.startswith(prefix) for name in self.tensors)

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

    def shape(self, name):
        """Returns the shape of a tensor that the architecture is read from.

        Raises:
            ValueError: if it is missing.
        """
        if name not in self.tensors:
            raise ValueError(f"no tensor {name}, which tells the size of the network")
        return tuple(self.tensors[name].shape)

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
        ValueError: if two tensors of the file get one name.

    Example:

    >>> from libra_keras.convert.canonical import renamed
    >>> renamed({"a.w": 1, "n": 2}, [(r"^a\\.", "b.")], [("n", "not needed")])
    ({'b.w': 1}, {'b.w': 'a.w'}, {'n': 'not needed'})
    """
    placed, origin, left = {}, {}, {}
    for name, tensor in tensors.items():
        reason = next((why for pattern, why in unused if re.fullmatch(pattern, name)), None)
        if reason is not None:
            left[name] = reason
            continue
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in placed:
            raise ValueError(f"{name} and {origin[new]} are the same tensor, {new}")
        placed[new], origin[new] = tensor, name
    return placed, origin, left
