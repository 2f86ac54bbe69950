"""Draws a detector's detections, and slices a large image, with `supervision`.

    pip install '.[supervision]'
    python recipes/with_supervision.py runs/mine photo.jpg --to found
    python recipes/with_supervision.py runs/mine field.tif --to found --slice 640

`annotated.png` has the boxes. With `--slice` the image is also cut by `InferenceSlicer`, and the
program prints how many objects that and `detect(image, tile=...)` find.
"""

import argparse
from pathlib import Path

import numpy as np
import supervision
from PIL import Image

from libra_keras import data, runs

OVERLAP = 0.2


def drawn(image, detections):
    """Boxes with names and scores on a copy of an image."""
    names = detections.data.get("class_name", detections.class_id)
    texts = [f"{n} {s:.2f}" for n, s in zip(names, detections.confidence, strict=True)]
    boxed = supervision.BoxAnnotator().annotate(image.copy(), detections)
    return supervision.LabelAnnotator().annotate(boxed, detections, texts)


def sliced(model, image, side):
    """What `supervision` makes of the detections in slices of an image."""
    slicer = supervision.InferenceSlicer(
        callback=lambda part: data.to_supervision(model.detect(part)),
        slice_wh=(side, side),
        overlap_wh=(round(side * OVERLAP),) * 2,
    )
    return slicer(image)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", help="a run folder, or a name from libra-keras models --pretrained")
    parser.add_argument("image")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--score", type=float, default=0.3)
    parser.add_argument("--slice", type=int, metavar="PIXELS")
    options = parser.parse_args()
    model, image = runs.open(options.run).model, data.read_image(options.image)
    if options.slice is None:
        found = data.to_supervision(model.detect(image))
    else:
        found = sliced(model, image, options.slice)
        own = model.detect(image, options.score, tile=options.slice, overlap=OVERLAP)
        count = int(np.sum(found.confidence >= options.score))
        print(f"InferenceSlicer: {count} objects; detect(tile=...): {len(own['scores'])}")
    found = found[found.confidence >= options.score]
    options.to.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn(image, found)).save(options.to / "annotated.png")
    print(f"{len(found)} objects -> {options.to / 'annotated.png'}")
    again = data.detections_from_supervision(found)
    print(", ".join(sorted(set(again["names"]))))


if __name__ == "__main__":
    main()
