"""Refresh token flow, with rotation that survives a kill at any moment.

With rotation on, the answer carries a new refresh token and the old one dies at once: the new one must be on
disk before anything else is done with the answer.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import structlog

from consumer.errors import LoginRejectedError
from consumer.salesforce.login_oauth import Granted, TokenEndpoint
from consumer.salesforce.session import Session

_log = structlog.get_logger(__name__)


class RefreshTokenFile:
    """The file that holds the newest refresh token: one line, mode 0600.

    A write goes to ``<name>.new`` in the same directory, is synced, then renamed. The final line break tells
    a whole file from a torn one, so that a token in a left-over ``.new`` (killed between sync and rename) is
    still found.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(path.name + ".new")

    def read(self) -> tuple[str, str]:
        """Return the tokens of the left-over new file and of the file itself; empty text for none.

        Raises:
            OSError: a file exists and can't be read.
            UnicodeDecodeError: it is not text.
        """
        left_over = _text_of(self._new)
        return (left_over.strip() if left_over.endswith("\n") else ""), _text_of(self.path).strip()

    def write(self, token: str) -> None:
        """Replace the token durably: after the return it survives a power cut.

        Raises:
            OSError: the directory is full or can't be written; the old file is untouched.
        """
        # A left-over may have the wrong mode or be a link put there by someone else: never write through it.
        self._new.unlink(missing_ok=True)
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._new.replace(self.path)
        _sync_directory(self.path.parent)


class RefreshTokenLogin:
    """Refresh token flow.

    Tokens are tried newest first: one that could not be written yet, one left over by a killed process, the
    file's (which another worker of the deployment may have renewed), the configured one.

    Args:
        endpoint: token endpoint.
        client_id: consumer key of the app.
        client_secret: empty when the app does not require one.
        refresh_token: the configured token, or empty.
        file: where rotated tokens live; None keeps them in memory, until the process ends.
    """

    flow = "refresh_token"
    renewable = True

    def __init__(
        self,
        endpoint: TokenEndpoint,
        *,
        client_id: str,
        client_secret: str,
        refresh_token: str,
        file: RefreshTokenFile | None,
    ) -> None:
        self._endpoint = endpoint
        self._form = {"grant_type": "refresh_token", "client_id": client_id}
        if client_secret:
            self._form["client_secret"] = client_secret
        self._configured = refresh_token
        self._file = file
        self._unsaved = ""
        self._warned = False

    async def login(self) -> Session:
        """Log in and keep a rotated token; see :class:`~consumer.salesforce.login.Login`."""
        left_over, stored = await self._stored()
        candidates = list(dict.fromkeys(filter(None, (self._unsaved, left_over, stored, self._configured))))
        used, granted = await self._first_accepted(candidates)
        newest = granted.refresh_token or used
        if self._file is None:
            self._keep_in_memory(newest)
        elif newest != stored and (granted.refresh_token or used != self._configured or stored):
            await self._save(self._file, newest)
        return await self._endpoint.finish(granted)

    async def _stored(self) -> tuple[str, str]:
        if self._file is None:
            return "", ""
        try:
            return await asyncio.to_thread(self._file.read)
        except (OSError, UnicodeDecodeError) as error:
            raise LoginRejectedError(
                f"The refresh token file {self._file.path} can't be read",
                "Make it a text file that the service's user can read and replace.",
            ) from error

    async def _first_accepted(self, candidates: list[str]) -> tuple[str, Granted]:
        refused = LoginRejectedError(
            "There is no refresh token",
            "Set salesforce.refresh_token, or put it into salesforce.refresh_token_file.",
        )
        for token in candidates:
            try:
                return token, await self._endpoint.grant({**self._form, "refresh_token": token})
            except LoginRejectedError as error:
                if error.code != "invalid_grant":
                    raise
                refused = error
        raise refused

    def _keep_in_memory(self, newest: str) -> None:
        if newest == self._configured:
            return
        self._unsaved = newest
        if not self._warned:
            self._warned = True
            _log.warning(
                "refresh token was rotated and is kept in memory only",
                advice="Set salesforce.refresh_token_file, or a restart will need a new authorisation.",
            )

    async def _save(self, file: RefreshTokenFile, newest: str) -> None:
        try:
            await asyncio.to_thread(file.write, newest)
        except OSError as error:
            # The session is good, and the only valid refresh token is in this process: going on is the one
            # way not to lose it. It is written again at the next login.
            self._unsaved = newest
            _log.exception(
                "rotated refresh token could not be written",
                file=str(file.path),
                reason=error.strerror,
                advice="Make the directory writable before the service is restarted.",
            )
        else:
            self._unsaved = ""


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
