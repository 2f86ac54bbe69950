"""The look of all figures: sizes, colours, and how they are saved.

Needs no TensorFlow, and neither display nor global state: figures are matplotlib's own objects.
"""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

WIDTH = 8.0  # inches
DPI = 100
EMBEDDED = r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)"
PATH = r'(?<= d=")[^"]+'
# Colours that stay apart for colour-blind people: Okabe and Ito, "Color Universal Design", 2008.
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILION, PINK = "#E69F00", "#D55E00", "#CC79A7"
BLACK, GREY, LIGHT = "#222222", "#767676", "#D9D9D9"
HEAT = "viridis"  # its lightness alone tells the values, also without colours
RC = {
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.w_pad": 0.04,
    "image.interpolation": "none",  # a cell of a map stays a cell, and is stored once
    "savefig.facecolor": "white",
    "svg.hashsalt": "libra_keras",
}


def figure(height: float) -> Figure:
    """An empty figure of the common width."""
    return Figure(figsize=(WIDTH, height))


def save(drawn: Figure, stem: Path) -> None:
    """Writes `<stem>.png` and `<stem>.svg`; the same figure gives the same bytes."""
    buffers = {form: io.BytesIO() for form in ("svg", "png")}
    drawn.savefig(buffers["svg"], format="svg", metadata={"Date": None, "Creator": None})
    drawn.savefig(buffers["png"], format="png", dpi=DPI)
    text = re.sub(EMBEDDED, _smaller, buffers["svg"].getvalue().decode())
    Path(f"{stem}.svg").write_text(re.sub(PATH, _shorter, text))
    Path(f"{stem}.png").write_bytes(with_palette(buffers["png"].getvalue()))


def with_palette(png: bytes) -> bytes:
    """A PNG in 256 colours: a third of the bytes, which a repository keeps for ever."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _smaller(match):
    """What an SVG says of an image in it: a map has the colours of a palette, a photograph more."""
    png = base64.b64decode(match[1])
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.getcolors(256) is None:
        return f"data:image/jpeg;base64,{encoded(np.asarray(image))}"
    return f"data:image/png;base64,{base64.b64encode(with_palette(png)).decode()}"


def _shorter(path):
    """A path in hundredths of a point, which nobody sees."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{round(float(number[0]), 2):g}", path[0])


def look() -> object:
    """A context in which figures are drawn and saved."""
    return matplotlib.rc_context(RC)


def encoded(pixels: np.ndarray) -> str:
    """A photograph `(H, W, 3)` as text that JSON can hold."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    """The photograph that `encoded` made text of."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def show_photograph(axes: Axes, record: dict, fade: float = 0.0) -> None:
    """Shows a photograph, whose pixels are the units of the axes.

    Args:
        axes: where.
        record: its `"size"`, and its pixels as `encoded` returned them, `"jpeg"`.
        fade: float in 0..1, how far it is mixed with white, for what is drawn on it.
    """
    pixels, (height, width) = decoded(record["jpeg"]), record["size"]
    pixels = (pixels * (1 - fade) + 255 * fade).round().astype("uint8")
    axes.imshow(pixels, extent=(0, width, height, 0))
    bare(axes)


def show_map(axes: Axes, values: np.ndarray, record: dict, **options: object) -> object:
    """Shows a map of the padded photograph, as far as the photograph goes; returns the image."""
    height, width = record["padded"]
    image = axes.imshow(values, extent=(0, width, height, 0), cmap=HEAT, **options)
    axes.set(xlim=(0, record["size"][1]), ylim=(record["size"][0], 0))
    bare(axes)
    return image


def show_boxes(axes: Axes, boxes: Sequence, **options: object) -> None:
    """Outlines boxes (x1, y1, x2, y2)."""
    for x1, y1, x2, y2 in boxes:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **options))


def bare(axes: Axes) -> None:
    """Takes ticks and frame away."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
