"""What a licence in a model's card allows, as far as the viewer and the choice of a default must know it."""

from __future__ import annotations

import re
from typing import Any

_RESEARCH_ONLY = re.compile(r"\bNC\b|non-?commercial|research", re.IGNORECASE)
_LABELS = re.compile(r"\b(exact|hand|weak|teacher)\b")


def is_research_only(licence: object) -> bool:
    """True for a licence that forbids commercial use, such as CC BY-NC-SA 4.0: never a default choice."""
    return bool(_RESEARCH_ONLY.search(str(licence or "")))


def is_free(model: object) -> bool:
    """Whether a model's card, an object with or without `licence` and `data`, allows more than research."""
    card = {name: getattr(model, name, None) for name in ("licence", "data")}
    return not card_facts(card)["research_only"]


def card_facts(card: dict[str, Any]) -> dict[str, Any]:
    """What a list of models says of a card's licences and labels: `research_only`, `label_kinds`."""
    data = card.get("data")
    sets = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    licences = [card.get("licence"), *(each.get("licence") for each in sets)]
    return {"research_only": any(map(is_research_only, licences)), "label_kinds": label_kinds(sets)}


def label_kinds(sets: list[dict[str, Any]]) -> list[str]:
    """Kinds of labels that training sets name, in order: exact (drawn), hand, weak, teacher (a model's)."""
    texts = [str(each.get("labels", "")) for each in sets]
    return list(dict.fromkeys(found[0] for text in texts if (found := _LABELS.search(text))))
