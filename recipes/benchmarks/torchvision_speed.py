"""The peer of `detector_speed.py`: torchvision's R50-FPN Faster R-CNN, timed the same way.

Needs torch and torchvision, in an environment of their own; run both scripts one after the other on
an idle machine. As in ours, batch normalisation, the stem and the first stage are frozen, weights
are random, and images are noise of exactly the size asked for.

    python recipes/benchmarks/torchvision_speed.py --size 512x512
"""

import argparse
import os
import statistics
import time

import torch
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d


def seconds(function, runs):
    """Median time of `function()` after one call to warm up."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


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


def training_step(model, batch):
    """Returns a function that makes one step of SGD."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 1e-4, momentum=0.9, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        sum(model(*batch).values()).backward()
        optimizer.step()

    return step


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="512x512", metavar="HEIGHTxWIDTH", help="in pixels")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    model = detector(height, width).eval()
    images, _ = noise_batch(1, height, width)
    with torch.no_grad():
        print(f"inference, batch 1      {seconds(lambda: model(images), args.runs):8.3f} s")
    step = training_step(model.train(), noise_batch(2, height, width))
    print(f"training step, batch 2  {seconds(step, args.runs):8.3f} s")


if __name__ == "__main__":
    main()
