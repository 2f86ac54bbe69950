"""Writes what torchvision's own detectors find on photographs, for `test_torchvision_parity.py`.

Needs an environment of its own: torch 2.1.2, torchvision 0.16.2, numpy 1.26, Pillow. Run it there
with the folder of the photographs, about one minute on two cores:

    python tests/convert/torchvision_reference.py ../shared/data/coco_mini

Weights are those of `seeded_weights`, loaded under the names of the published files, which are
older than torchvision 0.13. Every photograph has its own size, so that torchvision resizes nothing
(its kernel is not ours). A case is only written if torchvision finds the same with 64 bits: then
no detection hangs on the rounding of some comparison, and another implementation must find it too.
"""

import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from detection_distance import detection_distance
from key_lists import before_0_13
from PIL import Image
from seeded_weights import seeded_weights
from torchvision import models
from torchvision.models.detection import (
    FasterRCNN,
    RetinaNet,
    fasterrcnn_resnet50_fpn,
    retinanet_resnet50_fpn,
)
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

FIXTURES = Path(__file__).parent / "fixtures"
NUM_PROPOSALS = 50  # that are kept for diagnosis
SMALL = "val2017/000000404484.jpg"  # 320x240
LANDSCAPE, BESIDE = "train2017/000000000491.jpg", "train2017/000000144941.jpg"  # 500x313, 500x334
PORTRAIT = "val2017/000000331352.jpg"  # 351x500
GREY = "train2017/000000000086.jpg"  # 512x640, one channel
# Photographs of a batch, and the epsilon of its batch normalisations: 1e-5 is torchvision's own, 0
# is what it sets for its published detectors.
CASES = {
    "small": ([SMALL], 1e-5),
    "small, epsilon 0": ([SMALL], 0.0),
    "landscape": ([LANDSCAPE], 1e-5),
    "portrait": ([PORTRAIT], 1e-5),
    "grey": ([GREY], 1e-5),
    "batch of two sizes": ([BESIDE, PORTRAIT], 1e-5),
}
BACKBONES = ("resnet50", "resnet101", "resnext50_32x4d", "resnext101_64x4d")


def faster_rcnn():
    """`fasterrcnn_resnet50_fpn` as it is for published weights, which make its norms frozen."""
    network = models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    return FasterRCNN(_resnet_fpn_extractor(network, 3), num_classes=91)


def retinanet():
    """`retinanet_resnet50_fpn`, likewise."""
    network = models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    extra = LastLevelP6P7(256, 256)
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": extra}
    return RetinaNet(_resnet_fpn_extractor(network, 3, **levels), num_classes=91)


DETECTORS = {"fasterrcnn_resnet50_fpn": faster_rcnn, "retinanet_resnet50_fpn": retinanet}


def with_seeded_weights(model):
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tensors = {name: torch.from_numpy(seeded_weights(name, s)) for name, s in shapes.items()}
    model.load_state_dict({before_0_13(name): value for name, value in tensors.items()})
    return model.eval()


def read(path):
    """Pixels `(H, W, 3)`, uint8."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def detections(model, arrays):
    """What the model finds in a batch, and what its pyramid and its proposals were on the way."""
    seen = {}
    hooks = [model.backbone.register_forward_hook(lambda m, i, o: seen.update(pyramid=o))]
    if hasattr(model, "rpn"):
        hooks.append(model.rpn.register_forward_hook(lambda m, i, o: seen.update(proposals=o[0])))
    kind = next(model.parameters()).dtype
    images = [torch.from_numpy(a).permute(2, 0, 1).to(kind) / 255 for a in arrays]
    with torch.no_grad():
        found = model(images)
    for hook in hooks:
        hook.remove()
    return [_result(seen, found[i], i) for i in range(len(arrays))]


def _result(seen, found, row):
    levels = [level[row] for level in seen["pyramid"].values()]
    result = {
        "boxes": found["boxes"],
        "scores": found["scores"],
        "labels": found["labels"].to(torch.uint8),
        "level_means_and_deviations": torch.stack(
            [torch.stack([x.mean(), x.std()]) for x in levels]
        ),
    }
    if "proposals" in seen:
        result["proposals"] = seen["proposals"][row][:NUM_PROPOSALS]
    return {key: value.numpy() for key, value in result.items()}


def without_resizing(model, arrays):
    """Sets the sizes that make torchvision's scale 1; so the longer sides of a batch are equal."""
    sides = [sorted(array.shape[:2]) for array in arrays]
    model.transform.min_size = (max(short for short, _ in sides),)
    model.transform.max_size = max(long for _, long in sides)
    if any(long != model.transform.max_size for _, long in sides):
        raise ValueError(f"Expected equal longer sides. Received: {sides}")


