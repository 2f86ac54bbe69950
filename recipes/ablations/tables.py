"""The tables of the paper as values, and what is written of the runs that fill them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

DRAWS = 4000  # of seeds and images, for an interval
NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a detector with some of its parts replaced.

    Attributes:
        key: name of its results; rows that are the same in two tables have the same.
        label: what the table calls it.
        parts: fields of `ModelConfig`.
        paper: the paper's numbers, in the order of the columns; `None` where it has no such row.
        kind: detector, before the size: `""` for the one that the command names.
        size: the only size that there is such a detector of; `None` for all.
    """

    key: str
    label: str
    parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: tuple[float, ...] | None = None
    kind: str = ""
    size: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: what it compares.
        columns: names of metrics.
        rows: the first one is what the others are compared with.
        kind: detector, before the size, unless the command names another.
        is_cumulative: whether each row adds to the one above.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    kind: str = "fast_rcnn"
    is_cumulative: bool = False


def markdown(table: Table, results: list[dict], metric: str | None = None) -> str:
    """Returns the table: means of all seeds, the paper's row, and paired differences in a metric,
    by default the first column's.

    Raises:
        ValueError: if results have no such metric.
    """
    metric = metric or table.columns[0]
    known = sorted({name for result in results for name in result.get("metrics", {})})
    if known and metric not in known:
        raise ValueError(f"--metric must be one of {', '.join(known)}. Received: {metric!r}")
    place = table.columns.index(metric) if metric in table.columns else None
    measured = {row.key: _done(results, row.key) for row in table.rows}
    is_of_paper = any(row.paper for row in table.rows)
    head = ["", *table.columns, "seeds", f"difference in {metric} [95 %: t; bootstrap]"]
    if table.is_cumulative:
        head.append("to the row above")
    lines = [_line(head), _line(["---"] * len(head))]
    for i, row in enumerate(table.rows):
        own, first = measured[row.key], measured[table.rows[0].key]
        label = f"{row.label} (ours)" if i and is_of_paper and not row.paper else row.label
        cells = [label, *_means(results, row.key, table.columns), _count(results, row.key)]
        cells.append(_difference(own, first, metric) if i else "")
        if table.is_cumulative:
            above = measured[table.rows[i - 1].key]
            cells.append(_difference(own, above, metric) if i else "")
        lines.append(_line(cells))
        if row.paper:
            paper = [f"*{value:.1f}*" for value in row.paper]
            is_known = i and place is not None
            gain = f"*{row.paper[place] - table.rows[0].paper[place]:+.1f}*" if is_known else ""
            lines.append(_line(["*paper, COCO*", *paper, "", gain, *([""] * (len(head) - 9))]))
    return "\n".join(lines)


def paired_difference(own: list[dict], other: list[dict], metric: str) -> dict[str, Any] | None:
    """Mean difference of runs of the same seeds and proposals, with two intervals; `None` without a
    pair.

    `t` is Student's over seeds. `bootstrap` draws seeds and images; its seeds' share is widened by
    sqrt(n / (n - 1)), since n drawn seeds vary less than n new ones. Two seeds have no interval.
    """
    twins = {_shared(result): result for result in other}
    pairs = [(result, twins[_shared(result)]) for result in own if _shared(result) in twins]
    if not pairs:
        return None
    gains = np.array([_value(a, metric) - _value(b, metric) for a, b in pairs])
    found = {"mean": gains.mean(), "seeds": len(gains), "t": None, "bootstrap": None}
    if len(gains) > 2:
        error = gains.std(ddof=1) / math.sqrt(len(gains))
        half = stats.t.ppf(0.975, len(gains) - 1) * error
        found["t"] = (gains.mean() - half, gains.mean() + half)
        if all(metric in result["resampled"] for pair in pairs for result in pair):
            found["bootstrap"] = _bootstrap(gains, pairs, metric)
    return found


def _shared(result):
    """What two runs of a pair have in common."""
    return result["seed"], *result.get("proposals", ())


def _bootstrap(gains, pairs, metric):
    resampled = np.array(
        [
            100 * np.subtract(a["resampled"][metric], b["resampled"][metric], dtype=float)
            for a, b in pairs
        ]
    )  # (seeds, resamples of the images)
    generator, n = np.random.default_rng(0), len(gains)
    images = generator.integers(resampled.shape[1], size=DRAWS)
    seeds = generator.integers(n, size=(DRAWS, n))
    of_seeds = (gains[seeds].mean(axis=1) - gains.mean()) * math.sqrt(n / (n - 1))
    of_images = resampled[:, images].mean(axis=0) - gains.mean()
    low, high = np.quantile(gains.mean() + of_seeds + of_images, [0.025, 0.975])
    return low, high


def _done(results, key):
    return [result for result in results if result["row"] == key and result["status"] == "done"]


def _value(result, metric):
    value = result["metrics"][metric]
    return math.nan if value is None else 100 * value


def _means(results, key, columns):
    own = _done(results, key)
    if not own:
        states = sorted({result["status"] for result in results if result["row"] == key})
        return [" or ".join(states) or NOT_RUN] + [""] * (len(columns) - 1)
    cells = []
    for column in columns:
        values = np.array([_value(result, column) for result in own])
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        spread = f" ± {error:.2f}" if len(values) > 1 else ""
        cells.append(f"{values.mean():.1f}{spread}")
    return cells


def _count(results, key):
    """How many seeds, and what became of the others."""
    states = [result["status"] for result in results if result["row"] == key]
    others = [f"{states.count(s)} {s}" for s in ("diverged", "failed") if s in states]
    return ", ".join([str(states.count("done")), *others]) if states else ""


def _difference(own, other, metric):
    found = paired_difference(own, other, metric)
    if found is None:
        return ""
    if found["t"] is None:
        number = {1: "one seed", 2: "two seeds"}[found["seeds"]]
        return f"{found['mean']:+.2f} ({number}: no interval)"
    intervals = [found["t"], found["bootstrap"]]
    texts = [f"{low:+.2f} … {high:+.2f}" for low, high in filter(None, intervals)]
    none = any(low <= 0 <= high for low, high in filter(None, intervals))
    return f"{found['mean']:+.2f} [{'; '.join(texts)}]{', no effect seen' if none else ''}"


def _line(cells):
    return f"| {' | '.join(cells)} |"
