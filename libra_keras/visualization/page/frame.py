"""The page around its sections: contents, style, and the mark by which it knows its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from libra_keras.visualization.page.elements import Markup, element, joined, markup

MARK = '<meta name="generator" content="libra-keras report">'
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #5b6570; --line: #d5dae0;
  --ground: #ffffff; --raised: #f4f6f8; --blue: #2a6cab; --warm: #d9822b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --faint: #a2acb6; --line: #3a424b;
  --ground: #14171a; --raised: #1e2328; --blue: #6ba7dc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 16px 48px; max-width: 1240px; color: var(--ink);
  background: var(--ground);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 24px 0 8px; } h2 { font-size: 19px; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 20px 0 4px; }
section { border-top: 1px solid var(--line); margin-top: 28px; padding-top: 20px; }
p { margin: 8px 0; max-width: 80ch; } .hint { color: var(--faint); }
a { color: var(--blue); } nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 12px 0; }
.facts div { display: contents; } dt { color: var(--faint); } dd { margin: 0; min-width: 0; }
.numbers { display: grid; gap: 8px;
  grid-template-columns: repeat(auto-fill, minmax(min(30%, 190px), 1fr)); }
.numbers div { background: var(--raised); border-radius: 6px; padding: 6px 10px; }
.numbers dd { font-size: 19px; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; }
th { font-weight: 500; color: var(--faint); vertical-align: bottom; }
th[scope=row] { color: var(--ink); vertical-align: middle; } tr > :first-child { text-align: left; }
.words { min-width: 172px; max-width: 80ch; font-weight: 400; color: var(--faint); }
td.cell { text-align: center; padding: 4px 8px; border: 1px solid var(--line);
  background: rgb(59 130 196 / calc(var(--share) * .7)); }
.bar { display: inline-block; min-width: 104px; padding: 1px 6px; border-radius: 3px;
  background: linear-gradient(to right, rgb(59 130 196 / .45) calc(var(--share) * 100%),
  rgb(128 128 128 / .12) 0); }
.plots, .pictures { display: grid; gap: 16px; margin: 12px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); }
.plots svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure { margin: 0; min-width: 0; } figcaption { font-size: 13px; color: var(--faint); }
figcaption b { color: var(--ink); font-weight: 600; }
svg, img { max-width: 100%; height: auto; display: block; } img { border-radius: 4px; }
.gone { display: grid; place-items: center; min-height: 96px; padding: 12px; border-radius: 4px;
  background: var(--raised); color: var(--faint); font-size: 13px; }
.advice, .missing { background: var(--raised); border-left: 4px solid var(--warm);
  padding: 8px 16px; margin: 12px 0; max-width: 90ch; } .advice { padding-left: 32px; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 2px; }
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: its name in addresses, its heading, and what is in it."""

    name: str
    heading: str
    body: Markup


def document(title: str, head: Markup, sections: Sequence[Section]) -> str:
    """Returns the whole page."""
    contents = (element("a", part.heading, href=f"#{part.name}") for part in sections)
    parts = (
        element("section", element("h2", part.heading), part.body, id=part.name)
        for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{markup(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{markup(title)}</h1>
{head}
{element("nav", *contents)}
<main>
{joined(parts)}
</main>
</body>
</html>
"""


def is_own(path: Path) -> bool:
    """Whether a file is such a page, which a newer one may replace."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(512)
