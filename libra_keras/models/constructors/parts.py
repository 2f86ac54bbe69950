"""What several named detectors share."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import keras

from libra_keras.backbones import ResNet
from libra_keras.data.images import InputPolicy

Arguments = ParamSpec("Arguments")
Built = TypeVar("Built")

# What `ResNet` takes for the networks that detectors are named after.
NETWORKS = {
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "base_width": 4},
    "resnext101_32x4d": {"depth": 101, "groups": 32, "base_width": 4},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "base_width": 4},
}


def network_of(name):
    """Returns the network in the name of a detector, or `None` if it has one of its own."""
    return next((network for network in NETWORKS if name.endswith(network)), None)


def resnet(network, **options):
    """Returns the `ResNet` that is called `network` in `NETWORKS`."""
    return ResNet(**NETWORKS[network], **options)


def of_one_dtype(constructor: Callable[Arguments, Built]) -> Callable[Arguments, Built]:
    """Makes the option `dtype` of a constructor hold for all parts that it builds itself."""

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


def on_network(constructor: Callable[Arguments, Built], network: str) -> Callable[Arguments, Built]:
    """Returns a constructor as the given one, `..._resnet50`, but with another default backbone."""
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


def with_input_policy(options, short_side, long_side):
    """Returns the options of a detector with an `InputPolicy`, unless they have one."""
    options = dict(options)
    if options.get("input_policy") is None:
        options["input_policy"] = InputPolicy(short_side, long_side)
    return options


def small_backbone(batch_norm="trainable"):
    """Returns a narrow ResNet-18 with trained batch normalisation, which learns from nothing."""
    return ResNet(18, width=16, batch_norm=batch_norm, frozen_stages=-1)
