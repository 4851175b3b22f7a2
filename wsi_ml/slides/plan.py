"""What ingestion does with a scan: which level it reads, how often it halves, what sizes come out. Pure arithmetic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_ml.errors import IngestError
from wsi_ml.geometry import Region, Size, halve, is_close_level, power_of_two_steps

STORED_MPP = 0.5
"""µm/px the stored plane comes nearest to, by halving."""
MPP_RANGE = (0.01, 100.0)
"""µm/px that can be meant for a scan given by hand."""
PLAUSIBLE_MPP = (0.01, 20.0)
"""µm/px believed when a file states it; beyond lies the 72 dpi of a plain picture."""
MAX_ANISOTROPY = 1.1


@dataclass(frozen=True)
class ScanFacts:
    """What the vendor file says about itself, checked for sense."""

    vendor: str
    l0_size: Size
    level_sizes: list[Size]
    level_downsamples: list[float]
    l0_bounds: Region
    """`openslide.bounds-*`, or the whole of level 0."""
    mpp: float | None
    """Mean µm/px of level 0, or None where the file states none that can be believed."""
    objective_power: float | None


@dataclass(frozen=True)
class Plan:
    """The way from a scan to its stored plane."""

    l0_mpp: float
    mpp_given: bool
    l0_bounds: Region
    scan_level: int
    """Vendor level that is read."""
    scan_steps: int
    """Halvings between level 0 and `scan_level`."""
    halvings: int
    """Halvings by our kernel from `scan_level` to the stored plane."""
    stored_size: Size
    base_size: Size
    stored_mpp: float


def check_mpp(mpp: float) -> float:
    """`mpp` if it can be the µm/px of a scan; raises IngestError for 0, negative, NaN, infinite or absurd values."""
    if not (math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]):
        raise IngestError(
            f"--mpp {mpp:g} cannot be the µm/px of a scan: give a value from {MPP_RANGE[0]} to {MPP_RANGE[1]:g}."
        )
    return mpp


def believable_mpp(mpp_x: float | None, mpp_y: float | None) -> float | None:
    """Mean of the µm/px a file states, None where it states none or nonsense; raises IngestError for oblong pixels."""
    stated = [value for value in (mpp_x, mpp_y) if value is not None and math.isfinite(value) and value > 0]
    stated = [value for value in stated if PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1]]
    if not stated:
        return None
    if max(stated) / min(stated) > MAX_ANISOTROPY:
        raise IngestError(
            f"The scan's pixels are not square ({stated[0]:g} × {stated[1]:g} µm); if that is wrong, give --mpp."
        )
    return sum(stated) / len(stated)


def make_plan(facts: ScanFacts, given_mpp: float | None = None) -> Plan:
    """Plan for a scan; raises IngestError when neither the file nor `given_mpp` says how large its pixels are."""
    l0_mpp = facts.mpp if given_mpp is None else check_mpp(given_mpp)
    if l0_mpp is None:
        raise IngestError("The file states no µm/px; give it with --mpp 0.5 (or what the scanner's data sheet says).")
    steps = power_of_two_steps(STORED_MPP / l0_mpp)
    scan_level, scan_steps = _level_to_read(facts.level_downsamples, steps)
    trimmed = Size(facts.l0_bounds.width, facts.l0_bounds.height)
    stored_size = halve(trimmed, steps)
    base_size = halve(trimmed, steps - 1) if steps else Size(2 * trimmed.width, 2 * trimmed.height)
    return Plan(
        l0_mpp,
        given_mpp is not None,
        facts.l0_bounds,
        scan_level,
        scan_steps,
        steps - scan_steps,
        stored_size,
        base_size,
        l0_mpp * 2**steps,
    )


def base_plan(plan: Plan) -> Plan:
    """The plan whose pixels are those of the base plane: one halving fewer; raises IngestError for a ×20 scan."""
    if not plan.halvings:
        raise IngestError("The scan is no finer than what is stored: it has no ×40 tiles to compare or keep.")
    return dataclasses.replace(plan, halvings=plan.halvings - 1)


def _level_to_read(downsamples: Sequence[float], steps: int) -> tuple[int, int]:
    """(vendor level, its halvings from level 0): the coarsest that still leaves one halving to our own kernel.

    Level 0 unless the scan is more than one halving too fine: then half the work is left to the vendor's own levels.
    """
    for wanted in range(steps - 1, 0, -1):
        for level, downsample in enumerate(downsamples):
            if is_close_level(downsample, 2**wanted):
                return level, wanted
    return 0, 0
