"""``decode``: the reference's worked payloads, however they are given, and one sentence for what is broken."""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.cli.main import main
from tests.change_schemas import DEMO, DEMO_PAYLOAD, WIDGET, WIDGET_PAYLOAD, event_payload

WIDGET_TEXT = base64.b64encode(WIDGET_PAYLOAD).decode()
ADVICE_ENDS = (".\n",)


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "Widget.avsc"
    path.write_text(WIDGET, encoding="utf-8")
    return path


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "payload.bin"
    path.write_bytes(WIDGET_PAYLOAD)
    return path


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    captured = capsys.readouterr()
    assert captured.err == ""
    value: dict[str, Any] = json.loads(captured.out)
    return value


def check_worked(value: dict[str, Any]) -> None:
    """Fact sheet, section 5.8."""
    assert value == {
        "name": "Widget__ChangeEvent",
        "header": {
            "entityName": "Widget__c",
            "recordIds": ["a00000000000001AAA"],
            "changeType": "UPDATE",
            "changeOrigin": "com/salesforce/api/rest/62.0;client=demo",
            "transactionKey": "0000aaaa-bbbb-cccc-dddd-eeeeffff0001",
            "sequenceNumber": 1,
            "commitTimestamp": 1750000000000,
            "commitNumber": 1709306004367179779,
            "commitUser": "005000000000001AAA",
            "nulledFields": ["0x0100"],
            "diffFields": [],
            "changedFields": ["0x0920"],
        },
        "fields": {"LastModifiedDate": 1750000000000, "Due__c": 1750032000000},
        "changed_fields": ["LastModifiedDate", "Tags__c", "Due__c"],
        "nulled_fields": ["Tags__c"],
        "diff_fields": [],
    }


def test_the_worked_payload_from_a_file(schema: Path, payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", "--schema", str(schema), str(payload)]) == 0
    check_worked(shown(capsys))


def test_the_worked_payload_from_standard_input(
    schema: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, WIDGET_PAYLOAD)
    assert main(["decode", "--schema", str(schema), "-"]) == 0
    check_worked(shown(capsys))


@pytest.mark.parametrize(
    "text",
    [
        WIDGET_TEXT,
        f" {WIDGET_TEXT}\n",
        "\n".join(WIDGET_TEXT[start : start + 76] for start in range(0, len(WIDGET_TEXT), 76)),
        WIDGET_TEXT.rstrip("="),
        base64.urlsafe_b64encode(WIDGET_PAYLOAD).decode(),
    ],
    ids=["plain", "spaces around", "wrapped at 76", "no padding", "url-safe"],
)
def test_the_worked_payload_as_base64_text(text: str, schema: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", "--schema", str(schema), "--base64", text]) == 0
    check_worked(shown(capsys))


def test_parts_of_a_compound_are_named_one_by_one(schema: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Worked bitmaps 5 and 6 of section 6.2, the second by a named reference."""
    given = event_payload(
        WIDGET, {"Ship__c": {"Street": "a", "PostalCode": ""}}, changedFields=["0x0120", "15-0x0209", "16-0x02"]
    )
    assert main(["decode", "--schema", str(schema), "--base64", base64.b64encode(given).decode()]) == 0
    value = shown(capsys)
    assert value["changed_fields"] == [
        "LastModifiedDate",
        "Tags__c",
        *(f"Ship__c.{part}" for part in ("Street", "PostalCode", "GeocodeAccuracy")),
        "Bill__c.City",
    ]
    assert value["fields"] == {"Ship__c": {"Street": "a", "PostalCode": ""}}


def test_a_platform_event_has_no_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Demo.avsc"
    path.write_text(DEMO, encoding="utf-8")
    assert main(["decode", "--schema", str(path), "--base64", base64.b64encode(DEMO_PAYLOAD).decode()]) == 0
    assert shown(capsys) == {
        "name": "Demo__e",
        "header": None,
        "fields": {"CreatedDate": 1750000000000, "CreatedById": "005000000000001AAA", "Msg__c": "hi", "Qty__c": 1.5},
        "changed_fields": [],
        "nulled_fields": [],
        "diff_fields": [],
    }


def check_refused(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("session-consumer: ")
    assert captured.err.endswith(ADVICE_ENDS)
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert says in captured.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes ends too early"),
        (WIDGET_PAYLOAD[:-1], "192 bytes ends too early"),
        (WIDGET_PAYLOAD[:40], "40 bytes"),
        (WIDGET_PAYLOAD + b"\0", "194 bytes contradicts its schema"),
        (bytes(range(255, 55, -1)), "200 bytes"),
        (b'{"json": true}', "14 bytes"),
        (DEMO_PAYLOAD, f"{len(DEMO_PAYLOAD)} bytes"),
    ],
    ids=["empty", "one byte short", "cut", "one byte more", "random", "json", "another event"],
)
def test_a_broken_payload_is_one_sentence(
    content: bytes, says: str, schema: Path, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload.write_bytes(content)
    check_refused(["decode", "--schema", str(schema), str(payload)], 1, says, capsys)


def test_a_bitmap_that_is_not_of_the_schema_is_one_sentence(schema: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = base64.b64encode(event_payload(WIDGET, {}, changedFields=["0x040000"])).decode()
    check_refused(["decode", "--schema", str(schema), "--base64", text], 1, "A field bitmap names", capsys)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"type": "record"}', b'"string"', b"\xff\xfe", b"null", b"7"])
def test_a_schema_that_is_none_is_one_sentence(
    content: bytes, schema: Path, payload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema.write_bytes(content)
    code = 2 if content == b"\xff\xfe" else 1
    check_refused(["decode", "--schema", str(schema), str(payload)], code, "schema", capsys)


@pytest.mark.parametrize("which", ["schema", "payload"])
@pytest.mark.parametrize("how", ["missing", "directory"])
def test_a_file_that_can_not_be_read_is_one_sentence(
    which: str, how: str, schema: Path, payload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path if how == "directory" else tmp_path / "nowhere"
    files = {"schema": schema, "payload": payload} | {which: wrong}
    arguments = ["decode", "--schema", str(files["schema"]), str(files["payload"])]
    check_refused(arguments, 2, f"{wrong} can't be read", capsys)


@pytest.mark.parametrize("text", ["%%%", "Zm9vY", "a b*", "ä"])
def test_text_that_is_no_base64_is_a_usage_error(text: str, schema: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(["decode", "--schema", str(schema), "--base64", text], 2, "--base64 is not base64 text", capsys)


@pytest.mark.parametrize("arguments", [[], ["p", "--base64", "AA=="]])
def test_one_payload_must_be_given(arguments: list[str], schema: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(["decode", "--schema", str(schema), *arguments], 2, "Try 'session-consumer decode --help'", capsys)


def test_no_value_of_a_broken_payload_is_shown(schema: Path, payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload.write_bytes(event_payload(WIDGET, {"Name": "hush-4711"}) + b"\0")
    assert main(["decode", "--schema", str(schema), str(payload)]) == 1
    assert "hush" not in capsys.readouterr().err
