"""Pieces that sections are made of; what is text becomes harmless on its way into a page."""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from libra_keras.visualization import plots

LONGEST = 80  # characters of a name that is shown
NOTHING = "–"


class Markup(str):
    """HTML that stands as it is; every other text is escaped."""


def markup(value: Any, most: int = LONGEST) -> Markup:
    """Returns markup as it is, and shortens and escapes anything else."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return Markup(html.escape(text))


def joined(parts: Iterable[Any]) -> Markup:
    """Writes pieces one after the other."""
    return Markup("\n".join(markup(part) for part in parts))


def element(name: str, *parts: Any, **attributes: Any) -> Markup:
    """An element with its attributes; `class_` and `style` are written by us alone."""
    given = "".join(f' {key.rstrip("_")}="{markup(v)}"' for key, v in attributes.items())
    return Markup(f"<{name}{given}>{''.join(markup(part) for part in parts)}</{name}>")


def paragraph(text: str) -> Markup:
    """A paragraph of a sentence of ours, whatever its length."""
    return Markup(f"<p>{html.escape(text)}</p>")


def hint(text: str) -> Markup:
    """A paragraph that says how to read what follows."""
    return Markup(f'<p class="hint">{html.escape(text)}</p>')


def advice(sentences: Sequence[str]) -> Markup:
    """A list of what to do, set off from the rest; nothing where there is none."""
    if not sentences:
        return Markup()
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return Markup(f'<ul class="advice">{items}</ul>')


def number(value: float | None, form: str = ".3f") -> str:
    """A number as text, a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else format(value, form)


def bar(value: float | None, form: str = ".3f", most: float = 1.0) -> Markup:
    """A number with a bar whose length is its share of `most`."""
    if value is None or math.isnan(value):
        return markup(NOTHING)
    share = min(max(value / most, 0.0), 1.0) if most > 0 else 0.0
    length = Markup(f"--share:{share:.3f}")
    return element("span", format(value, form), class_="bar", style=length)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """A table whose first column is text; it scrolls by itself where it is wider than the page."""
    head = element("tr", *(element("th", heading) for heading in headings))
    body = (
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in others))
        for first, *others in rows
    )
    return element("div", element("table", head, *body), class_="scroll", tabindex="0")


def facts(entries: Mapping[str, Any], kind: str = "facts") -> Markup:
    """Names with their values."""
    pairs = (
        element("div", element("dt", name), element("dd", markup(value, 4 * LONGEST)))
        for name, value in entries.items()
    )
    return element("dl", *pairs, class_=kind)


def drawn(*figures: tuple[str, Callable[[], str]]) -> Markup:
    """Plots with their captions, each made by a function; a sentence where nothing can draw."""
    if sentence := plots.missing():
        return Markup(f'<p class="missing">{html.escape(sentence)}</p>')
    made = (
        element("figure", Markup(draw()), element("figcaption", caption))
        for caption, draw in figures
    )
    return element("div", *made, class_="plots")
