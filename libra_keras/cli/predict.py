"""Find objects in images: pictures with boxes, and a JSON of all detections."""

from pathlib import Path

from libra_keras.cli.options import (
    add_limit,
    add_number,
    add_pixels,
    add_precision,
    add_run,
    add_tiles,
    load_run,
    tiling_of,
)
from libra_keras.ranges import SHARE

EXAMPLES = """examples:
  libra-keras predict runs/mine photo.jpg --to found
      draws the boxes in found/photo.png, and writes their numbers to found/detections.json
  libra-keras predict libra_faster_rcnn_r50_fpn_1x_coco street.jpg --to found
      a published detector, downloaded on first use
  libra-keras predict runs/mine my_photos/test --to found --score 0.5
      every image of a folder, only boxes with a score of 0.5 or more
  libra-keras predict runs/mine field.tif --to found --tile 1024 --overlap 0.2
      an image larger than the detector's input, in tiles that overlap by a fifth
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_run(parser)
    add_limit(parser)
    add_precision(parser)
    add_pixels(parser)
    add_tiles(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, or folders of files")
    parser.add_argument("--to", metavar="FOLDER", required=True, help="for pictures and JSON")
    add_number(parser, "--score", SHARE, "minimum score; default: 0.3", default=0.3)
    parser.add_argument(
        "--exif-rotation",
        action="store_true",
        help="rotate photos by their EXIF orientation, as viewers do; boxes then refer to the "
        "rotated image",
    )


def run(options) -> int:
    """Predicts, and returns 1 if an image could not be read."""
    from libra_keras.data.decoding import allow_pixels
    from libra_keras.runs import predicting

    allow_pixels(getattr(options, "max_pixels", None))
    tiling = tiling_of(options)
    files, folder = predicting.find_images(options.images), Path(options.to)
    predicting.check(files, folder)
    model = load_run(options).model
    turn = options.exif_rotation
    read = predicting.predict(model, files, folder, options.score, turn, tiling)
    return int(read < len(files))
