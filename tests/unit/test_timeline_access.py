"""Who had access at a past moment: yes, no, or unknown between two times; from records written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consumer.tracking.timeline_access import (
    Access,
    AccessFact,
    AccessNow,
    ShareNow,
    access_at,
    access_of,
    grantee_at,
    identities,
)

T = 1_790_000_000_000
TEAM, REP, NOBODY = "00G000000000009AAA", "005000000000001AAA", "005000000000099AAA"


def fact(kind: str = "granted", start: int | None = None, end: int = 12, **values: Any) -> AccessFact:
    """Return a fact of the team's rule row, between two seconds after T."""
    from_ms = None if start is None else T + start * 1000
    fact_id = f"{kind}:{start}:{end}"
    given = AccessFact(
        fact_id, kind, TEAM, "Queue", "Team", "Rule", "Read", None, from_ms, T + end * 1000, REP, "sweep"
    )
    return replace(given, **values)


def share(start: int | None = None, end: int = 12, *, seen: int = 10, **values: Any) -> ShareNow:
    from_ms = None if start is None else T + start * 1000
    given = ShareNow(TEAM, "Queue", "Team", "Rule", "Read", (from_ms, T + end * 1000), T + seen * 1000, missing=False)
    return replace(given, **values)


def now(*shares: ShareNow, at: int = 100, complete: bool = True) -> AccessNow:
    return AccessNow(shares, complete, T + at * 1000)


def known(
    *facts: AccessFact,
    now: AccessNow | None = None,
    swept: int | None = None,
    kept: int | None = None,
    created: int | None = None,
    deleted: bool = False,
) -> Access:
    times = [None if each is None else T + each * 1000 for each in (swept, kept, created)]
    return access_of(facts, now, times[0], times[1], created_ms=times[2], deleted=deleted)


def at(access: Access, second: float, grantee: str = TEAM) -> str:
    """Return the answer in a word: the level, ``no``, or from when to when nobody knows."""
    (answer,) = grantee_at(access, grantee, T + round(second * 1000))
    if answer.answer == "unknown":
        ends = [None if ms is None else (ms - T) / 1000 for ms in (answer.from_ms, answer.to_ms)]
        return " ".join("…" if end is None else f"{end:g}" for end in ends)
    return answer.level or answer.answer


def test_inside_of_a_fact_nobody_knows_and_outside_the_facts_hold() -> None:
    of = known(fact(end=12), fact("revoked", 50, 60), now=now(at=100))
    assert [at(of, second) for second in (0, 11.999, 12, 49.999, 50, 59.999, 60, 100)] == [
        "… 12",
        "… 12",
        "Read",
        "Read",
        "50 60",
        "50 60",
        "no",
        "no",
    ]


def test_a_changed_level_was_the_former_one_before() -> None:
    changed = fact("level_changed", 50, 60, level="Edit", previous="Read")
    of = known(fact(end=12), changed, now=now(share(50, 60, level="Edit")))
    assert [at(of, second) for second in (49, 55, 60)] == ["Read", "50 60", "Edit"]


def test_behind_what_was_checked_nobody_knows() -> None:
    facts = [fact(end=12)]
    assert at(known(*facts, now=now(share(), at=100)), 100) == "Read"
    assert at(known(*facts, now=now(share(), at=100)), 101) == "100 …"
    assert at(known(*facts, now=now(share(), at=100), swept=500), 500) == "Read", "the last sweep speaks for it"
    assert at(known(*facts, now=now(share(), at=100), swept=500), 501) == "500 …"
    assert at(known(*facts, now=now(share(), at=100), swept=50), 100) == "Read", "an older sweep takes nothing back"
    assert at(known(*facts, now=now(share(), at=100, complete=False), swept=500), 60) == "… …"


def test_a_row_that_was_missed_once_is_known_until_it_was_seen_last() -> None:
    of = known(fact(end=12), now=now(share(seen=70, missing=True), at=100), swept=500)
    assert [at(of, second) for second in (69, 70, 90, 600)] == ["Read", "70 …", "70 …", "70 …"]


def test_a_row_that_was_read_alone_since_says_nothing_of_the_time_in_between() -> None:
    of = known(fact(end=12), now=now(share(seen=300), at=100))
    assert [at(of, second) for second in (100, 200)] == ["Read", "100 …"]


def test_in_an_unseen_span_nobody_knows_of_anybody() -> None:
    unseen = fact("unseen", 40, 45, user_or_group_id=None, row_cause=None, level=None)
    of = known(fact(end=12), unseen, now=now(share()))
    assert [at(of, second) for second in (39, 40, 44.999, 45)] == ["Read", "40 45", "40 45", "Read"]
    assert at(of, 42, NOBODY) == "40 45"
    assert [each.user_or_group_id for each in access_at(of, T)] == [TEAM], "it is about no grantee"


