"""`snapshot`: what it asks for, and what it refuses before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.cli import snapshot
from consumer.cli.main import _parser
from consumer.delivery.control import TakeSnapshot
from consumer.errors import UsageError
from consumer.settings import Settings

SESSIONS = "/data/MessagingSessionChangeEvent"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[TakeSnapshot]:
    """Return the commands that were sent."""
    commands: list[TakeSnapshot] = []

    async def keep(_: Settings, command: Any) -> None:
        commands.append(command)

    monkeypatch.setattr(snapshot, "send", keep)
    return commands


async def ask(monkeypatch: pytest.MonkeyPatch, *arguments: str, topics: str = f'["{SESSIONS}"]') -> int:
    monkeypatch.setenv("SESSION_CONSUMER__SALESFORCE__LOGIN_URL", "https://x.my.salesforce.com")
    monkeypatch.setenv("SESSION_CONSUMER__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("SESSION_CONSUMER__PUBSUB__TOPICS", topics)
    return await snapshot.run(_parser("snapshot", snapshot).parse_args(["snapshot", *arguments]))


async def test_by_default_all_rows_of_all_objects_are_asked_for(
    sent: list[TakeSnapshot], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await ask(monkeypatch) == 0
    (command,) = sent
    assert (command.entity, command.where) == (None, "")
    assert f"snapshot {command.snapshot_id} asked for" in capsys.readouterr().out


async def test_two_requests_are_two_snapshots(sent: list[TakeSnapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(monkeypatch, "--where", " Status = 'Active' ", "--entity", "MessagingSession")
    await ask(monkeypatch, "--where", " Status = 'Active' ", "--entity", "MessagingSession")
    assert {(each.entity, each.where) for each in sent} == {("MessagingSession", "Status = 'Active'")}
    assert len({each.snapshot_id for each in sent}) == 2


@pytest.mark.parametrize("word", ["WHERE Status = 'Active'", "where Status = 'Active'"])
async def test_a_condition_with_the_word_where_is_mended_in_words(
    sent: list[TakeSnapshot], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    with pytest.raises(UsageError, match="without the word WHERE") as error:
        await ask(monkeypatch, "--where", word)
    assert "--where \"Status = 'Active'\"" in error.value.advice
    assert sent == []


async def test_an_object_that_no_channel_carries_is_refused(
    sent: list[TakeSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="AgentWork is read by no configured channel") as error:
        await ask(monkeypatch, "--entity", "AgentWork")
    assert "MessagingSession" in error.value.advice
    assert sent == []
    await ask(monkeypatch, "--entity", "AgentWork", topics='["/data/ChangeEvents"]')
    assert [each.entity for each in sent] == ["AgentWork"], "a channel of several objects can carry any"
