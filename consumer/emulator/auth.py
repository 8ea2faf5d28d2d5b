"""Who may call the emulated org: credentials, sessions, and the header check of every Pub/Sub call."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from consumer.emulator.refusals import AUTH_ERROR, CallRefusedError, refuse

_CHECK_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


class Credentials(BaseModel):
    """What the emulated org accepts; every default is the word ``emulated``, printed in ``emulate --help``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_id: str = "emulated"
    client_secret: str = "emulated"  # noqa: S105 - a default of a test server, no secret
    username: str = "emulated"
    password: str = "emulated"  # noqa: S105 - as above
    refresh_token: str = "emulated"  # noqa: S105 - as above
    jwt_public_key: str = ""
    """PEM key that JWT assertions must be signed with; empty checks the claims only."""
    rotate_refresh_tokens: bool = False
    """Whether a refresh gives a new refresh token and kills the old one."""
    org_id: str = Field(default="00Dem0000000001", pattern=r"^00D[0-9A-Za-z]{12}$")
    """15 characters; the 18-character form is derived."""
    user_id: str = Field(default="005em0000000001", pattern=r"^005[0-9A-Za-z]{12}$")


def eighteen(record_id: str) -> str:
    """Return the 18-character form of a 15-character id."""
    tail = ""
    for start in (0, 5, 10):
        bits = sum(1 << i for i, char in enumerate(record_id[start : start + 5]) if "A" <= char <= "Z")
        tail += _CHECK_CHARACTERS[bits]
    return record_id + tail


@dataclass
class Sessions:
    """Access and refresh tokens of the org, and the check of what a call presents.

    Attributes:
        credentials: what the org accepts.
        instance_url: the org's own URL, known once the HTTP server listens.
    """

    credentials: Credentials
    instance_url: str = ""
    _live: set[str] = field(default_factory=set, repr=False)
    _revoked: set[str] = field(default_factory=set, repr=False)
    _refresh: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._refresh.add(self.credentials.refresh_token)

    @property
    def org_id(self) -> str:
        """The 18-character org id."""
        return eighteen(self.credentials.org_id)

    @property
    def user_id(self) -> str:
        """The 18-character id of the one user."""
        return eighteen(self.credentials.user_id)

    def issue(self) -> str:
        """Return a new access token: the 15-character org id, ``!``, and 96 characters."""
        token = f"{self.credentials.org_id}!{secrets.token_urlsafe(72)}"
        self._live.add(token)
        return token

    def rotate(self, refresh_token: str) -> str | None:
        """Exchange a refresh token that was given out; return the new one if rotation is on.

        Raises:
            KeyError: the token is unknown, or was rotated away.
        """
        if refresh_token not in self._refresh:
            raise KeyError(refresh_token)
        if not self.credentials.rotate_refresh_tokens:
            return None
        self._refresh.discard(refresh_token)
        new = f"5Aep861{secrets.token_urlsafe(60)}"
        self._refresh.add(new)
        return new

    def accepts(self, token: str) -> bool:
        """Tell whether an access token is good now."""
        return token in self._live

    def revoke_all(self) -> None:
        """Revoke every access token given out so far; open streams live on."""
        self._revoked |= self._live
        self._live.clear()

    def check_call(self, metadata: Mapping[str, str]) -> bool:
        """Check the three headers of a Pub/Sub call.

        Returns:
            False when the token was good once and is revoked: a stream is then refused late, a unary call at once.

        Raises:
            CallRefusedError: a header is missing, blank or malformed, or names another org or session.
        """
        token = metadata.get("accesstoken", "")
        instance_url = metadata.get("instanceurl", "")
        tenant = metadata.get("tenantid", "")
        for name, value in (("accesstoken", token), ("instanceurl", instance_url), ("tenantid", tenant)):
            if not value.strip():
                raise refuse("service.auth.headers.invalid", f"The {name} header is missing or blank.")
        if len(tenant) != 18:
            raise refuse("service.auth.headers.invalid", "The tenantid header isn't a valid org ID.")
        if not instance_url.startswith(("https://", "http://")):
            raise refuse("service.auth.headers.invalid", "The instanceurl header isn't a valid URL.")
        if tenant != self.org_id or instance_url != self.instance_url:
            raise CallRefusedError(AUTH_ERROR)
        if token in self._revoked:
            return False
        if token not in self._live:
            raise CallRefusedError(AUTH_ERROR)
        return True
