"""What several named detectors share."""

from libra_keras.backbones import ResNet
from libra_keras.data.images import InputPolicy


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


def small_backbone():
    """Returns a narrow ResNet-18 with trained batch normalisation, which learns from nothing.

    Example:

    >>> from libra_keras.models.constructors.parts import small_backbone
    >>> small_backbone().depth
    18
    """
    return ResNet(18, width=16, batch_norm="trainable", frozen_stages=-1)
