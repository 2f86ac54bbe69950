"""The peer of our detectors: torchvision's R50-FPN Faster R-CNN, timed the same way.

Requires torch and torchvision, in a separate environment. `detector_speed.py --beside` and
`growth.py --beside` run it with the interpreter of that environment; on its own it prints its
times. As in ours, batch normalisation, the stem and the first stage are frozen, weights are random,
and images are noise of exactly the requested size. `mixed_bfloat16` is `torch.autocast`.

    python recipes/benchmarks/torchvision_speed.py --size 512x512 --precision mixed_bfloat16
"""

import argparse
import os
import statistics
import sys

import torch
import torchvision
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from workers import PRECISIONS, Calls, Job, pair_of, seconds, serve

VERSIONS = f"torchvision {torchvision.__version__}, torch {torch.__version__}"


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


def autocast(precision):
    """The context in which a forward pass computes with a precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32")


def inference(model, job, precision):
    """Returns a function of the number of a call that returns the function of a detection."""

    def prepare(number):
        images, _ = noise_batch(job.batch, *job.size_of(number))

        def run():
            with torch.no_grad(), autocast(precision):
                model.eval()(images)

        return run

    return prepare


def training(model, job, precision):
    """Returns a function of the number of a call that returns the function of a step of SGD."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 1e-4, momentum=0.9, weight_decay=1e-4)

    def prepare(number):
        batch = noise_batch(job.batch, *job.size_of(number), job.objects)

        def run():
            optimizer.zero_grad()
            with autocast(precision):
                loss = sum(model.train()(*batch).values())
            loss.backward()
            optimizer.step()

        return run

    return prepare


def make(job, model, precision, threads):
    """The `Calls` of a job; there is one detector, whatever `model` names."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    if job.task == "matmul":
        return Calls(*matmul(job.height, precision), VERSIONS)
    built = detector(job.height, job.width)
    prepare = {"inference": inference, "training": training}[job.task](built, job, precision)
    return Calls(
        prepare, lambda: forward_flops(built, job) if job.task == "inference" else None, VERSIONS
    )


def matmul(side, precision):
    """The product of two squares of noise, and its operations."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return (lambda number: lambda: torch.matmul(a, b)), lambda: 2 * side**3


def forward_flops(model, job):
    """Operations of the forward pass as PyTorch counts them: two for each multiplication of a
    convolution or a product of matrices."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        inference(model, job, "float32")(0)()
    return counter.get_total_flops()


def three(height, width, precision, threads):
    """Functions of one image, of a training step of two, and of eight images."""
    jobs = [("inference", 1), ("training", 2), ("inference", 8)]
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model, kinds = detector(height, width), {"inference": inference, "training": training}
    return {
        f"{task}, batch {batch}": kinds[task](model, Job(task, height, width, batch), precision)(0)
        for task, batch in jobs
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="512x512", metavar="HEIGHTxWIDTH", help="in pixels")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--serve", action="store_true", help="time what standard input requests, 0, 1 or 2"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        return serve(args.job, make)
    functions = three(*pair_of(args.size), args.precision, args.threads)
    print(f"{VERSIONS}, {torch.get_num_threads()} threads, {args.precision}", flush=True)
    if args.serve:  # of `serving_speed.py`
        for line in sys.stdin:
            print(seconds(list(functions.values())[int(line)]), flush=True)
        return
    for name, function in functions.items():
        function()  # warms up
        times = [seconds(function) for _ in range(args.runs)]
        print(f"{name:24}{statistics.median(times):8.3f} s")


if __name__ == "__main__":
    main()
