"""The cost of a cohort on small figures."""

import pytest

from benchmarks import cohort_cost
from benchmarks.cohort_cost import (
    Cohort,
    Window,
    body,
    hours,
    hours_measured,
    machines_for,
    read_measured,
    window_flops,
)


def test_area_windows_and_hours_follow_from_the_counts():
    cohort = Cohort(slides=2, nuclei=40_000, density=4_000.0)
    assert cohort.area_mm2 == pytest.approx(10.0)
    assert cohort.windows(200) == 1000  # middles of 0.1 mm
    assert cohort.windows(200, mpp=0.25) == 4000
    assert hours(1000, int(3.6e9), 1.0, 0.5) == pytest.approx(1000 * 3.6e9 / 0.5e12 / 3600)
    assert hours_measured(cohort, 0.5) == pytest.approx(20 / 3600)
    assert (machines_for(169.0, 168), machines_for(168.0, 168), machines_for(0.1, 24)) == (2, 1, 1)


def flops_of(side, core, whole):
    return window_flops(Window("", side, core, whole), 4, (1, 1, 1, 1))


def test_operations_grow_with_the_area_and_shrink_with_what_is_left_out():
    small, large = flops_of(64, 32, True), flops_of(128, 32, True)
    assert large == pytest.approx(4 * small, rel=0.02)
    assert 0 < flops_of(128, 32, False) < 0.8 * large


def test_the_papers_cohort(monkeypatch):
    monkeypatch.setattr(cohort_cost, "window_flops", lambda window: 10**12)
    text = body(Cohort(), {"nuclei, 2 threads": 0.25})
    # 377 million / 6,091 per mm² = 61,895 mm²; / 0.072² mm² = 11.9 million windows; of 1 TFLOP at 7.85 TFLOP/s: 422 h.
    assert "61,895 mm² of tissue, 103 mm² a slide" in text
    assert "448 → 144 (paper) px: 1,000 GFLOP a window, 11.9 million windows" in text
    assert "| V100, fp32 | 448 → 144 (paper) | 15.7 | 50% | 422 | 3 | 18 |" in text
    assert "| nuclei, 2 threads | 0.25 | 69 | 1 | 3 |" in text and "assumed" in text


def test_a_timed_network_gives_a_row_for_each_cut(monkeypatch):
    monkeypatch.setattr(cohort_cost, "window_seconds", lambda window, threads: 2.0)
    rows = cohort_cost.timed_rows(1)
    assert list(rows.values()) == pytest.approx([0.072**2 / 2, 0.256**2 / 2])
    assert all("1 thread," in name and "2.0 s a window" in name for name in rows)


@pytest.mark.parametrize("text", ["0.5", "a=b", "a=0", "a=-1"])
def test_throughputs_that_are_none(text):
    assert read_measured(["a, b=0.5"]) == {"a, b": 0.5}
    with pytest.raises(SystemExit, match="--measured takes"):
        read_measured([text])
