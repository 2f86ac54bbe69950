"""The peer of `input_pipeline.py`: the same batches of the same files by torch's DataLoader.

Requires torch, torchvision and Pillow, in a separate environment. `input_pipeline.py --beside` runs
it with the interpreter of that environment, and tells it which batches to make.

    python recipes/benchmarks/torch_input_pipeline.py task.json
"""

import json
import resource
import sys
import time

import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import functional as F


class Photographs(Dataset):
    """Images of a task by (file, whether it is mirrored), as (3, h, w) bytes."""

    def __init__(self, task, with_pillow):
        self.short, self.long = task["short"], task["long"]
        self.with_pillow = with_pillow

    def __getitem__(self, key):
        file, is_mirrored = key
        if self.with_pillow:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
            width, height = image.size
        else:
            image = decode_image(read_file(file), ImageReadMode.RGB)
            height, width = image.shape[1:]
        scale = min(self.long / max(height, width), self.short / min(height, width))
        size = [int(height * scale + 0.5), int(width * scale + 0.5)]
        image = F.resize(image, size, antialias=True)
        image = F.hflip(image) if is_mirrored else image
        return F.pil_to_tensor(image) if self.with_pillow else image, height > width


class Padded:
    """Joins images of one orientation, padded at right and below to the size of their bucket."""

    def __init__(self, task):
        multiple = task["multiple"]
        self.short, self.long = (-(-task[k] // multiple) * multiple for k in ("short", "long"))

    def __call__(self, samples):
        is_portrait = samples[0][1]
        size = (self.long, self.short) if is_portrait else (self.short, self.long)
        batch = torch.zeros((len(samples), 3, *size), dtype=torch.uint8)
        for row, (image, _) in zip(batch, samples):  # noqa: B905
            row[:, : image.shape[1], : image.shape[2]] = image
        sizes = torch.tensor([image.shape[1:] for image, _ in samples])
        return batch, sizes


def used():
    """Processor seconds of this process and its ended workers, and the clock."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + workers.ru_utime + workers.ru_stime, time.perf_counter()


def one_pass(task, name):
    """Processor and clock seconds of a pass over the batches."""
    images = Photographs(task, with_pillow=name.startswith("Pillow"))
    keys = [[tuple(pair) for pair in batch] for batch in task["batches"]]
    loader = DataLoader(
        images,
        batch_sampler=keys,
        collate_fn=Padded(task),
        num_workers=int(name.endswith("worker")),
    )
    before = used()
    for _ in loader:
        pass
    return [after - start for after, start in zip(used(), before)]  # noqa: B905


def main():
    with open(sys.argv[1]) as file:
        task = json.load(file)
    torch.set_num_threads(1)
    versions = f"torchvision {torchvision.__version__}, torch {torch.__version__}"
    print(f"{versions}, Pillow {PIL.__version__}", flush=True)
    for line in sys.stdin:
        print(json.dumps(one_pass(task, line.strip())), flush=True)


if __name__ == "__main__":
    main()