def test_who_was_never_seen_has_no_access_within_what_was_checked() -> None:
    of = known(fact(end=12), now=now(share(), at=100))
    assert [at(of, second, NOBODY) for second in (5, 12, 100, 101)] == ["… 12", "no", "no", "100 …"]


def test_before_somebody_looked_first_nobody_knows_of_a_share_that_came_later() -> None:
    """The team's row was not there at the first look; whether it had been there before is another question."""
    of = known(fact(end=12, user_or_group_id=REP), fact(start=50, end=60), now=now(share(50, 60)))
    assert [at(of, second) for second in (5, 12, 49, 50)] == ["… 12", "no", "no", "50 60"]
    late = known(fact(start=50, end=60), now=now(share(50, 60)))
    assert at(late, 49) == "… 60", "nothing tells when somebody looked first"
    assert at(known(now=now(at=100), swept=500), 100) == "… 110", "nor here, but for the answer's time"
    assert at(known(now=now(at=100), swept=500), 110) == "no"


def test_before_a_record_was_created_nobody_had_access() -> None:
    of = known(fact(end=12), fact(start=50, end=60, user_or_group_id=REP), now=now(share()), created=5)
    assert [at(of, second) for second in (4.999, 5)] == ["no", "… 12"]
    assert [at(of, second, REP) for second in (4.999, 5)] == ["no", "… 12"]


def test_a_deleted_record_has_no_access_for_ever_once_every_share_was_seen_to_go() -> None:
    gone = [fact(end=12), fact("revoked", 50, 60)]
    assert at(known(*gone, deleted=True), 10**6) == "no"
    assert at(known(*gone, deleted=True), 10**6, NOBODY) == "no"
    assert at(known(*gone, swept=500), 500) == "no"
    assert at(known(*gone, swept=500), 501) == "500 …", "one that may be there can be shared again"
    assert at(known(*gone), 61) == "60 …"
    assert at(known(*gone, now=now(share(seen=70, missing=True), at=80), deleted=True), 90) == "70 …"


def test_where_nothing_was_told_nobody_knows() -> None:
    assert at(known(), 10) == at(known(deleted=True, swept=500), 10) == "… …"
    assert access_at(known(), T) == []


def test_of_dropped_facts_nobody_knows_unless_the_share_says_since_when_it_is_so() -> None:
    of = known(now=now(share(20, 30), at=1000), kept=500)
    assert [at(of, second) for second in (10, 20, 30, 499, 900)] == ["… 500", "20 30", "Read", "Read", "Read"]
    assert [at(of, second, NOBODY) for second in (10, 499, 1000)] == ["… 500", "… 500", "… 1010"]
    kept = known(fact("revoked", 600, 610), fact(start=700, end=710, user_or_group_id=REP), now=now(at=1000), kept=500)
    assert [at(kept, second) for second in (400, 500, 599, 610)] == ["… 500", "Read", "Read", "no"]


def test_the_first_kept_fact_tells_what_was_before_it() -> None:
    first = fact(end=520, user_or_group_id=REP)
    changed = fact("level_changed", 600, 610, level="Edit", previous="Read")
    levels = known(first, changed, now=now(share(600, 610, level="Edit"), at=1000), kept=500)
    assert [at(levels, second) for second in (400, 510, 590, 620)] == ["… 500", "Read", "Read", "Edit"]


def test_a_share_that_is_gone_without_a_fact_that_says_so_is_not_there_for_ever() -> None:
    """Its records were read a moment before the row's."""
    of = known(fact(end=12), now=now(at=100))
    assert [at(of, second) for second in (5, 12, 90)] == ["… 12", "12 …", "12 …"]


def test_facts_that_stand_twice_count_once_and_each_cause_is_a_share_of_its_own() -> None:
    manual = fact(end=12, fact_id="m", row_cause="Manual", level="Edit")
    of = known(fact(end=12), fact(end=12), manual, now=now(share(), share(row_cause="Manual", level="Edit")))
    assert len(of.facts) == 2
    assert identities(of) == [(TEAM, "Rule"), (TEAM, "Manual")]
    answers = grantee_at(of, TEAM, T + 50_000)
    assert [(each.row_cause, each.answer, each.level) for each in answers] == [
        ("Rule", "yes", "Read"),
        ("Manual", "yes", "Edit"),
    ]
    assert {(each.grantee_type, each.grantee_name) for each in answers} == {("Queue", "Team")}


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_facts_of_others_may_stand_in_between(order: tuple[int, ...]) -> None:
    """A revocation is told later than what happened meanwhile."""
    told = [fact(end=12), fact(start=30, end=32, user_or_group_id=REP), fact("revoked", 50, 60)]
    of = known(*(told[each] for each in order), now=now(share(30, 32, user_or_group_id=REP)))
    assert [at(of, second) for second in (20, 55, 61)] == ["Read", "50 60", "no"]
