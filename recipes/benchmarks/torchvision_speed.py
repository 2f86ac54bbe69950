"""The peer of `detector_speed.py`: torchvision's R50-FPN Faster R-CNN, timed the same way.

Requires torch and torchvision, in a separate environment. `detector_speed.py --beside` runs it with
the interpreter of that environment, and prints both times and their ratio; on its own it prints its
times. As in ours, batch normalisation, the stem and the first stage are frozen, weights are random,
and images are noise of exactly the requested size.

    python recipes/benchmarks/torchvision_speed.py --size 512x512
"""

import argparse
import functools
import os
import statistics
import sys
import time

import torch
import torchvision
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d


def seconds(function):
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def detector(height, width):
    """The detector that `fasterrcnn_resnet50_fpn` builds from ImageNet weights, without them."""
    backbone = _resnet_fpn_extractor(resnet50(norm_layer=FrozenBatchNorm2d), trainable_layers=3)
    sides = {"min_size": min(height, width), "max_size": max(height, width)}
    return FasterRCNN(backbone, num_classes=81, **sides)


def noise_batch(num, height, width, num_objects=8):
    """Images `(3, H, W)` in 0..1 and boxes all over them."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([width, height], dtype=torch.float32)
    corners = torch.rand(num, num_objects, 2, generator=generator) * 0.7 * size
    sides = (torch.rand(num, num_objects, 2, generator=generator) * 0.25 + 0.05) * size
    boxes = torch.cat([corners, corners + sides], -1)
    labels = torch.randint(1, 81, (num, num_objects), generator=generator)
    images = [torch.rand(3, height, width, generator=generator) for _ in range(num)]
    truth = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]
    return images, truth


def inference(model, height, width, num=1):
    """Returns a function that detects in one image, or a batch."""
    images, _ = noise_batch(num, height, width)

    def run():
        with torch.no_grad():
            model.eval()(images)

    return run


def training_step(model, height, width):
    """Returns a function that makes one step of SGD on two images."""
    batch = noise_batch(2, height, width)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 1e-4, momentum=0.9, weight_decay=1e-4)

    def run():
        optimizer.zero_grad()
        sum(model.train()(*batch).values()).backward()
        optimizer.step()

    return run


def answer_requests(functions):
    """Makes one call for each line of the input, a number, and prints its seconds."""
    for line in sys.stdin:
        print(seconds(functions[int(line)]), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="512x512", metavar="HEIGHTxWIDTH", help="in pixels")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--serve", action="store_true", help="time what standard input requests; used by --beside"
    )
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    model = detector(height, width)
    batch_of_8 = functools.partial(inference, num=8)
    names = ("inference, batch 1", "training step, batch 2", "inference, batch 8")
    functions = [make(model, height, width) for make in (inference, training_step, batch_of_8)]
    versions = f"torchvision {torchvision.__version__}, torch {torch.__version__}"
    print(f"{versions}, {torch.get_num_threads()} threads", flush=True)
    if args.serve:
        return answer_requests(functions)
    for name, function in zip(names, functions, strict=True):
        function()  # warms up
        times = [seconds(function) for _ in range(args.runs)]
        print(f"{name:24}{statistics.median(times):8.3f} s")


if __name__ == "__main__":
    main()
