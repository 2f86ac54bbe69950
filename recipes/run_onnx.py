"""Runs an exported detector with onnxruntime or OpenVINO, Pillow and NumPy; without Keras.

Copy this file into a program of your own, or run it as it is:

    libra-keras export runs/mine --to exported --format onnx
    pip install onnxruntime numpy pillow
    python recipes/run_onnx.py exported photo.jpg other.png

A folder exported with `--format openvino` works the same way, with openvino instead of onnxruntime.

It prints one line per object: file, name, score, and the corners of the box in pixels of the file.
The exit status is 1 if a file could not be read, or does not fit the `--shape` of the export.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# What is raised for files that are missing, no images, damaged or too large.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class Detector:
    """A detector in a folder that `libra-keras export` has written as onnx or openvino."""

    def __init__(self, folder, threads=0):
        """Loads it; `threads` 0 means as many as there are cores."""
        note = json.loads(Path(folder, "detector.json").read_text(encoding="utf-8"))
        self.policy, self.class_names = note["input_policy"], note["class_names"]
        self.shape = note.get("shape")  # of all images, or any
        graph = Path(folder, "detector.xml")
        start = start_openvino if graph.exists() else start_onnxruntime
        self.run = start(graph if graph.exists() else graph.with_suffix(".onnx"), threads, note)

    def detect(self, image, proposals=None):
        """Finds objects in a Pillow image; returns boxes (n, 4), scores, labels and names.

        Boxes are x1, y1, x2, y2 in pixels of the image. `proposals` (n, 4), in the same pixels, are
        for a `FastRCNN`, which looks only at given boxes.
        """
        pixels, (height, width) = prepare(image, self.policy, self.shape)
        scale = np.array([width / image.width, height / image.height] * 2, "float32")
        feeds = {"images": pixels[None], "image_sizes": np.array([[height, width]], "int32")}
        if proposals is not None:
            feeds["proposals"] = np.asarray(proposals, "float32").reshape(1, -1, 4) * scale
        found = self.run(feeds)
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


def start_onnxruntime(file, threads, note):
    """A function from a dict of inputs to a dict of outputs."""
    import onnxruntime

    check_version(onnxruntime, note)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def start_openvino(file, threads, note):
    """As `start_onnxruntime`; in float32, or boxes would move on CPUs that have bfloat16."""
    import openvino

    check_version(openvino, note)
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(file, "CPU", options)
    return lambda feeds: {key.any_name: value for key, value in model(feeds).items()}


def check_version(runtime, note):
    """Raises if a runtime is older than the file asks for."""
    needed = note.get("needs", {}).get(runtime.__name__, "0")
    have, least = (
        [int(number) for number in re.findall(r"\d+", version)[:2]]
        for version in (runtime.__version__, needed)
    )
    if have < least:
        raise ImportError(
            f"This export requires {runtime.__name__} {needed} or newer, but "
            f"{runtime.__version__} is installed: pip install '{runtime.__name__}>={needed}'"
        )


def prepare(image, policy, shape=None):
    """Resizes and pads a Pillow image as in training; returns the pixels and the content's size.

    With a `shape`, height and width, it is padded to that.
    """
    width, height = fitted_size(image.width, image.height, policy)
    if shape is None:
        multiple = policy["pad_multiple"]
        sides = (policy["short_side"], policy["long_side"])
        short, long = (-(-side // multiple) * multiple for side in sides)
        shape = (long, short) if image.height > image.width else (short, long)
    elif height > shape[0] or width > shape[1]:
        raise ValueError(
            f"the image is {height}x{width} (height x width) after resizing, more than the "
            f"{shape[0]}x{shape[1]} of this export; for such images, export with another --shape"
        )
    padded = np.zeros((*shape, 3), "uint8")
    padded[:height, :width] = rgb(image).resize((width, height), Image.Resampling.BILINEAR)
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
    parser.add_argument("folder", metavar="FOLDER", help="folder written by `libra-keras export`")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--score", type=float, default=0.3, help="minimum score to show")
    args = parser.parse_args()
    try:
        detector = Detector(args.folder)
    except OSError as error:
        parser.error(f"FOLDER is no export to ONNX or OpenVINO: {error}")
    status = 0
    for path in args.images:
        try:
            with Image.open(path) as file:
                found = detector.detect(rgb(file))
        except UNREADABLE as error:
            print(f"{path}: {error}", file=sys.stderr)
            status = 1
            continue
        for box, score, name in zip(found["boxes"], found["scores"], found["names"], strict=True):
            if score >= args.score:
                print(path, name, f"{score:.2f}", *(f"{side:.1f}" for side in box), sep="\t")
    return status


if __name__ == "__main__":
    sys.exit(main())
