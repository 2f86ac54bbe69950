"""Numbers that options are given: taken as they are, or refused in one line that names the option,
before anything is read or made."""

import contextlib
import io
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, WRONG, cases

from libra_keras.cli import parser
from libra_keras.cli.options import config_of
from libra_keras.runs import TrainConfig
from libra_keras.runs.defaults import drop_fractions

VERBS = {
    "train": [],
    "evaluate": ["run", "shapes"],
    "report": ["run"],
    "predict": ["run", "x.jpg", "--to", "found"],
    "propose": ["run", "shapes", "--split", "val", "--to", "x.npz"],
    "export": ["run", "--to", "out"],
    "convert": ["x.pth", "--to", "out"],
    "check-data": ["shapes"],
}
TEXTS = [
    *map(str, WRONG), "1e400", "-0", "0.0", "1e-320", "0.25", "3", "٣", "1_0", "+5", "9" * 5000,
    "0b1", "1/0", "1,2", "3,,", "1e99999999", "all", "negatives", "-inf", "2147483648", "0x1p-1",
]  # fmt: skip
PARSER = parser()
FIELDS = [(group, field) for _, group, field in TrainConfig().options()]
RANGED = [(group, field) for group, field in FIELDS if "within" in field.metadata]


def options_of(verb):
    """The options of a verb, by their names, and where their values go."""
    action = next(a for a in PARSER._actions if a.dest == "verb")
    own = action.choices[verb]._actions
    return {a.option_strings[-1]: a.dest for a in own if a.option_strings}


def is_numeric(verb, name):
    """Whether an option refuses a word for its not being a number."""
    _, said = parsed(verb, f"{name}=nan")
    return said is not None and "number" in said


def parsed(verb, *arguments):
    """What the command makes of a line, and what it says if it refuses it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            options = PARSER.parse_args([verb, *VERBS[verb], *arguments])
        except SystemExit as end:
            assert end.code == 2
            return None, said.getvalue()
    return options, None


OPTIONS = {verb: options_of(verb) for verb in VERBS}
NUMERIC = [(verb, name) for verb, own in OPTIONS.items() for name in own if is_numeric(verb, name)]


def is_right(value, within):
    """Whether a value is one of a range, by the reading of it in this file."""
    if isinstance(value, str):
        return value in within.words
    low = within.least < value or (within.ends[0] == "[" and value == within.least)
    high = value < within.most or (within.ends[1] == "]" and value == within.most)
    return low and high and value not in (float("inf"), float("-inf"))


def check_line(option, text):
    """An option is taken as the number that Python reads, or refused in a line."""
    (verb, name), (options, said) = option, parsed(option[0], f"{option[1]}={text}")
    if said is not None:
        assert said.startswith(f"libra-keras {verb}: argument {name}: ") and said.count("\n") == 1
        assert "must be" in said and len(said) < 400
        return
    value = vars(options)[OPTIONS[verb][name]]
    for each in value if isinstance(value, tuple) else [value]:
        assert each in ("all", "negatives") or -1 <= each < 2**63
    if not isinstance(value, tuple):
        assert value == (text if isinstance(value, str) else type(value)(text))
    if verb == "train":
        group, _, field = OPTIONS[verb][name].partition(".")
        assert getattr(getattr(config_of(options), group), field) == value


def check_value(place, value):
    """A field takes a value of its range, and keeps it as Python's; others it refuses by name."""
    group, field = place
    try:
        config = TrainConfig().replace(**{group: {field.name: value}})
    except (TypeError, ValueError) as error:
        assert f"Config.{field.name} must be " in str(error) and len(str(error)) < 300
        assert value is not None or "None" not in str(field.type)
        return
    found = getattr(getattr(config, group), field.name)
    for each in found if isinstance(found, tuple) else [found]:
        assert each is None or is_right(each, field.metadata["within"])
        assert type(each) in (int, float, str, type(None))


ARRAYS = [np.float32("nan"), np.float64(0.25), np.int64(3), np.uint8(200), np.bool_(True), (3, 2.5)]
NUMBERS = st.one_of(st.floats(), st.integers())
LINES = st.tuples(
    st.sampled_from(NUMERIC), st.one_of(st.sampled_from(TEXTS), st.text(), NUMBERS.map(str))
)
VALUES = st.tuples(st.sampled_from(RANGED), st.one_of(st.sampled_from([*WRONG, *ARRAYS]), NUMBERS))
DROPS = st.one_of(st.sampled_from(TEXTS), st.from_regex(r"[0-9./, e-]{0,12}", fullmatch=True))


def check_drops(text):
    """Fractions are read as such, in their order, or refused in a line."""
    try:
        fractions = drop_fractions(text)
    except ValueError as error:
        assert str(error).startswith("--drops must be fractions") and len(str(error)) < 300
        return
    assert fractions == sorted(fractions) and all(0 < each < 1 for each in fractions)


@cases(FAST)
@given(LINES, VALUES, DROPS)
def test_numbers_are_taken_or_refused(line, value, drops):
    check_line(*line)
    check_value(*value)
    check_drops(drops)


def test_every_number_has_a_range():
    numbers = [f for _, f in FIELDS if {"int", "float"} & set(re.findall(r"\w+", f"{f.type}"))]
    assert [field.name for field in numbers if "within" not in field.metadata] == []
    assert sum(verb == "train" for verb, _ in NUMERIC) == len(numbers)
