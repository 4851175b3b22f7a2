"""Which level is read, how often it is halved, what sizes come out."""

from __future__ import annotations

import math

import pytest

from wsi_ml.errors import IngestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.plan import ScanFacts, believable_mpp, check_mpp, make_plan


def facts(size=(1001, 777), downsamples=(1.0,), mpp: float | None = 0.25, bounds=None) -> ScanFacts:
    levels = [Size(max(1, int(size[0] / d)), max(1, int(size[1] / d))) for d in downsamples]
    return ScanFacts(
        "aperio", Size(*size), levels, list(downsamples), bounds or Region(0, 0, *size), mpp, objective_power=40
    )


@pytest.mark.parametrize(
    ("mpp", "halvings", "stored", "base"),
    [
        (0.125, 2, (251, 195), (501, 389)),
        (0.2271, 1, (501, 389), (1001, 777)),
        (0.25, 1, (501, 389), (1001, 777)),
        (0.2628, 1, (501, 389), (1001, 777)),
        (0.3461, 1, (501, 389), (1001, 777)),
        (0.36, 0, (1001, 777), (2002, 1554)),
        (0.499, 0, (1001, 777), (2002, 1554)),
        (1.01, 0, (1001, 777), (2002, 1554)),
    ],
)
def test_the_plane_nearest_to_half_a_micron_is_stored(mpp, halvings, stored, base):
    plan = make_plan(facts(mpp=mpp))
    assert (plan.scan_level, plan.halvings) == (0, halvings)
    assert (plan.stored_size, plan.base_size) == (stored, base)
    assert plan.stored_mpp == pytest.approx(mpp * 2**halvings)


def test_a_vendor_level_is_read_only_where_one_halving_of_ours_is_left():
    plan = make_plan(facts(downsamples=(1.0, 2.0009, 4.003), mpp=0.125))
    assert (plan.scan_level, plan.scan_steps, plan.halvings) == (1, 1, 1)
    assert make_plan(facts(downsamples=(1.0, 2.0009, 4.003), mpp=0.25)).scan_level == 0
    assert make_plan(facts(downsamples=(1.0, 4.003), mpp=0.125)).scan_level == 0


def test_bounds_are_trimmed_before_halving():
    plan = make_plan(facts(bounds=Region(100, 50, 301, 201)))
    assert (plan.stored_size, plan.base_size) == (Size(151, 101), Size(301, 201))


def test_a_given_mpp_wins_and_is_remembered():
    plan = make_plan(facts(mpp=0.25), 0.5)
    assert (plan.l0_mpp, plan.mpp_given, plan.halvings) == (0.5, True, 0)
    assert make_plan(facts(mpp=0.25)).mpp_given is False


def test_a_missing_mpp_is_refused_with_the_fix():
    with pytest.raises(IngestError, match=r"states no µm/px; give it with --mpp 0\.5"):
        make_plan(facts(mpp=None))


@pytest.mark.parametrize("mpp", [0, -0.5, math.nan, math.inf, 101, 0.001])
def test_an_absurd_mpp_is_refused(mpp):
    with pytest.raises(IngestError, match=r"--mpp .* cannot be the µm/px of a scan"):
        check_mpp(mpp)


def test_what_a_file_states_is_believed_only_where_it_can_be():
    assert believable_mpp(0.25, 0.252) == pytest.approx(0.251)
    assert believable_mpp(None, 0.25) == 0.25
    for nonsense in ((352.8, 352.8), (0.0, 0.0), (math.nan, None), (-0.25, -0.25), (None, None)):
        assert believable_mpp(*nonsense) is None
    with pytest.raises(IngestError, match="not square"):
        believable_mpp(0.25, 0.5)
