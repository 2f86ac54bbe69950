"""What a data set is for the rest of the package: a list of examples with their original boxes."""

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from libra_keras.data.images import decoded, read_image


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One image and its boxes, in the pixels of the stored image.

    Args:
        image_id: int, the number by which the evaluation knows the image.
        file: `str` or `pathlib.Path` of the image, or the name of a drawn scene.
        height: int, height of the stored image in pixels.
        width: int, its width.
        boxes: float32 `(n, 4)`, `(x1, y1, x2, y2)`, half-open: `0 <= x1 < x2 <= width`.
        labels: int32 `(n,)`, `0..K-1`.
        ignore: bool `(n,)`, crowds and difficult objects. They are left out of training; the
            evaluation treats them according to the flags in `DetectionData.annotations`.
        proposals: float32 `(p, 4)`, boxes that may contain an object, best first; or `None`.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data import Example
    >>> boxes, labels = np.array([[0, 0, 4, 8]], "float32"), np.array([2], "int32")
    >>> example = Example(7, "cat.jpg", 10, 20, boxes, labels, np.array([False]))
    >>> example.num_boxes, example.is_portrait
    (1, False)
    """

    image_id: int
    file: str | Path
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    proposals: np.ndarray | None = None

    @property
    def num_boxes(self) -> int:
        """Number of boxes to learn from: those that are not ignored."""
        return int(np.sum(~self.ignore))

    @property
    def is_portrait(self) -> bool:
        """Whether the image is taller than wide (square images count as landscape)."""
        return self.height > self.width


def _read_file(example):
    return read_image(example.file)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DetectionData:
    """A data set: its classes, its examples, and the annotations that it is evaluated on.

    Args:
        name: str, used in messages and reports.
        class_names: tuple of K strings, in the order of the labels.
        category_ids: tuple of K ints: label `k` is category `category_ids[k]` in `annotations`.
        examples: list of `Example`.
        annotations: dict in COCO format with the *original* boxes and image sizes, crowds
            included: what the COCO metrics are computed from.
        reader: function that takes an `Example` and returns its `(H, W, 3)` uint8 pixels.
            Defaults to reading `Example.file`.
        counts: dict of what the reader did: boxes clipped, left out, dropped.
        findings: list of `Finding`: what was wrong with the data when they were read.
        headers_checked: bool, whether the reader opened every file, so that problems in their
            headers are in `findings`.
        notes: tuple of str, what the reader had to decide: `"corners: edges (LabelImg)"`.

    Example:

    >>> from libra_keras import data
    >>> scenes = data.shapes(8, seed=3)
    >>> len(scenes), scenes.num_classes, scenes.read_image(0).shape
    (8, 6, (320, 320, 3))
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    examples: list[Example]
    annotations: dict
    reader: Callable[[Example], np.ndarray] = _read_file
    counts: dict = dataclasses.field(default_factory=dict)
    findings: list = dataclasses.field(default_factory=list)
    headers_checked: bool = False
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<DetectionData {self.summary()}>"

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def max_boxes(self) -> int:
        """Maximum number of boxes to learn from in one image, at least 1."""
        return max([1, *(example.num_boxes for example in self.examples)])

    @property
    def longest_side(self) -> float | None:
        """Pixels of the longest side of a box to learn from; `None` without boxes."""
        boxes = [example.boxes[~example.ignore] for example in self.examples]
        return max(
            (float((own[:, 2:] - own[:, :2]).max()) for own in boxes if len(own)), default=None
        )

    @property
    def max_proposals(self) -> int | None:
        """Maximum number of proposals per image, at least 1; `None` if the examples have none."""
        counts = [len(e.proposals) for e in self.examples if e.proposals is not None]
        if not counts or len(counts) < len(self.examples):
            return None
        return max([1, *counts])

    @property
    def has_files(self) -> bool:
        """Whether the images are files, rather than drawn."""
        return self.reader is _read_file

    def read_image(self, i: int) -> np.ndarray:
        """Returns the stored pixels of example `i` as uint8 `(H, W, 3)` RGB."""
        return self.reader(self.examples[i])

    def open_image(self, i: int) -> AbstractContextManager[np.ndarray | Image.Image]:
        """Returns a context in which example `i` is open: a Pillow image if it is a file, and an
        array otherwise, as `InputPolicy.resized` takes them fastest.

        Threads that have large images open wait for each other; do not open one in another's
        context.
        """
        return decoded(self.examples[i].file) if self.has_files else nullcontext(self.read_image(i))

    def subset(self, indices: slice | Iterable[int]) -> "DetectionData":
        """Returns the data set of the examples at `indices` (a slice or a list of ints)."""
        if isinstance(indices, slice):
            indices = range(len(self))[indices]
        examples = [self.examples[i] for i in indices]
        ids = {example.image_id for example in examples}
        annotations = {
            **self.annotations,
            "images": [i for i in self.annotations["images"] if i["id"] in ids],
            "annotations": [a for a in self.annotations["annotations"] if a["image_id"] in ids],
        }
        return dataclasses.replace(self, examples=examples, annotations=annotations)

    def summary(self) -> str:
        """Returns one line for people: what there is, what was left out of it, and the notes."""
        boxes = sum(example.num_boxes for example in self.examples)
        line = f"{self.name}: {len(self)} images, {boxes} boxes, {self.num_classes} classes"
        notes = [f"{number} {what.replace('_', ' ')}" for what, number in self.counts.items()]
        notes += self.notes
        return f"{line} ({', '.join(notes)})" if notes else line


def coco_annotations(examples, class_names):
    """Builds the COCO dict of examples without one; ignored boxes get a true `"ignore"`."""
    # They are no crowds: a detection has found one if their IoU says so, not if it lies inside.
    images, annotations = [], []
    for example in examples:
        size = {"height": example.height, "width": example.width}
        images.append({"id": example.image_id, "file_name": Path(example.file).name, **size})
        rows = zip(example.boxes.tolist(), example.labels.tolist(), example.ignore, strict=True)
        for (x1, y1, x2, y2), label, ignore in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes an id of 0 for "no match"
                    "image_id": example.image_id,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "ignore": int(ignore),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}
