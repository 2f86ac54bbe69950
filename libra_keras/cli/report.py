"""Metrics as lines for people, and as JSON that any program reads."""

import math

from libra_keras.evaluation import METRICS, VOC_METRICS


def finite(values):
    """Replaces NaN and infinities, which JSON does not know, by `None` (null) in a dict.

    Example:

    >>> from libra_keras.cli.report import finite
    >>> finite({"AP": 0.5, "AP_small": float("nan"), "best_val_AP": float("-inf")})
    {'AP': 0.5, 'AP_small': None, 'best_val_AP': None}
    """
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def metric_lines(metrics):
    """Returns COCO's numbers in two rows of six, recall of proposals in a third, then Pascal
    VOC's, then one line per class.

    Example:

    >>> from libra_keras.cli.report import metric_lines
    >>> print(metric_lines({"AP": 0.5, "AP50": 0.75, "AP/cat": float("nan")}))
    AP 0.500  AP50 0.750
      AP of cat  -
    """
    named = [f"{name} {_number(metrics[name])}" for name in METRICS if name in metrics]
    named += [f"{name} {_number(value)}" for name, value in metrics.items() if _is_recall(name)]
    rows = ["  ".join(named[start : start + 6]) for start in range(0, len(named), 6)]
    voc = [name for name in VOC_METRICS if name in metrics]
    rows += ["  ".join(f"{name} {_number(metrics[name])}" for name in voc)] if voc else []
    classes = [name[3:] for name in metrics if name.startswith("AP/")]
    width = max([len(name) for name in classes], default=0)
    for name in classes:
        line = f"  AP of {name:<{width}}  {_number(metrics[f'AP/{name}'])}"
        rows.append("  ".join([line, *(f"{v} {_number(metrics[f'{v}/{name}'])}" for v in voc)]))
    return "\n".join(rows)


def _is_recall(name):
    return name.startswith("AR") and "@" in name


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


def headline(metrics):
    """The few numbers that a training run ends with: AP, or the recall of proposals.

    Example:

    >>> from libra_keras.cli.report import headline
    >>> headline({"AR@100": 0.5, "AR@300": 0.625, "AR_small@300": 0.25})
    'AR@100 0.500  AR@300 0.625'
    """
    recalls = [name for name in metrics if name.startswith("AR@")]
    names = ("AP", "AP50", "AP_small") if "AP" in metrics else recalls
    return "  ".join(f"{name} {_number(metrics[name])}" for name in names)
