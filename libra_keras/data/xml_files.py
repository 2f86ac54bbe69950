"""XML that others wrote: a few bytes of a DOCTYPE could fill the memory, or use up the stack."""

from typing import BinaryIO
from xml.parsers import expat

STEP = 4096  # bytes that are looked at together: what follows in them is parsed all the same


def refuse_declarations(stream: BinaryIO) -> None:
    """Raises a `ValueError` if a stream declares entities or attributes; else it is at its start.

    Tools write none. Entities may stand for each other, and attributes for long texts.
    """
    parser, roots = expat.ParserCreate(), []
    parser.StartDoctypeDeclHandler = _check_doctype
    parser.StartElementHandler = lambda name, attributes: roots.append(name)
    while not roots and (part := stream.read(STEP)):
        parser.Parse(part)
    stream.seek(0)


def _check_doctype(name, system_id, public_id, has_declarations):
    if has_declarations:
        raise ValueError(f"its DOCTYPE {name!r:.80} declares what annotations do not need")
