"""Which of the ready-made networks a converted one is."""

from libra_keras.layers import PathAggregationPyramid
from libra_keras.models import (
    FasterRCNN,
    FastRCNN,
    RegionProposalNetwork,
    RetinaNet,
    constructors,
)
from libra_keras.models.constructors.parts import NETWORKS


def network_name(backbone):
    """Returns the name of a backbone in those of our detectors, or `None` if it has none."""
    if backbone.width != 64:
        return None
    for name, sizes in NETWORKS.items():
        plain = {"groups": 1, **sizes}
        if all(getattr(backbone, key) == value for key, value in plain.items()):
            return name
    return None


def model_name(model):
    """Returns the name of the ready-made detector that a converted one is, or `None`."""
    kinds = {
        FasterRCNN: "faster_rcnn",
        FastRCNN: "fast_rcnn",
        RetinaNet: "retinanet",
        RegionProposalNetwork: "rpn",
    }
    libra = "libra_" if len(model.neck) > 1 else ""
    neck = "_pafpn" if isinstance(model.neck[0], PathAggregationPyramid) else ""
    name = f"{libra}{kinds[type(model)]}{neck}_{network_name(model.backbone)}"
    return name if constructors.list(name) else None
