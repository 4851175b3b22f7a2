"""Headers that every answer carries."""

from __future__ import annotations

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

HEADERS = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
]


def is_trusted_host(host: str, trusted: tuple[str, ...]) -> bool:
    """True when a Host header names this server; anything else may be a DNS name that was bent to this address."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name in trusted
