"""What the stored recordings hold: one coroutine each, which makes the emulated org do something in small steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

SESSIONS = "/data/MessagingSessionChangeEvent"
DAY_MS = 86_400_000

LONG_TEXT = "\n".join(f"line {number:02d} abcdefghijklmnopqrstuvwxyz" for number in range(1, 41))
"""Long enough that a small change of it travels as a diff."""


class Stage(Protocol):
    """What a scenario can do; after each act everything it published has been recorded, and the clock moves on."""

    async def traffic(self, events: int) -> None:
        """Let the generated contact centre make this many events."""
        ...

    async def commit(self, *changes: Mapping[str, Any], **parameters: Any) -> list[str]:
        """Commit one transaction; returns the record ids of its events, each once, in order."""
        ...

    async def act(self, kind: str, **parameters: Any) -> None:
        """Carry out any fault or act of the emulated org."""
        ...

    async def keepalive(self) -> None:
        """Let the org be idle until a keep-alive has come."""
        ...

    async def lose_position(self) -> None:
        """Move the org to another instance and wait until the stream has noticed."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """One stored recording.

    Attributes:
        play: what happens.
        topic: the channel that is recorded.
        options: of the emulated org's ``Scenario``.
    """

    play: Callable[[Stage], Awaitable[None]]
    topic: str = SESSIONS
    options: Mapping[str, Any] = field(default_factory=dict)


def create(entity: str = "MessagingSession", **fields: Any) -> dict[str, Any]:
    """Describe the creation of a record."""
    return {"op": "create", "entity": entity, "fields": fields}


def update(record_id: str, entity: str = "MessagingSession", *, system: bool = False, **fields: Any) -> dict[str, Any]:
    """Describe an update of a record."""
    return {"op": "update", "entity": entity, "record_id": record_id, "fields": fields, "system": system}


def remove(record_id: str, entity: str = "MessagingSession", op: str = "delete") -> dict[str, Any]:
    """Describe a deletion, or with ``op`` an undeletion, of a record."""
    return {"op": op, "entity": entity, "record_id": record_id}


async def _plain_traffic(stage: Stage) -> None:
    for _ in range(12):
        await stage.traffic(3)
    await stage.keepalive()


async def _merged_and_transactions(stage: Stage) -> None:
    ids = await stage.commit(*(create(Status="New", Origin="InboundInitiated") for _ in range(3)))
    # The same change of several records is one event; different ones are several events of one transaction.
    await stage.commit(*(update(each, Status="Waiting") for each in ids))
    await stage.commit(
        update(ids[0], Status="Active", AcceptTime=1_790_000_002_000),
        update(ids[1], Status="Ended", EndedByType="EndUser"),
        update(ids[2], Priority__c="High"),
    )
    await stage.commit(update(ids[0], Priority__c="Low"), create(Status="New"), remove(ids[1]))
    await stage.commit(*(remove(each) for each in (ids[0], ids[2])))
    await stage.commit(remove(ids[0], op="undelete"))


async def _bitmaps(stage: Stage) -> None:
    address = {"Street": "1 Main St", "City": "Graz", "PostalCode": "8010", "Country": "Austria"}
    (one,) = await stage.commit(create(Status="New", VisitAddress__c=address, Notes__c=LONG_TEXT, Priority__c="High"))
    await stage.commit(update(one, VisitAddress__c={"Street": "2 Side St"}))
    # A geocoding pass: nothing but parts of a compound changes, not even LastModifiedDate.
    await stage.commit(update(one, system=True, VisitAddress__c={"Latitude": 47.07, "Longitude": 15.44}), origin="")
    await stage.commit(update(one, VisitAddress__c={"City": None}, Priority__c=None))
    await stage.commit(update(one, Notes__c=LONG_TEXT.replace("line 02 abc", "line 02 CHANGED abc")))
    await stage.commit(update(one, Notes__c="short again"))
    await stage.commit(update(one, Notes__c=""))
    await stage.commit(
        update(
            one, FollowUp__c=20_700 * DAY_MS, CallbackAt__c=36_000_000, CSAT_Score__c=4.5, VIP__c=True, Topics__c="A;B"
        )
    )


async def _schema_change(stage: Stage) -> None:
    (one,) = await stage.commit(create(Status="New", Priority__c="High"))
    await stage.commit(update(one, Status="Waiting", CSAT_Score__c=3.0))
    # In the middle of the record, so that every later bitmap position moves.
    await stage.act("schema_change", add=[{"name": "Region__c", "doc": "Data:DynamicEnum:00N5g00000REGIO"}])
    await stage.commit(update(one, Status="Active", Region__c="EMEA", CSAT_Score__c=4.0))
    await stage.act(
        "schema_change", add=[{"name": "Novel__c", "doc": "Data:Novelty:00N5g00000NOVEL"}], remove=["CSAT_Score__c"]
    )
    await stage.commit(update(one, Novel__c="a field type of a coming release", Region__c=None))
    await stage.commit(create(Status="New", Region__c="APAC", Novel__c="passes through"))


async def _channel_enriched(stage: Stage) -> None:
    ids = await stage.commit(*(create(Status="New", SessionKey=f"key-{number}") for number in range(3)))
    # On an enriched channel a merged event comes apart: one per record, all with the same replay id.
    await stage.commit(*(update(each, Status="Waiting") for each in ids))
    work = await stage.commit(create("AgentWork", WorkItemId=ids[0], Status="Assigned", CapacityWeight=1.0))
    await stage.commit(
        update(work[0], "AgentWork", Status="Opened", SpeedToAnswer=7),
        update(ids[0], Status="Active", TargetUserId=ids[0]),
    )
    await stage.commit(*(update(each, Status="Ended", EndedByType="Agent") for each in ids))
    await stage.commit(update(work[0], "AgentWork", Status="Closed", ActiveTime=61))
    await stage.commit(remove(ids[2]))


async def _poison(stage: Stage) -> None:
    (one,) = await stage.commit(create(Status="New"))
    for how in ("truncated", "trailing", "random", "bad_bitmap", "bad_enum", "unknown_schema"):
        await stage.act("poison", how=how)
        await stage.commit(update(one, SessionKey=f"still sound after {how}"))


async def _gaps(stage: Stage) -> None:
    (one,) = await stage.commit(create(Status="New"))
    await stage.act("gap", op="UPDATE", record_ids=[one], fields={"Status": "Waiting"})
    await stage.act("gap", op="CREATE")
    await stage.commit(update(one, Status="Active"))
    await stage.act("wildcard")
    await stage.act("overflow")
    await stage.act("gap", op="DELETE", record_ids=[one])
    await stage.act("gap", op="UNDELETE", record_ids=[one])
    await stage.commit(update(one, Status="Ended"))


async def _position_lost(stage: Stage) -> None:
    (one,) = await stage.commit(create(Status="New"))
    await stage.keepalive()
    await stage.commit(update(one, Status="Waiting"))
    await stage.lose_position()
    await stage.commit(update(one, Status="Active"))
    await stage.keepalive()
    await stage.commit(update(one, Status="Ended"))


async def _accounts(stage: Stage) -> None:
    business, person = await stage.commit(
        create("Account", Name="Acme Ltd", AnnualRevenue=1e7, NumberOfEmployees=12, Phone="+43 1 234"),
        create(
            "Account",
            Name={"Salutation": "Ms", "FirstName": "Ada", "LastName": "Müller"},
            PersonEmail="ada@example.com",
            PersonBirthdate=-3_000 * DAY_MS,
            PersonMailingAddress={"Street": "Ring 1", "City": "Wien", "Latitude": 48.2},
        ),
    )
    await stage.commit(
        update(business, "Account", Name="Acme GmbH", BillingAddress={"City": "Linz", "Country": "Austria"})
    )
    await stage.commit(update(person, "Account", Name={"LastName": "Meier"}))
    await stage.commit(
        update(person, "Account", system=True, PersonMailingAddress={"Latitude": 48.21, "Longitude": 16.37}), origin=""
    )
    await stage.commit(
        update(business, "Account", ShippingAddress={"Street": "Hafen 3"}, BillingAddress={"City": None})
    )
    await stage.commit(remove(business, "Account"))


RECORDED: Mapping[str, Recorded] = {
    "plain-traffic": Recorded(_plain_traffic, options={"seed": 11, "traffic": {"live": 6, "companions": False}}),
    "merged-and-transactions": Recorded(_merged_and_transactions, options={"seed": 12}),
    "bitmaps": Recorded(_bitmaps, options={"seed": 13}),
    "schema-change": Recorded(_schema_change, options={"seed": 14}),
    "channel-enriched": Recorded(
        _channel_enriched,
        topic="/data/Support__chn",
        options={
            "seed": 15,
            "channels": {"/data/Support__chn": ("MessagingSession", "AgentWork")},
            "enrichment": {"MessagingSession": ("SessionKey", "OwnerId")},
            "ungroup_merged": True,
        },
    ),
    "poison": Recorded(_poison, options={"seed": 16}),
    "gaps": Recorded(_gaps, options={"seed": 17}),
    "position-lost": Recorded(_position_lost, options={"seed": 18}),
    "accounts": Recorded(_accounts, topic="/data/AccountChangeEvent", options={"seed": 19}),
}
"""By name; ``widget`` and ``redacted`` are made without an org of their own, see ``regenerate.py``."""
