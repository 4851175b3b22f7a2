"""The two pages: gallery and viewer. They hold no data; their modules fetch it from the API."""

from __future__ import annotations

from flask import Blueprint, render_template

from app.state import current_state
from wsi_ml.errors import UnknownSlideError

bp = Blueprint("pages", __name__)


@bp.get("/")
def gallery() -> str:
    """The slides of the library."""
    return render_template("gallery.html")


@bp.get("/slides/<slide_id>")
def viewer(slide_id: str) -> tuple[str, int]:
    """The viewer of one slide at its current version; an unknown slide gets the page with status 404."""
    try:
        current_state().library.slide(slide_id)
    except UnknownSlideError:
        return render_template("viewer.html", slide_id=slide_id), 404
    return render_template("viewer.html", slide_id=slide_id), 200
