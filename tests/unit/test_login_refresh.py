"""Refresh token flow: rotation is on disk before anything else, whatever is killed or broken."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from consumer.errors import LoginRejectedError, LoginUnavailableError
from consumer.salesforce.http import open_http
from consumer.salesforce.login import Login, build_login
from consumer.salesforce.login_refresh import RefreshTokenFile
from consumer.settings import SalesforceSettings
from tests.unit.login_server import TOKEN, LoginHost, login_host

DEAD = {"error": "invalid_grant", "error_description": "expired access/refresh token"}


@pytest.fixture
async def host() -> AsyncIterator[LoginHost]:
    async with login_host() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http(total_timeout_s=5) as session:
        yield session


def build(http: aiohttp.ClientSession, host: LoginHost, **settings: Any) -> Login:
    values = {"login_url": host.url, "auth": "refresh_token", "client_id": "key"} | settings
    return build_login(SalesforceSettings(**values), http, lambda: 0.0)


def sent(host: LoginHost) -> list[str]:
    return [seen.form["refresh_token"] for seen in host.seen if seen.method == "POST"]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


async def test_without_rotation_nothing_is_written(
    host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Form fields as documented; a token that stays valid is not copied to disk."""
    host.grant()
    path = tmp_path / "token"
    login = build(http, host, refresh_token="first", client_secret="s", refresh_token_file=path)
    assert (await login.login()).access_token == TOKEN
    assert host.seen[0].form == {
        "grant_type": "refresh_token",
        "client_id": "key",
        "client_secret": "s",
        "refresh_token": "first",
    }
    assert not path.exists()


async def test_rotation_is_persisted(host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """The new token replaces the old on disk, mode 0600, and is used next, by a new process too."""
    path = tmp_path / "token"
    path.write_text("first\n")
    host.grant(refresh_token="second").grant(refresh_token="third").grant()
    login = build(http, host, refresh_token_file=path)
    await login.login()
    assert path.read_text() == "second\n"
    assert mode_of(path) == 0o600
    await login.login()
    await build(http, host, refresh_token_file=path).login()
    assert sent(host) == ["first", "second", "third"]
    assert names_in(tmp_path) == ["token"]


async def test_rotation_is_safe_before_the_org_id_is_asked(
    host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A UserInfo that fails after a rotation does not lose the only valid refresh token."""
    path = tmp_path / "token"
    host.grant(refresh_token="second", id=None).answer("", 503)
    with pytest.raises(LoginUnavailableError):
        await build(http, host, refresh_token="first", refresh_token_file=path).login()
    assert path.read_text() == "second\n"


async def test_killed_between_sync_and_rename(host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A whole left-over file holds the newest token: it is tried first, then moved into place."""
    path = tmp_path / "token"
    path.write_text("dead\n")
    (tmp_path / "token.new").write_text("alive\n")
    host.grant()
    await build(http, host, refresh_token_file=path).login()
    assert sent(host) == ["alive"]
    assert path.read_text() == "alive\n"
    assert names_in(tmp_path) == ["token"]


async def test_killed_while_writing(host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A torn left-over is ignored and does not stand in the way of the next rotation."""
    path = tmp_path / "token"
    path.write_text("first\n")
    (tmp_path / "token.new").write_text("sec")
    host.grant(refresh_token="second")
    await build(http, host, refresh_token_file=path).login()
    assert sent(host) == ["first"]
    assert path.read_text() == "second\n"


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
async def test_a_write_that_fails_keeps_the_token(
    host: LoginHost,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """A full disk loses nothing: old file whole, new token in memory, written at the next login, never logged."""
    path = tmp_path / "token"
    path.write_text("first\n")
    host.grant(refresh_token="second").grant()
    login = build(http, host, refresh_token_file=path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(Path if step == "replace" else os, step, full)
        await login.login()
    assert path.read_text() == "first\n"
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert "second" not in str(logs)
    await login.login()
    assert sent(host) == ["first", "second"]
    assert path.read_text() == "second\n"


async def test_the_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, then name, then directory: a power cut leaves a whole file."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    RefreshTokenFile(tmp_path / "token").write("x")
    assert steps == ["sync file", "rename", "sync directory"]


WRITER = """
import itertools, pathlib, sys
from consumer.salesforce.login_refresh import RefreshTokenFile
file = RefreshTokenFile(pathlib.Path(sys.argv[1]))
for number in itertools.count():
    file.write(f"{number:08}")
    print(number, flush=True)
"""


def test_kill_9_at_any_moment_leaves_the_newest_token(tmp_path: Path) -> None:
    """Whenever the writer is killed, the newest token found is the last confirmed one or its successor."""
    file = RefreshTokenFile(tmp_path / "token")
    for kill_after in (0, 7, 40):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file.path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) == kill_after:
                    break
            writer.kill()
            confirmed = max([kill_after, *map(int, writer.stdout.read().split())])
        left_over, stored = file.read()
        newest = left_over or stored
        assert int(newest) in {confirmed, confirmed + 1}
        assert len(newest) == 8


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    """A link placed at the temporary name does not send the token elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "token.new").symlink_to(victim)
    RefreshTokenFile(tmp_path / "token").write("x")
    assert victim.read_text() == "untouched"
    assert (tmp_path / "token").read_text() == "x\n"


async def test_rotation_without_a_file_warns_once(host: LoginHost, http: aiohttp.ClientSession) -> None:
    """In memory the new token works on; the operator is told once what a restart will cost."""
    host.grant(refresh_token="second").grant(refresh_token="third").grant()
    login = build(http, host, refresh_token="first")
    with capture_logs() as logs:
        for _ in range(3):
            await login.login()
    assert sent(host) == ["first", "second", "third"]
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "second" not in str(logs)


async def test_a_token_renewed_by_hand_wins_over_a_dead_file(
    host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A dead token in the file does not lock out the one the operator configured; the file then follows."""
    path = tmp_path / "token"
    path.write_text("dead\n")
    host.answer(DEAD, 400).grant()
    await build(http, host, refresh_token="by hand", refresh_token_file=path).login()
    assert sent(host) == ["dead", "by hand"]
    assert path.read_text() == "by hand\n"


async def test_all_dead(host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """With every token dead the refusal says so, and shows none of them."""
    path = tmp_path / "token"
    path.write_text("dead-one\n")
    host.answer(DEAD | {"error_description": "expired access/refresh token dead-one dead-two"}, 400)
    with pytest.raises(LoginRejectedError, match="Authorise the app again") as caught:
        await build(http, host, refresh_token="dead-two", refresh_token_file=path).login()
    assert len(host.seen) == 2
    assert "dead-two" not in str(caught.value)
    assert path.read_text() == "dead-one\n"


@pytest.mark.parametrize(("body", "status"), [({"error": "invalid_client"}, 400), ("", 503)])
async def test_other_refusals_do_not_burn_tokens(
    host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path, body: object, status: int
) -> None:
    """Only invalid_grant speaks about the token; any other refusal tries no second one."""
    path = tmp_path / "token"
    path.write_text("one\n")
    host.answer(body, status)
    with pytest.raises((LoginRejectedError, LoginUnavailableError)):
        await build(http, host, refresh_token="two", refresh_token_file=path).login()
    assert sent(host) == ["one"]


async def test_unreadable_file(host: LoginHost, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """A directory or binary in place of the file is refused by name, not with a traceback."""
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LoginRejectedError, match="can't be read"):
        await build(http, host, refresh_token_file=path).login()
    path.unlink()
    path.mkdir()
    with pytest.raises(LoginRejectedError, match="can't be read"):
        await build(http, host, refresh_token_file=path).login()
    assert host.seen == []
