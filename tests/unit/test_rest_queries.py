"""SOQL texts: what is put into them can't end a literal, and they fit into a URI."""

from __future__ import annotations

import pytest

from consumer.errors import QueryRefusedError
from consumer.salesforce import queries
from consumer.salesforce.rest import encoded
from tests.unit.rest_org import widget_id


@pytest.mark.parametrize("text", ["A B", "", "A'", "1A", "A.B", "A;", "Ä", "A" * 81, "A\n"])
def test_names_are_checked(text: str) -> None:
    with pytest.raises(QueryRefusedError):
        queries.name(text)


@pytest.mark.parametrize("text", ["a00", "", "a00000000000001'OR1=1", "a0000000000000001A'", "a00000000000001AAA\n"])
def test_ids_are_checked(text: str) -> None:
    with pytest.raises(QueryRefusedError):
        queries.quoted_id(text)


@pytest.mark.parametrize("where", ["A = 1) OR (B = 2", "A = 'b", "A = 1)", "(A = 1", "A = 'b\\'", "')"])
def test_a_condition_can_not_leave_its_brackets(where: str) -> None:
    with pytest.raises(QueryRefusedError):
        queries.condition(where)


@pytest.mark.parametrize("where", ["A = 'it\\'s (odd'", "(A = 1 OR B = ')')", "Status = 'Ended'"])
def test_a_condition_is_put_in_brackets(where: str) -> None:
    assert queries.condition(where) == f"({where})"


def test_no_condition_leaves_no_trace() -> None:
    assert queries.select(("Id",), "A", queries.condition("  ")) == "SELECT Id FROM A"
    assert queries.count("A", "") == "SELECT COUNT() FROM A"
    assert queries.count("A", "B = 1") == "SELECT COUNT() FROM A WHERE (B = 1)"


def test_a_query_has_its_parts_in_order() -> None:
    text = queries.select(("Id", "B"), "A", "B > 1", "", "(C = 2)", order=("B", "Id"), limit=7)
    assert text == "SELECT Id, B FROM A WHERE B > 1 AND (C = 2) ORDER BY B, Id LIMIT 7"


def test_windows_go_to_whole_seconds_outwards() -> None:
    assert queries.span("T", 1_000, 2_000) == "T >= 1970-01-01T00:00:01Z AND T < 1970-01-01T00:00:02Z"
    assert queries.span("T", 1_999, 2_001) == "T >= 1970-01-01T00:00:01Z AND T < 1970-01-01T00:00:03Z"


def test_a_mark_goes_on_behind_its_row() -> None:
    mark = queries.mark(1_000, widget_id(1))
    assert queries.after_mark("T", mark) == (
        f"((T = 1970-01-01T00:00:01Z AND Id > '{widget_id(1)}') OR T > 1970-01-01T00:00:01Z)"
    )
    assert not queries.after_mark("T", None)
    with pytest.raises(QueryRefusedError):
        queries.after_mark("T", "1000")


def test_lists_of_ids_are_cut_at_two_hundred() -> None:
    ids = [widget_id(number) for number in range(450)]
    parts = list(queries.id_lists(("Id",), "A", "Id", ids))
    assert [len(part) for _, part in parts] == [200, 200, 50]
    assert [each for _, part in parts for each in part] == ids
    assert parts[2][0].startswith(f"SELECT Id FROM A WHERE Id IN ('{ids[400]}',")


def test_lists_of_ids_are_cut_so_that_the_uri_fits() -> None:
    """16,384 bytes of URI and headers: many fields leave room for fewer ids."""
    fields = [f"A_rather_long_custom_field_{number:03d}__c" for number in range(300)]
    ids = [widget_id(number) for number in range(200)]
    parts = list(queries.id_lists(fields, "A", "Id", ids))
    assert len(parts) > 1
    assert [each for _, part in parts for each in part] == ids
    lengths = [len(encoded(text)) for text, _ in parts]
    assert max(lengths) <= queries.MAX_URI_BYTES - 256
    assert lengths[0] > queries.MAX_URI_BYTES - 256 - 30


def test_fields_that_leave_no_room_are_told() -> None:
    with pytest.raises(QueryRefusedError) as raised:
        list(queries.id_lists([f"Field_{number:060d}__c" for number in range(300)], "A", "Id", [widget_id(1)]))
    assert raised.value.code == "URI_TOO_LONG"


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        ("MessagingSession", ("MessagingSessionHistory", "MessagingSessionId")),
        ("Widget__c", ("Widget__History", "ParentId")),
        ("ns__Widget__c", ("ns__Widget__History", "ParentId")),
        ("Opportunity", ("OpportunityFieldHistory", "OpportunityId")),
    ],
)
def test_history_objects(entity: str, expected: tuple[str, str]) -> None:
    assert queries.history_object(entity) == expected
