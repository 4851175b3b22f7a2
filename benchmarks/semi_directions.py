"""Which statements of paper B our figures bear out; every verdict is computed from the runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.segmentation_tables import Direction, RunResult, by_row, directions, figure, mean, spread
from benchmarks.semi_paper import (
    ALPHAS,
    BASE,
    BETAS,
    LOSSES,
    METHODS,
    SHARES,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLES_4_5,
    TABLES_6_7,
)

NEAR = 0.95
"""Share of the best DSC that counts as near it."""
Named = Sequence[tuple[str, str]]
"""(setting as printed, name of the run)."""


class Judge:
    """Mean DSC of rows and how far seeds lie apart."""

    def __init__(self, runs: Sequence[RunResult]):
        rows = by_row(runs)
        found = {name: [run.results.get("dsc") for run in some] for name, some in rows.items()}
        self.means = {name: mean(values) for name, values in found.items()}
        self.counts = {name: len(values) for name, values in found.items()}
        self.spread = spread(found.values())

    def dsc(self, name: str) -> float | None:
        """Mean over seeds, None if the row was not measured."""
        return self.means.get(name)

    def close(self, first: str, second: str) -> bool:
        """The two lie nearer than twice the standard error of their difference."""
        one, two = self.dsc(first), self.dsc(second)
        if one is None or two is None or self.spread is None:
            return False
        error = self.spread * (1 / self.counts[first] + 1 / self.counts[second]) ** 0.5
        return abs(one - two) < 2 * error


def above(judge: Judge, words: str, pairs: Sequence[tuple[str, str, str]], paper: str) -> Direction:
    """For each (setting, better, worse): the better has at least the other's DSC; close if any of them is."""
    known = [
        (title, better, worse, judge.dsc(better), judge.dsc(worse))
        for title, better, worse in pairs
        if judge.dsc(better) is not None and judge.dsc(worse) is not None
    ]
    if not known:
        return Direction(words, paper, "–", None)
    told = [f"{title}: {_signed(one - two)}" for title, _, _, one, two in known]  # type: ignore[operator]
    holds = [one >= two for _, _, _, one, two in known]  # type: ignore[operator]
    # A no rests on its clearest counterexample, a yes on its narrowest case.
    near = [judge.close(better, worse) for (_, better, worse, _, _), held in zip(known, holds, strict=True)
            if held == all(holds)]  # fmt: skip
    count = f"{sum(holds)} of {len(holds)}: " if len(holds) > 1 else ""
    return Direction(words, paper, count + ", ".join(told), all(holds), any(near) if all(holds) else all(near))


def best(judge: Judge, words: str, names: Named, wanted: str, paper: str) -> Direction:
    """The setting `wanted` has the highest DSC of all."""
    known = {title: (name, judge.dsc(name)) for title, name in names if judge.dsc(name) is not None}
    if wanted not in known or len(known) < 2:
        return Direction(words, paper, "–", None)
    order = sorted(known, key=lambda title: -known[title][1])  # type: ignore[operator]
    told = ", ".join(f"{title} {figure(known[title][1], 4)}" for title in order)
    rival = order[1] if order[0] == wanted else order[0]
    return Direction(words, paper, told, order[0] == wanted, judge.close(known[wanted][0], known[rival][0]))


def growing(judge: Judge, words: str, prefix: str, paper: str) -> Direction:
    """Each larger share of pixel labels gives at least the DSC of the one before."""
    names = [f"{prefix}-{share}" for share in SHARES if judge.dsc(f"{prefix}-{share}") is not None]
    steps = [(f"{one.split('-')[1]}→{two.split('-')[1]} %", two, one) for one, two in pairwise(names)]
    return above(judge, words, steps, paper)


def found_directions(rows: Any, runs: Sequence[RunResult]) -> str:
    """The table of directions with what another seed changes."""
    judge = Judge(runs)
    few, many = [share for share in SHARES if share <= 20], [share for share in SHARES if share >= 50]

    def gains(shares: Sequence[int]) -> str:
        return ", ".join(f"{share} %: {_signed(TABLES_4_5[share][1][0] - TABLES_4_5[share][0][0])}" for share in shares)

    def both(shares: Sequence[int]) -> list[tuple[str, str, str]]:
        return [(f"{share} %", f"sc-{share}", f"s-{share}") for share in shares]

    found = [
        above(judge, "S+C above S where pixel labels are few (up to 20 %)", both(few), gains(few)),
        above(judge, "S+C above S where they are many (from 50 %)", both(many), gains(many)),
        shrinking(judge, "the fewer pixel labels, the more the classes help", few, many),
        growing(judge, "S grows with the pixel labels", "s", "at every step"),
        growing(judge, "S+C grows with the pixel labels", "sc", "at every step"),
        above(judge, "S+C at 10 % is worth more than S at 20 %", [("difference", "sc-10", "s-20")], "+.028"),
        best(judge, "β = 3 is best", BETAS, "3", _printed(BETAS, TABLE_1)),
        best(judge, "α = 1 is best", ALPHAS, "1.0", _printed(ALPHAS, TABLE_2)),
        best(judge, "DWF+DWF is best", LOSSES, "DWF+DWF", _printed(LOSSES, TABLE_3)),
        above(judge, "weights by certainty in the segmentation beat fixed ones (FW+DWF against FW+FW)",
              [("difference", "fw-dwf", "fw-fw")], "+.0013"),
        *against_methods(judge),
        above(judge, "more classes of pictures help (S+C′ against S+C)",
              [("50 %", "group-half-25", "group-sc-25"), ("10 %", "group-half-45", "group-sc-45")], "figure 6"),
        above(judge, "all pixel labels are worth more than classes (S′+C against S+C)",
              [("N = 25", "group-full-25", "group-sc-25"), ("N = 45", "group-full-45", "group-sc-45")], "figure 6"),
    ]  # fmt: skip
    return f"{directions(found, judge.spread is not None)}\n\n{spread_words(judge)} {enough(judge)}".rstrip()


