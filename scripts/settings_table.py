"""Write docs/settings.md from the settings class, so the two cannot differ."""

from __future__ import annotations

from pathlib import Path

from app.settings import Settings

HEAD = """# Settings

Every setting of the server. They come from defaults, then a TOML file (`--config FILE` or `OCULAR_CONFIG`), then the
environment (`OCULAR_` and the name in capitals), then flags; later ones win. A wrong one stops the start with one line
that names the key. This page is written by `python scripts/settings_table.py`.

| setting | default | meaning |
| --- | --- | --- |
"""


def shown(value: object) -> str:
    """A default as it is typed in the environment."""
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def main() -> None:
    """Write the page."""
    rows = [
        f"| `{name}` | {shown(field.default)} | {field.description} |" for name, field in Settings.model_fields.items()
    ]
    Path(__file__).resolve().parent.parent.joinpath("docs", "settings.md").write_text(
        HEAD + "\n".join(rows) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
