"""What is reported when something is wrong with a data set: findings, and damaged images."""

import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from libra_keras.files.reading import reason

_WARNINGS = ("rotation", "empty box", "empty class", "many objects", "confidence")
MIN_SIDE = 1.0  # pixels; a box with a side of no more shows nothing
NOTHING = ("no images", "no boxes")
SHOWN = 5  # names of classes
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Args:
        kind: str: `"missing file"`, `"file outside"` (its name leads out of the
            folder of images), `"unreadable file"`, `"damaged image"`, `"image size"`,
            `"rotation"` (a warning: pixels are used as stored), `"image id"`,
            `"duplicate image"`, `"category"`, `"class"`, `"empty class"` (a warning: no box of it),
            `"entry"` (not a JSON object, or not a valid line), `"not a number"` (or not a flag),
            `"degenerate box"`, `"empty box"` (a warning of readers, which leave out such boxes),
            `"box outside"`;
            `"many objects"` (a warning: more than detectors return); `"confidence"` (a warning:
            boxes may be predictions); `"no images"` and `"no boxes"`: there is nothing to learn
            from.
        image: str, the file (or the annotation file, for what concerns no single image).
        box: the box's position in its image (int), its annotation id (`"annotation 7"`), or
            `None` for the entire image.
        message: str, what is wrong, with the values as written in the file.

    Example:

    >>> from libra_keras.data import Finding
    >>> print(Finding("degenerate box", "cat.jpg", 2, "x2 <= x1 in (9, 0, 3, 5)"))
    cat.jpg, box 2: degenerate box: x2 <= x1 in (9, 0, 3, 5)
    """

    kind: str
    image: str
    box: int | str | None
    message: str

    @property
    def is_warning(self) -> bool:
        """Whether training may continue in spite of it."""
        return self.kind in _WARNINGS

    def __str__(self) -> str:
        box = f"box {self.box}" if isinstance(self.box, int) else self.box
        where = self.image if box is None else f"{self.image}, {box}"
        return f"{where}: {self.kind}: {self.message}"


@dataclasses.dataclass(frozen=True)
class Written:
    """What the files of a data set say of its boxes: readers know it, and findings show it."""

    # By the position of an example, and of a box in it: what findings call the box, and its numbers
    # as they are written.
    name: Callable[[int, int], Any]
    values: Callable[[int, int], str]
    ignored: str = "ignored"  # what the boxes that are ignored are called, such as "crowds"
    are_fractions: bool = False  # whether there are boxes and all their numbers lie in 0..1


def report(findings, most=10):
    """Lists findings for an error message: the first ones in full, and how many of each kind."""
    kinds = collections.Counter(finding.kind for finding in findings)
    lines = [str(finding) for finding in findings[:most]]
    if len(findings) > most:
        counts = ", ".join(f"{number} x {kind}" for kind, number in kinds.items())
        lines.append(f"... {len(findings)} in total: {counts}")
    return "\n".join(f"  {line}" for line in lines)


def nothing_to_learn(data):
    """Returns the `Finding` that a data set has no image, or no box to learn from; else `None`."""
    if any(_is_learnt(example).any() for example in data.examples):
        return None
    told = [finding for finding in data.findings if finding.kind in NOTHING]
    return told[0] if told else nothing_left(data.name, data.examples)


def nothing_left(name, examples, gone=(), ignored="ignored", are_fractions=None):
    """Makes that `Finding`, of how many boxes (and `"images"`) are `gone` by what they were."""
    gone = dict(gone)
    dropped = gone.pop("images", 0)
    if not examples:
        message = f"all {dropped} were dropped" if dropped else "there is none in it"
        return Finding("no images", name, None, message)
    boxes = np.concatenate([example.boxes.reshape(-1, 4) for example in examples])
    gone[ignored] = sum(int(example.ignore.sum()) for example in examples)
    specks = "at most 1 px wide or high"
    gone[specks] = gone.get(specks, 0) + len(boxes) - gone[ignored]
    total = sum(gone.values())
    parts = [f"{number} of {total} boxes are {what}" for what, number in gone.items() if number]
    message = ", ".join(parts) or "there is none on its images"
    if are_fractions is None:
        are_fractions = in_unit_range(boxes)
    if are_fractions:
        message += ". All coordinates are in 0..1: fractions of the image?"
    return Finding("no boxes", name, None, f"none is left to learn from: {message}")


def empty_classes(name, examples, class_names):
    """Finds classes without a box to learn from: a list of at most one `Finding`, a warning."""
    labels = [example.labels[_is_learnt(example)] for example in examples]
    used = {int(label) for label in np.unique(np.concatenate(labels))} if labels else set()
    missing = [class_name for k, class_name in enumerate(class_names) if k not in used]
    if not missing:
        return []
    more = f", ... ({len(missing)} in total)" if len(missing) > SHOWN else ""
    message = (
        f"{len(missing)} of {len(class_names)} classes have no box to learn from: "
        f"{', '.join(map(repr, missing[:SHOWN]))}{more}"
    )
    return [Finding("empty class", name, None, message)]


def in_unit_range(values):
    """Whether there are numbers and all lie in 0..1."""
    values = np.asarray(values, "float64")
    return bool(values.size and np.all((values >= 0) & (values <= 1)))


def _is_learnt(example):
    boxes = np.asarray(example.boxes).reshape(-1, 4)
    return ~example.ignore & (boxes[:, 2:] - boxes[:, :2] > MIN_SIDE).all(-1)


class DamagedImage(Exception):
    """Raised if an image cannot be decoded, or does not have the size that its boxes refer to."""


class TooManyDamagedImages(Exception):
    """Raised if so many images are damaged that continuing would be a different experiment."""


@contextlib.contextmanager
def read_checked(data: Any, i: int) -> Iterator[Any]:
    """Opens an image as `DetectionData` does, or raises a `DamagedImage`, for its size as well."""
    with contextlib.ExitStack() as stack:
        try:
            image = stack.enter_context(data.open_image(i))
        except Exception as error:  # damaged files make decoders raise nearly anything
            raise DamagedImage(reason(error)) from error
        size = image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]
        expected = data.examples[i].height, data.examples[i].width
        if size != expected:
            raise DamagedImage(f"decoded to {size} (height, width), expected {expected}")
        yield image


class DamageLog:
    """Names damaged images when they are first seen, and stops a run with too many of them."""

    def __init__(self, num_images, limit=0.01):
        self.num_images = num_images
        self.limit = limit
        self.files = {}
        self._lock = threading.Lock()

    def get_state(self):
        """Returns the files as a dict, for a run that is interrupted."""
        return dict(self.files)

    def set_state(self, state):
        """Adds files that were noted before the run was interrupted."""
        with self._lock:
            self.files = {**state, **self.files}

    def add(self, file, message):
        """Notes a file once, and raises a `TooManyDamagedImages` if that is one too many."""
        with self._lock:
            is_new = str(file) not in self.files
            self.files.setdefault(str(file), message)
            count = len(self.files)
        if is_new:
            logger.warning("Damaged image: %s: %s", file, message)
        if count >= 2 and count > self.limit * self.num_images:
            raise TooManyDamagedImages(
                f"{count} of {self.num_images} images are damaged, more than {self.limit:.0%}:\n"
                + "\n".join(f"  {name}: {why}" for name, why in list(self.files.items())[:10])
            )