def against_methods(judge: Judge) -> list[Direction]:
    """Ours against each method compared."""
    found = []
    for title, prefix, paper in METHODS[1:]:
        shares = [share for share in SHARES if judge.dsc(f"{prefix}-{share}") is not None]
        published = TABLES_6_7.get(paper, {})
        printed = ", ".join(
            f"{share} %: {_signed(TABLES_6_7['ours'][share][0] - published[share][0])}" for share in shares if published
        )
        pairs = [(f"{share} %", f"sc-{share}", f"{prefix}-{share}") for share in shares]
        found.append(above(judge, f"above {title}", pairs, printed or "not measured there"))
    return found


def shrinking(judge: Judge, words: str, few: Sequence[int], many: Sequence[int]) -> Direction:
    """The mean gain of S+C over S at small shares is above 0 and above that at large ones."""

    def gain(shares: Sequence[int], dsc: Callable[[str, int], float | None]) -> float | None:
        each = [(dsc("sc", share), dsc("s", share)) for share in shares]
        known = [one - two for one, two in each if one is not None and two is not None]
        return mean(known)

    def published(kind: str, share: int) -> float | None:
        return TABLES_4_5[share][kind == "sc"][0]

    def measured(kind: str, share: int) -> float | None:
        return judge.dsc(f"{kind}-{share}")

    def told(one: float, two: float) -> str:
        return f"mean gain {_signed(one)} up to 20 %, {_signed(two)} from 50 %"

    paper = told(gain(few, published) or 0.0, gain(many, published) or 0.0)
    one, two = gain(few, measured), gain(many, measured)
    if one is None or two is None:
        return Direction(words, paper, "–", None)
    error = (judge.spread or 0.0) * sum(2 / len(_measured(judge, shares)) for shares in (few, many)) ** 0.5
    return Direction(words, paper, told(one, two), one > max(two, 0.0), abs(one - two) < 2 * error)


def _measured(judge: Judge, shares: Sequence[int]) -> list[int]:
    """The shares at which both S and S+C were measured."""
    return [share for share in shares if judge.dsc(f"sc-{share}") is not None and judge.dsc(f"s-{share}") is not None]


def enough(judge: Judge) -> str:
    """From which share of pixel labels on S is near its best, beyond which these runs can show little."""
    known = [(share, judge.dsc(f"s-{share}")) for share in SHARES]
    measured = [(share, dsc) for share, dsc in known if dsc is not None]
    if len(measured) < 2:
        return ""
    top = max(dsc for _, dsc in measured)
    share, dsc = next((share, dsc) for share, dsc in measured if dsc >= NEAR * top)
    return (
        f"S alone has {figure(dsc)} with {share} % of the pixel labels, at least {100 * NEAR:g} % of its best "
        f"({figure(top)}): beyond that share this task leaves little for more labels, or for classes, to add."
    )


def spread_words(judge: Judge) -> str:
    """How far seeds lie apart, which says how much a difference means."""
    if judge.spread is None:
        return f"One seed each: what another seed changes is not known. Rows of β, α and losses share `{BASE}`."
    rows = sorted(name for name, count in judge.counts.items() if count > 1)
    return (
        f"Between seeds of one row the DSC has a standard deviation of {figure(judge.spread)}, of the rows "
        f"{', '.join(f'`{name}`' for name in rows)}; the others have one seed and may scatter more. A verdict is "
        "marked as within it where the two sides lie nearer than twice the standard error of their difference."
    )


def _printed(names: Named, figures: Sequence[tuple[float, float]]) -> str:
    order = sorted(zip(names, figures, strict=True), key=lambda each: -each[1][0])
    return ", ".join(f"{title} {figure(dsc, 4)}" for (title, _), (dsc, _) in order)


def _signed(value: float) -> str:
    text = figure(abs(value))
    return f"+{text}" if value >= 0 else f"−{text}"
