"""Options of `libra-keras train` about parts that learn less than others."""


def add_arguments(group):
    """Adds the options."""
    group.add_argument(
        "--freeze",
        metavar="PARTS",
        default="",
        help="parts that do not learn, with commas: backbone, neck, and the heads, which are "
        "called rpn and box_head, or head",
    )
    group.add_argument(
        "--backbone-rate",
        type=float,
        metavar="FACTOR",
        help="of the learning rate, for the backbone, such as 0.1; default: 1",
    )


def frozen(options):
    """Returns the names of the parts that do not learn.

    Raises:
        ValueError: if the backbone's learning rate is given besides, or is negative.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.fine_tuning import frozen
    >>> frozen(argparse.Namespace(freeze="backbone, neck", backbone_rate=None))
    ['backbone', 'neck']
    """
    names = [name.strip() for name in options.freeze.split(",") if name.strip()]
    if options.backbone_rate is not None:
        if "backbone" in names:
            raise ValueError("--backbone-rate is of a backbone that learns, and --freeze names it")
        if not options.backbone_rate >= 0:
            raise ValueError(f"--backbone-rate must not be negative, not {options.backbone_rate}")
    return names
