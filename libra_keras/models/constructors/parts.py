"""What several named detectors share."""

import functools
import inspect

import keras

from libra_keras.backbones import ResNet
from libra_keras.data.images import InputPolicy

# What `ResNet` takes for the networks that detectors are named after.
NETWORKS = {
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "base_width": 4},
    "resnext101_32x4d": {"depth": 101, "groups": 32, "base_width": 4},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "base_width": 4},
}


def network_of(name):
    """Returns the network in the name of a detector, or `None` if it has one of its own.

    Example:

    >>> from libra_keras.models.constructors.parts import network_of
    >>> network_of("libra_faster_rcnn_resnext101_64x4d"), network_of("faster_rcnn_small")
    ('resnext101_64x4d', None)
    """
    return next((network for network in NETWORKS if name.endswith(network)), None)


def resnet(network, **options):
    """Returns the `ResNet` that is called `network` in `NETWORKS`.

    Example:

    >>> from libra_keras.models.constructors.parts import resnet
    >>> resnet("resnext50_32x4d", width=8).groups
    32
    """
    return ResNet(**NETWORKS[network], **options)


def of_one_dtype(constructor):
    """Makes the option `dtype` of a constructor hold for all parts that it builds.

    Layers that are given, such as a backbone, keep the policy that they were built with.

    Args:
        constructor: function that returns a detector.

    Returns:
        A function like it.

    Example:

    >>> from libra_keras.models import rpn_small
    >>> rpn_small(dtype="mixed_bfloat16").backbone.compute_dtype
    'bfloat16'
    """

    @functools.wraps(constructor)
    def build(*args, **options):
        if options.get("dtype") is None:
            return constructor(*args, **options)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(options["dtype"])
        try:
            return constructor(*args, **options)
        finally:
            keras.config.set_dtype_policy(before)

    return build


def on_network(constructor, network):
    """Returns a constructor that differs from a given one in its default backbone alone.

    Args:
        constructor: function called `..._resnet50` that takes a `backbone`; the first line of its
            docstring starts with `FAMILY with ResNet-50`.
        network: str, a name in `NETWORKS`.

    Returns:
        A function of the same arguments and module, whose name and docstring tell the network.

    Example:

    >>> from libra_keras.models import retinanet_resnet50
    >>> from libra_keras.models.constructors.parts import on_network
    >>> function = on_network(retinanet_resnet50, "resnext50_32x4d")
    >>> print(function.__name__, function.__doc__.partition("; ")[0], sep=": ")
    retinanet_resnext50_32x4d: RetinaNet with ResNeXt-50-32x4d
    """
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def build(*args, **options):
        given = signature.bind(*args, **options)
        given.arguments["backbone"] = given.arguments.get("backbone") or resnet(network)
        return constructor(*given.args, **given.kwargs)

    build.__name__ = build.__qualname__ = constructor.__name__.replace("resnet50", network)
    build.__doc__ = _ON_NETWORK.format(
        name=build.__name__,
        family=(constructor.__doc__ or "").partition(" with ResNet-50")[0],  # none with -OO
        network=_title(network),
        original=constructor.__name__,
    )
    return of_one_dtype(build)


_ON_NETWORK = """{family} with {network}; otherwise `{original}`, argument by argument.

    Example:

    >>> from libra_keras.backbones import ResNet
    >>> from libra_keras.models import {name}
    >>> model = {name}(backbone=ResNet(18, width=8), seed=3)
    >>> model.backbone.depth, model.seed
    (18, 3)
    """


def _title(network):
    """`resnext101_64x4d` is ResNeXt-101-64x4d."""
    return network.replace("resnet", "ResNet-").replace("resnext", "ResNeXt-").replace("_", "-")


def with_policy(options, short_side, long_side):
    """Returns the options of a detector with an `InputPolicy`, unless they have one.

    Example:

    >>> from libra_keras.models.constructors.parts import with_policy
    >>> with_policy({"seed": 1}, 320, 320)["input_policy"].short_side
    320
    """
    options = dict(options)
    if options.get("input_policy") is None:
        options["input_policy"] = InputPolicy(short_side, long_side)
    return options


def small_backbone(batch_norm="trainable"):
    """Returns a narrow ResNet-18 with trained batch normalisation, which learns from nothing.

    Args:
        batch_norm: as of `ResNet`; `"synchronized"` for several devices.

    Example:

    >>> from libra_keras.models.constructors.parts import small_backbone
    >>> small_backbone().depth
    18
    """
    return ResNet(18, width=16, batch_norm=batch_norm, frozen_stages=-1)
