"""Metrics as lines for people, and as JSON that any program reads."""

import math

from libra_keras.evaluation import METRICS


def finite(values):
    """Replaces NaN and infinities, which JSON does not know, by `None` (null) in a dict.

    Example:

    >>> from libra_keras.cli.report import finite
    >>> finite({"AP": 0.5, "AP_small": float("nan"), "best_val_AP": float("-inf")})
    {'AP': 0.5, 'AP_small': None, 'best_val_AP': None}
    """
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def metric_lines(metrics):
    """Returns COCO's numbers in two rows of six, then one line per class.

    Example:

    >>> from libra_keras.cli.report import metric_lines
    >>> print(metric_lines({"AP": 0.5, "AP50": 0.75, "AP/cat": float("nan")}))
    AP 0.500  AP50 0.750
      AP of cat  -
    """
    named = [f"{name} {_number(metrics[name])}" for name in METRICS if name in metrics]
    rows = ["  ".join(named[start : start + 6]) for start in range(0, len(named), 6)]
    classes = {name[3:]: value for name, value in metrics.items() if name.startswith("AP/")}
    width = max([len(name) for name in classes], default=0)
    rows += [f"  AP of {name:<{width}}  {_number(value)}" for name, value in classes.items()]
    return "\n".join(rows)


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


def headline(metrics):
    """The three numbers that a training run ends with."""
    return "  ".join(f"{name} {_number(metrics[name])}" for name in ("AP", "AP50", "AP_small"))
