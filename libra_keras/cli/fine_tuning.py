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


def check_start(names, started_from, model, backbone_weights=None):
    """Checks that no part that is to be frozen would stay random.

    Args:
        names: list of strings, parts that do not learn.
        started_from: dict for the record of the run, see `build_initial`; `None` if the heads start
            from nothing.
        model: `Detector`, built.
        backbone_weights: `None` or `"none"` if the backbone starts from nothing, too.

    Raises:
        ValueError: if a part would.

    Example:

    >>> from libra_keras.cli.fine_tuning import check_start
    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> model = libra_faster_rcnn_small(num_classes=2)
    >>> check_start(["box_head"], None, model)
    Traceback (most recent call last):
    ...
    ValueError: --freeze box_head would keep random weights: only --init brings others
    """
    for name in names:
        is_backbone = name == "backbone"
        if is_backbone and (started_from or backbone_weights not in (None, "none")):
            continue
        if started_from is None:
            others = "--init and --backbone-weights bring" if is_backbone else "only --init brings"
            raise ValueError(f"--freeze {name} would keep random weights: {others} others")
        part = getattr(model, name, None)
        fresh = [layer for layer in started_from["reinitialised"] if hasattr(part, layer)]
        if fresh:
            raise ValueError(
                f"--freeze {name} would keep random weights: {', '.join(fresh)} of it start anew, "
                "since the classes are not those of the detector given"
            )
