"""Lines of texts that others wrote: one that is no text costs no other."""

import io
import os
import re

from libra_keras.files.reading import explained, memory, read_bytes

NO_TEXT = re.compile("[\0\ud800-\udfff]")  # of a line, or of a name that a YAML spells out


def read_lines(file: str | os.PathLike[str]) -> list[str]:
    """Reads lines with their ends; of bytes that are no UTF-8, `no_text` tells."""
    with explained(file):
        text = read_bytes(file, memory()).decode("utf-8-sig", "surrogateescape")
    return list(io.StringIO(text, newline=""))


def no_text(line: str) -> str | None:
    """Says that a line of `read_lines`, or a field of it, is no text; else `None`."""
    if not NO_TEXT.search(line):
        return None
    return f"{line.encode('utf-8', 'surrogateescape')!r:.80} is not UTF-8 text"
