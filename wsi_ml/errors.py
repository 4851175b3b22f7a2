"""Named errors of the library; each carries a `code` from one closed list and a sentence a user can act on."""


class OcularError(Exception):
    """Base of every error Ocular raises on purpose; `code` is stable, `str()` is one clear sentence.

    The web maps the class to an HTTP status once (`app/errors.py`), the command line to an exit code once (`app/cli`).
    """

    code = "internal_error"


class BadRequestError(OcularError):
    """An argument from outside has a form or value that is not allowed."""

    code = "bad_request"


class NotFoundError(OcularError):
    """The address names nothing that exists."""

    code = "not_found"


class UnknownSlideError(NotFoundError):
    """No slide of that id is in the library."""

    code = "unknown_slide"


class UnknownVersionError(NotFoundError):
    """The slide has no such version."""

    code = "unknown_version"


class UnknownLayerError(NotFoundError):
    """The slide has no such layer."""

    code = "unknown_layer"


class RemovedError(OcularError):
    """The slide version was here and has been removed."""

    code = "removed"


class ModelReplacedError(OcularError):
    """The address pins a model that has been replaced by another; its pixels are not served under that address."""

    code = "model_replaced"


class OutsideError(NotFoundError):
    """A level, tile or region lies outside the slide."""

    code = "outside_slide"


class SourceUnavailableError(NotFoundError):
    """The slide does not offer that source of pixels."""

    code = "source_unavailable"


class TileNotKeptError(NotFoundError):
    """The scan's ×40 tile is not kept: the synthesised one was faithful enough."""

    code = "tile_not_kept"


class DamagedError(OcularError):
    """Stored bytes do not match their checksum; the pixels are withheld."""

    code = "tile_damaged"


class LibraryError(OcularError):
    """The library folder is missing, of another format, or cannot be used."""

    code = "library_unusable"


class DiskFullError(OcularError):
    """The disk has no room for what was asked; nothing half-written was kept."""

    code = "disk_full"


class IngestError(OcularError):
    """A file cannot be ingested; the sentence names the fault and the fix."""

    code = "not_ingestible"


class AnnotationFileError(OcularError):
    """An annotation file is refused; the sentence names the feature, ring and coordinate."""

    code = "invalid_annotation"


class ModelUnavailableError(OcularError):
    """A model's weights or card are missing, damaged or do not fit each other."""

    code = "model_unavailable"


class QueueFullError(OcularError):
    """The super-resolution queue is full; `retry_after_s` says when to come back."""

    code = "queue_full"

    def __init__(self, message: str, retry_after_s: int = 1):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(OcularError):
    """The work did not end within its deadline."""

    code = "deadline_exceeded"


class EngineUnavailableError(OcularError):
    """The super-resolution engine is not running or not reachable; stored tiles still work."""

    code = "engine_unavailable"


class ModelOutputError(OcularError):
    """A model gave NaN, infinite or constant pixels; they are neither shown nor cached."""

    code = "model_bad_output"


class ModelMemoryError(ModelOutputError):
    """A model found no memory for even one tile, neither on the accelerator nor beside it."""

    code = "model_out_of_memory"


class ConflictError(OcularError):
    """The thing exists, and its state does not allow what was asked."""

    code = "conflict"


class UnknownModelError(NotFoundError):
    """No model of that name is known."""

    code = "unknown_model"


class UnknownJobError(NotFoundError):
    """No job of that id is known."""

    code = "unknown_job"


class NotPredictableError(OcularError):
    """A model may not or cannot be run on this slide or region; the sentence names why."""

    code = "not_predictable"


class PredictionCancelledError(OcularError):
    """A prediction was cancelled; what was computed is kept for the next try, nothing was published."""

    code = "cancelled"


class ForeignOriginError(OcularError):
    """A page of another site asked for a change."""

    code = "foreign_origin"


class MediaTypeError(OcularError):
    """The body of a request is of a kind that is not taken."""

    code = "unsupported_media_type"


class TooLargeError(OcularError):
    """The body of a request is larger than allowed."""

    code = "too_large"


class RegionTooSmallError(BadRequestError):
    """An annotated region is too small, or too thin, for a patch of the wanted side."""

    code = "region_too_small"


class LeaseLostError(OcularError):
    """A worker was silent for too long and its job was given to another; it may not publish."""

    code = "lease_lost"
