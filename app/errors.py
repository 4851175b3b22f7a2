"""The one table from named errors to HTTP statuses, and the problem+json answers made of it."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from wsi_ml import errors

STATUS: dict[type[errors.OcularError], int] = {
    errors.BadRequestError: 400,
    errors.ForeignOriginError: 403,
    errors.NotFoundError: 404,
    errors.RemovedError: 410,
    errors.ModelReplacedError: 410,
    errors.ConflictError: 409,
    errors.LeaseLostError: 409,
    errors.PredictionCancelledError: 409,
    errors.TooLargeError: 413,
    errors.MediaTypeError: 415,
    errors.NotPredictableError: 422,
    errors.DamagedError: 422,
    errors.AnnotationFileError: 422,
    errors.IngestError: 422,
    errors.QueueFullError: 503,
    errors.DeadlineError: 503,
    errors.EngineUnavailableError: 503,
    errors.ModelUnavailableError: 503,
    errors.ModelOutputError: 503,
    errors.LibraryError: 503,
    errors.DiskFullError: 507,
}
"""Status of each named error; a subclass takes the status of its nearest listed parent."""

HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "too_large",
    415: "unsupported_media_type",
    431: "too_large",
}
"""Codes of errors that Flask itself raises; the closed list is these and those of `wsi_ml.errors`."""

MEDIA_TYPE = "application/problem+json"
log = structlog.get_logger("ocular.errors")


def status_of(error: errors.OcularError) -> int:
    """HTTP status of a named error, 500 for one that nobody listed."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(status: int, code: str, detail: str) -> tuple[bytes, list[tuple[str, str]]]:
    """Body and headers of one problem+json answer (RFC 9457); never cached."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    headers = [("content-type", MEDIA_TYPE), ("cache-control", "no-store")]
    return json.dumps(body, ensure_ascii=False).encode(), headers


def problem_of(error: errors.OcularError) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Status, body and headers for a named error; a 503 says when to come back."""
    status = status_of(error)
    body, headers = problem(status, error.code, str(error))
    if status == 503:
        headers.append(("retry-after", str(getattr(error, "retry_after_s", 2))))
    return status, body, headers


def incident(error: BaseException) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Answer to an unforeseen error: an incident number for the user, the traceback for the log."""
    number = secrets.token_hex(6)
    log.error("unhandled error", incident=number, kind=type(error).__name__, exc_info=error)
    detail = f"Something went wrong that nobody foresaw. Tell the operator incident {number}."
    return (500, *problem(500, "internal_error", detail))


def register(app: Flask) -> None:
    """Answer every error of a Flask app as problem+json."""

    @app.errorhandler(errors.OcularError)
    def named(error: errors.OcularError) -> Response:
        status, body, headers = problem_of(error)
        return Response(body, status, headers)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        if status < 400:
            return Response(status=status, headers=error.get_headers())
        code = HTTP_CODES.get(status, "bad_request" if status < 500 else "internal_error")
        body, headers = problem(status, code, f"{HTTPStatus(status).phrase} ({request.method}).")
        response = Response(body, status, headers)
        if status == 405 and getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(error.valid_methods)  # type: ignore[attr-defined]
        return response

    # The process's edge: the one place where anything at all is caught.
    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        status, body, headers = incident(error)
        return Response(body, status, headers)
