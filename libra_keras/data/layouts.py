"""Where the annotations and images of a folder lie: what tools write, told by names of files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one split of a data set lies.

    Args:
        annotations: path of its annotations: a file, or a folder of files.
        images: folders that names of images may start from, in the order in which they are tried.
    """

    annotations: Path
    images: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a folder was found to be.

    Args:
        title: the tool and its form, `"Roboflow COCO"`.
        form: the reader: `"coco"`, `"voc"`, `"yolo"`, `"cvat"` or `"csv"`.
        splits: where each split lies, by its name.
    """

    title: str
    form: str
    splits: Mapping[str, Place]

    def __str__(self) -> str:
        return f"{self.title}: {', '.join(self.splits)}"
