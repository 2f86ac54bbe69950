"""How samplers are called: with a `Match` or with its tensors, and what they refuse."""

import inspect

import numpy as np
import pytest
from keras import ops

from libra_keras import samplers
from libra_keras.functional.matching import Match, match
from libra_keras.samplers import (
    CombinedSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
    OHEMSampler,
    RandomSampler,
)

pytestmark = pytest.mark.portable
ALL = [
    RandomSampler(8, 0.25),
    IoUBalancedSampler(8, 0.25),
    InstanceBalancedSampler(8, 0.25),
    CombinedSampler.preset("mmdet", 8, 0.25),
    OHEMSampler(8, 0.25),
]
every = pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: type(sampler).__name__)


def call(sampler, rng):
    """What a sampler takes, by name."""
    overlaps, mask = rng.random((2, 20, 3)).astype("float32"), np.ones((2, 3), bool)
    found = match(overlaps, mask, positive_iou=0.8, negative_iou=0.7)._asdict()
    needed = ["keys", *["losses"] * isinstance(sampler, OHEMSampler)]
    return found, {name: rng.random((2, 20)).astype("float32") for name in needed}


def same(one, other):
    for part, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(part), ops.convert_to_numpy(again))


def test_all_samplers_are_here():
    others = (samplers.Sampler, samplers.SampledBoxMatcher, samplers.from_box_matcher)
    exported = {getattr(samplers, name) for name in samplers.__all__} - set(others)
    assert exported == set(map(type, ALL)) and all(map(inspect.isclass, exported))


@every
def test_a_match_and_its_tensors_give_the_same(sampler, rng):
    found, others = call(sampler, rng)
    expected = sampler(Match(**found), *others.values())
    assert ops.convert_to_numpy(expected[2]).any()
    same(expected, sampler(match=Match(**found), **others))
    same(expected, sampler(**found, **others))
    order = ("max_iou", "matched_gt", "is_positive", "is_negative")
    same(expected, sampler(*(found[name] for name in order), *others.values()))


@every
def test_wrong_tensors_are_named(sampler, rng):
    found, others = call(sampler, rng)
    for name, good in {**found, **others}.items():
        good = ops.convert_to_numpy(good)
        wrong_kind = good.astype("int32" if good.dtype == bool else bool)
        for wrong, message in (
            (
                good[0],
                rf"`{name}` must have shape \(B, N\)\. Received: shape=\(20,\); .* `{name}\[",
            ),
            (wrong_kind, f"`{name}` must hold .*Received: dtype="),
        ):
            changed = {**found, **others, name: wrong}
            with pytest.raises(ValueError, match=message):
                sampler(**changed)
            head = Match(*(changed.pop(field) for field in Match._fields))
            with pytest.raises(ValueError, match=message):
                sampler(head, **changed)
    with pytest.raises(ValueError, match=r"`keys` .* N being 20 as in `max_iou`.*\(2, 19\)"):
        sampler(**found, **{**others, "keys": others["keys"][:, :19]})


def test_the_order_of_a_match_is_not_that_of_the_tensors(rng):
    found, others = call(ALL[0], rng)
    with pytest.raises(ValueError, match="`matched_gt` must hold integers"):
        ALL[0](*Match(**found), *others.values())


@every
def test_without_numbers_it_is_a_part(sampler, rng):
    found, others = call(sampler, rng)
    config = sampler.get_config()
    for missing in (["num"], ["positive_fraction"], ["num", "positive_fraction"]):
        part = type(sampler).from_config(config | dict.fromkeys(missing))
        with pytest.raises(ValueError, match=f"{missing[0]}=None") as error:
            part(Match(**found), **others)
        assert f"`{type(sampler).__name__}` requires `num`" in str(error.value)


def test_the_frame_chooses_nothing():
    with pytest.raises(TypeError, match="choose_negatives"):
        samplers.Sampler(8, 0.25)


def test_losses_are_for_hard_examples(rng):
    found, others = call(ALL[-1], rng)
    with pytest.raises(TypeError, match="`RandomSampler` takes no `losses`; `OHEMSampler` does"):
        ALL[0](Match(**found), **others)
    with pytest.raises(TypeError, match="keys"):
        ALL[0](Match(**found))
