"""Runs an exported detector with onnxruntime, Pillow and NumPy; neither Keras nor TensorFlow.

Copy this file into a program of your own, or run it as it is:

    libra-keras export runs/mine --to exported --format onnx
    pip install onnxruntime numpy pillow
    python recipes/run_onnx.py exported photo.jpg other.png

It prints one line an object: file, name, score, and the corners of the box in pixels of the file.
The exit status is 1 if a file could not be read.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

# What Pillow raises for files that are missing, no images, damaged or far too large.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class Detector:
    """A detector in a folder that `libra-keras export --format onnx` has written."""

    def __init__(self, folder, threads=0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: as many as there are cores
        self.session = onnxruntime.InferenceSession(
            str(Path(folder, "detector.onnx")), options, providers=["CPUExecutionProvider"]
        )
        note = json.loads(Path(folder, "detector.json").read_text())
        self.policy, self.class_names = note["input_policy"], note["class_names"]

    def detect(self, image, proposals=None):
        """Finds objects in a Pillow image; returns boxes (n, 4), scores, labels and names.

        Boxes are x1, y1, x2, y2 in pixels of the image. `proposals` (n, 4), in the same pixels, are
        for a `FastRCNN`, which looks at given boxes only.
        """
        pixels, (height, width) = prepare(image, self.policy)
        scale = np.array([width / image.width, height / image.height] * 2, "float32")
        feeds = {"images": pixels[None], "image_sizes": np.array([[height, width]], "int32")}
        if proposals is not None:
            feeds["proposals"] = np.asarray(proposals, "float32").reshape(1, -1, 4) * scale
        outputs = [output.name for output in self.session.get_outputs()]
        found = dict(zip(outputs, self.session.run(outputs, feeds), strict=True))
        if "mask" in found:  # proposals of a `RegionProposalNetwork`, which knows no classes
            found["labels"] = np.where(found["mask"], 0, -1)
        count = (found["labels"][0] >= 0).sum()  # what follows is padding
        labels = found["labels"][0, :count]
        return {
            "boxes": found["boxes"][0, :count] / scale,
            "scores": found["scores"][0, :count],
            "labels": labels,
            "names": [self.class_names[i] if self.class_names else str(i) for i in labels],
        }


def prepare(image, policy):
    """Resizes and pads a Pillow image as in training; returns the pixels and the content's size."""
    width, height = fitted_size(image.width, image.height, policy)
    resized = rgb(image).resize((width, height), Image.Resampling.BILINEAR)
    multiple = policy["pad_multiple"]
    short, long = (-(-policy[side] // multiple) * multiple for side in ("short_side", "long_side"))
    is_portrait = image.height > image.width
    padded = np.zeros((long, short, 3) if is_portrait else (short, long, 3), "uint8")
    padded[:height, :width] = resized
    return padded, (height, width)


def rgb(image):
    """A Pillow image in RGB, as in training: 16 bits are scaled, which Pillow would cut off."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.clip(np.asarray(image), 0, 65535).astype("uint32")
        image = Image.fromarray(((wide + 128) // 257).astype("uint8"))
    if image.mode in ("P", "PA"):  # through RGBA: Pillow warns where a palette has transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def fitted_size(width, height, policy):
    """Width and height at which an image fits between the two sides of the policy."""
    longer, shorter = max(width, height), min(width, height)
    if policy["rounding"] == "down":  # of converted checkpoints of torchvision
        ends = np.array([policy["long_side"], policy["short_side"]], "float32")
        scale = np.min(np.float32(1) / np.array([longer, shorter], "float32") * ends)
        sides = (int(np.float32(side) * scale) for side in (width, height))
    else:
        scale = min(policy["long_side"] / longer, policy["short_side"] / shorter)
        sides = (int(side * scale + 0.5) for side in (width, height))
    return tuple(max(1, side) for side in sides)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", help="detector.onnx and detector.json")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score shown")
    args = parser.parse_args()
    detector = Detector(args.folder)
    status = 0
    for path in args.images:
        try:
            with Image.open(path) as file:
                image = rgb(file)
        except UNREADABLE as error:
            print(f"{path}: {error}", file=sys.stderr)
            status = 1
            continue
        found = detector.detect(image)
        for box, score, name in zip(found["boxes"], found["scores"], found["names"], strict=True):
            if score >= args.score:
                print(path, name, f"{score:.2f}", *(f"{side:.1f}" for side in box), sep="\t")
    return status


if __name__ == "__main__":
    sys.exit(main())
