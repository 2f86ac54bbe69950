"""Draws small data sets in Pascal VOC's form."""

import numpy as np
from PIL import Image


def write_voc(folder, size=(64, 48), suffix="png", **splits):
    """A VOC folder with one image of noise per list of boxes; all objects are cats.

    Images are numbered through all splits: `write_voc(folder, train=[[], []], val=[[]])` has
    image_0 and image_1 in "train" and image_2 in "val".
    """
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    names = []
    for split, images in splits.items():
        first = len(names)
        for boxes in images:
            names.append(f"image_{len(names)}")
            _write_image(folder, f"{names[-1]}.{suffix}", boxes, size, seed=len(names))
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(names[first:]))
    return folder


def _write_image(folder, file, boxes, size, seed):
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 100, (height, width, 3)).astype("uint8")
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] += 150
    Image.fromarray(pixels).save(folder / "JPEGImages" / file)
    objects = "".join(
        "<object><name>cat</name><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))  # noqa: B905
        + "</bndbox></object>"
        for box in boxes
    )
    (folder / "Annotations" / file).with_suffix(".xml").write_text(
        f"<annotation><filename>{file}</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>{objects}</annotation>"
    )


def truncate(folder, *numbers):
    """Cuts image files in halves: headers are whole, pixels are not. Returns their names."""
    files = [next(folder.glob(f"JPEGImages/image_{number}.*")) for number in numbers]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return [file.name for file in files]
