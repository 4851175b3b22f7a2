"""The loss report: what a file held that the layer does not, and what was repaired. Nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 10


@dataclass
class Entry:
    """One kind of loss or repair: how often, and the first few features (counted from 0) it happened to."""

    what: str
    count: int = 0
    features: list[int] = field(default_factory=list)


@dataclass
class LossReport:
    """What one import or export kept, dropped and repaired."""

    format: str
    read: int = 0
    """Features in the file."""
    kept: int = 0
    """Features in the layer."""
    losses: dict[str, Entry] = field(default_factory=dict)
    repairs: dict[str, Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Sentences about the file as a whole that are neither loss nor repair."""

    @property
    def lossless(self) -> bool:
        """True when everything in the file is in the layer, unchanged."""
        return not self.losses and not self.repairs

    def lose(self, what: str, feature: int | None = None) -> None:
        """Note that `what` was dropped, from one feature or from the file as a whole."""
        _note(self.losses, what, feature)

    def repair(self, what: str, feature: int) -> None:
        """Note that one feature was changed to make it valid."""
        _note(self.repairs, what, feature)

    def lines(self) -> list[str]:
        """The report for people, one sentence a line."""
        lines = [f"{self.format}: {self.kept} of {self.read} features kept."]
        for heading, entries in (("lost", self.losses), ("repaired", self.repairs)):
            for entry in entries.values():
                examples = ", ".join(map(str, entry.features)) + (" …" if entry.count > len(entry.features) else "")
                where = f"; features {examples}" if entry.features else ""
                lines.append(f"{heading}: {entry.what} (×{entry.count}{where})")
        lines += [] if not self.lossless else ["Nothing was lost."]
        return lines + [f"note: {note}" for note in self.notes]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "format": self.format,
            "read": self.read,
            "kept": self.kept,
            "lossless": self.lossless,
            "losses": [vars(entry) for entry in self.losses.values()],
            "repairs": [vars(entry) for entry in self.repairs.values()],
            "notes": self.notes,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LossReport:
        """Report of its JSON values."""
        report = cls(value["format"], value["read"], value["kept"])
        report.losses = {entry["what"]: Entry(**entry) for entry in value["losses"]}
        report.repairs = {entry["what"]: Entry(**entry) for entry in value["repairs"]}
        report.notes = value.get("notes", [])
        return report


def _note(entries: dict[str, Entry], what: str, feature: int | None) -> None:
    entry = entries.setdefault(what, Entry(what))
    entry.count += 1
    if feature is not None and len(entry.features) < EXAMPLES:
        entry.features.append(feature)