def run_case(model, photographs, epsilon):
    """The results of a batch, and their largest distances from those with 64 bits."""
    without_resizing(model, photographs)
    overwrite_eps(model, epsilon)
    results = detections(model, photographs)
    precise = detections(model.double(), photographs)
    model.float()
    distances = [detection_distance(*pair) for pair in zip(results, precise, strict=True)]
    return results, np.max(distances, axis=0)


def write_detections(name, folder):
    model, arrays = with_seeded_weights(DETECTORS[name]()), {}
    for case, (files, epsilon) in CASES.items():
        photographs = [read(folder / file) for file in files]
        results, distances = run_case(model, photographs, epsilon)
        counts = [len(result["scores"]) for result in results]
        print(f"{name}, {case}: {counts} found, {distances} from 64 bits", flush=True)
        if not np.all(distances < (0.01, 5e-5)):
            raise ValueError(f"{case}: hangs on rounding; take another photograph")
        arrays[f"{case}|files"], arrays[f"{case}|epsilon"] = np.array(files), np.array(epsilon)
        for i, (pixels, result) in enumerate(zip(photographs, results, strict=True)):
            arrays[f"{case}|{i}|pixels_crc32"] = np.array(zlib.crc32(pixels.tobytes()))
            arrays.update({f"{case}|{i}|{key}": value for key, value in result.items()})
    np.savez_compressed(FIXTURES / f"torchvision_{name}.npz", **arrays)


def key_lines(model):
    """One line for each tensor: name, shape, type, and whether it is trained."""
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trained
    for name, value in model.state_dict().items():
        kind = "param,grad=1" if name in trained else "param,grad=0" if name in frozen else "buffer"
        shape = "x".join(map(str, value.shape)) or "scalar"
        yield f"{name}\t{shape}\t{str(value.dtype).removeprefix('torch.')}\t{kind}"


def write_keys():
    for name, build in DETECTORS.items():
        head = f"# state_dict of torchvision 0.16.2 {name}, batch normalisation frozen"
        head += ": name, shape (torch layout), dtype, kind(param requires_grad=1/0 | buffer)"
        lines = [head, *key_lines(build())]
        (FIXTURES / f"keys_torchvision_{name}.txt").write_text("\n".join(lines) + "\n")
    # Lists that follow from rules, see `key_lists`: their hashes suffice.
    untrained = {"weights": None, "weights_backbone": None}
    others = {name: getattr(models, name)(weights=None) for name in BACKBONES}
    others["fasterrcnn_resnet50_fpn, trained norms"] = fasterrcnn_resnet50_fpn(**untrained)
    others["retinanet_resnet50_fpn, trained norms"] = retinanet_resnet50_fpn(**untrained)
    hashes = {}
    for name, model in others.items():
        text = "\n".join(line.rpartition("\t")[0] for line in key_lines(model))
        hashes[name] = hashlib.sha256(text.encode()).hexdigest()
    path = FIXTURES / "keys_torchvision_sha256.json"
    path.write_text(json.dumps(hashes, indent=2) + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    FIXTURES.mkdir(exist_ok=True)
    write_keys()
    for name in DETECTORS:
        write_detections(name, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
