"""What a login yields: an access token and the three facts every call needs with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from consumer.changes.record_ids import to_18
from consumer.errors import LoginRejectedError


@dataclass(frozen=True, slots=True)
class Session:
    """One access token of one org; never printed with its token.

    gRPC sends an empty header for a missing token and fails with an unrelated error class for one that is not
    ASCII, so that neither would ever lead to a new login. Hence the checks here, before anything is cached.

    Attributes:
        access_token: OAuth access token or SOAP session id, without "Bearer"; printable ASCII.
        instance_url: scheme and host (and port) of the org, no path.
        org_id: 18-character organisation id; empty only while a login is still looking for it.
        user_id: 18-character id of the user, empty when the login did not tell.

    Raises:
        LoginRejectedError: a value can't be sent as a header.
    """

    access_token: str = field(repr=False)
    instance_url: str
    org_id: str
    user_id: str = ""

    def __post_init__(self) -> None:
        if clean_token(self.access_token) != self.access_token:
            raise LoginRejectedError("The access token has white space around it", "Remove the white space.")
        if origin_of(self.instance_url) != self.instance_url:
            raise LoginRejectedError(
                "The instance URL is more than scheme and host", "Remove path, query and user name from it."
            )
        if self.org_id and org_id_18(self.org_id) != self.org_id:
            raise LoginRejectedError(
                "The org id is not an 18-character id", "Look it up in Setup > Company Information."
            )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the gRPC headers of every call (Pub/Sub API guide, "Supported Authentication")."""
        return (
            ("accesstoken", self.access_token),
            ("instanceurl", self.instance_url),
            ("tenantid", self.org_id),
        )


def clean_token(token: object) -> str:
    """Return the token without white space around it.

    Raises:
        LoginRejectedError: it is missing, empty, or not printable ASCII.
    """
    text = token.strip() if isinstance(token, str) else ""
    if not text:
        raise LoginRejectedError(
            "The login gave no access token", "Check salesforce.login_url and that the app has the scope api."
        )
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise LoginRejectedError(
            "The access token holds characters that no token has",
            "Check the secret's file or variable for line breaks and stray characters.",
        )
    return text


def origin_of(url: object) -> str:
    """Return scheme, host and port of a URL: what the ``instanceurl`` header takes.

    Raises:
        LoginRejectedError: it is no http or https URL.
    """
    text = url.strip() if isinstance(url, str) else ""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"} or not (host.isascii() and host.isprintable()):
        raise LoginRejectedError(
            "The login gave no usable instance URL",
            "Check salesforce.login_url, or set salesforce.instance_url to the org's My Domain URL.",
        )
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" if port is None else f"{parts.scheme}://{name}:{port}"


def org_id_18(text: object) -> str:
    """Return the 18-character form of an org or user id, or empty text when it is none."""
    try:
        return to_18(text.strip()) if isinstance(text, str) else ""
    except ValueError:
        return ""
