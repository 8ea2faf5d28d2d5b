"""Writer schemas of the emulated org's change events, in the real style.

Every field but the header is ``["null", T]``; what a value means is in ``doc`` (``Role:Type`` and, for custom
fields, the 15-character field id), never in a logical type. Field order of MessagingSessionChangeEvent is the
one of its describes; Account's is that of a real schema with person accounts (Pub/Sub API guide and public
captures). A schema id is the base64url MD5 of the Avro Parsing Canonical Form, without padding.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

from avro.schema import parse as parse_avro

from consumer.emulator.record_ids import field_id
from consumer.errors import EmulatorError

Spec: TypeAlias = tuple[str, str]
"""A field's API name and its ``doc``."""

NAMESPACE: Final = "com.sforce.eventbus"
HEADER: Final = "ChangeEventHeader"
CHANGE_TYPES: Final = (
    "CREATE",
    "UPDATE",
    "DELETE",
    "UNDELETE",
    "GAP_CREATE",
    "GAP_UPDATE",
    "GAP_DELETE",
    "GAP_UNDELETE",
    "GAP_OVERFLOW",
    "SNAPSHOT",
)

_PARTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "Address": (
        ("Street", "string"),
        ("City", "string"),
        ("State", "string"),
        ("PostalCode", "string"),
        ("Country", "string"),
        ("StateCode", "string"),
        ("CountryCode", "string"),
        ("Latitude", "double"),
        ("Longitude", "double"),
        ("GeocodeAccuracy", "string"),
    ),
    "Location": (("Latitude", "double"), ("Longitude", "double")),
    "PersonName": (("Salutation", "string"), ("FirstName", "string"), ("LastName", "string")),
    "Switchable_PersonName": (("Salutation", "string"), ("FirstName", "string"), ("LastName", "string")),
}
_PRIMITIVES: Final = {
    "Boolean": "boolean",
    "Integer": "int",
    "Double": "double",
    "Currency": "double",
    "Percent": "double",
    "DateTime": "long",
    "DateOnly": "long",
    "Birthday": "long",
    "TimeOnly": "long",
}
LONG_TEXT: Final = frozenset({"StringPlusClob", "HtmlStringPlusClob"})
"""Doc types whose updates may carry a diff."""

_AUDIT: Final[tuple[Spec, ...]] = (
    ("CreatedDate", "CreatedDate:DateTime"),
    ("CreatedById", "CreatedBy:EntityId"),
    ("LastModifiedDate", "Data:DateTime"),
    ("LastModifiedById", "ForeignKey:EntityId"),
)
_SESSION: Final[tuple[Spec, ...]] = (
    ("OwnerId", "ForeignKey:EntityId"),
    ("Name", "Data:Text"),
    *_AUDIT,
    ("MessagingChannelId", "ForeignKey:EntityId"),
    ("MessagingEndUserId", "ForeignKey:EntityId"),
    ("Status", "Data:StaticEnum"),
    ("CaseId", "ForeignKey:EntityId"),
    ("LeadId", "ForeignKey:EntityId"),
    ("OpportunityId", "ForeignKey:EntityId"),
    ("AcceptTime", "Data:DateTime"),
    ("StartTime", "Data:DateTime"),
    ("EndTime", "Data:DateTime"),
    ("Origin", "Data:StaticEnum"),
    ("AgentType", "Data:StaticEnum"),
    ("SessionKey", "Data:Text"),
    ("TargetUserId", "ForeignKey:EntityId"),
    ("ChannelGroup", "Data:Text"),
    ("ChannelIntent", "Data:Text"),
    ("ChannelLocale", "Data:Text"),
    ("EndUserLanguage", "Data:StaticEnum"),
    ("ConversationId", "ForeignKey:EntityId"),
    ("EndUserAccountId", "ForeignKey:EntityId"),
    ("EndUserContactId", "ForeignKey:EntityId"),
    ("ChannelType", "Data:StaticEnum"),
    ("ChannelName", "Data:Text"),
    ("ChannelKey", "Data:Text"),
    ("PreviewDetails", "Data:Text"),
    ("EndUserMessageCount", "Data:Integer"),
    ("AgentMessageCount", "Data:Integer"),
    ("EndedByType", "Data:StaticEnum"),
    ("ChannelEndUserFormula", "Data:Text"),
    ("Priority__c", f"Data:DynamicEnum:{field_id(301)}"),
    ("CSAT_Score__c", f"Data:Double:{field_id(302)}"),
    ("Notes__c", f"Data:StringPlusClob:{field_id(303)}"),
    ("VIP__c", f"Data:Boolean:{field_id(304)}"),
    ("FollowUp__c", f"Data:DateOnly:{field_id(305)}"),
    ("CallbackAt__c", f"Data:TimeOnly:{field_id(306)}"),
    ("VisitAddress__c", f"Data:Address:{field_id(307)}"),
    ("Topics__c", f"Data:MultiEnum:{field_id(308)}"),
)
_AGENT_WORK: Final[tuple[Spec, ...]] = (
    ("Name", "Data:Text"),
    *_AUDIT,
    ("UserId", "ForeignKey:EntityId"),
    ("WorkItemId", "ForeignKey:EntityId"),
    ("ServiceChannelId", "ForeignKey:EntityId"),
    ("RequestDateTime", "Data:DateTime"),
    ("AssignedDateTime", "Data:DateTime"),
    ("AcceptDateTime", "Data:DateTime"),
    ("DeclineDateTime", "Data:DateTime"),
    ("CloseDateTime", "Data:DateTime"),
    ("SpeedToAnswer", "Data:Integer"),
    ("ActiveTime", "Data:Integer"),
    ("HandleTime", "Data:Integer"),
    ("CapacityWeight", "Data:Double"),
    ("CapacityPercentage", "Data:Percent"),
    ("DeclineReason", "Data:Text"),
    ("Status", "Data:StaticEnum"),
    ("OriginalGroupId", "ForeignKey:EntityId"),
    ("PendingServiceRoutingId", "ForeignKey:EntityId"),
    ("BotId", "ForeignKey:EntityId"),
)
_END_USER: Final[tuple[Spec, ...]] = (
    ("OwnerId", "ForeignKey:EntityId"),
    ("Name", "Data:Text"),
    *_AUDIT,
    ("MessagingChannelId", "ForeignKey:EntityId"),
    ("MessageType", "Data:StaticEnum"),
    ("MessagingPlatformKey", "Data:Text"),
    ("AccountId", "ForeignKey:EntityId"),
    ("ContactId", "ForeignKey:EntityId"),
    ("LeadId", "ForeignKey:EntityId"),
    ("MessagingConsentStatus", "Data:StaticEnum"),
    ("IsFullyOptedIn", "Data:Boolean"),
    ("Locale", "Data:Text"),
    ("ProfilePictureUrl", "Data:Url"),
)
_ROUTING: Final[tuple[Spec, ...]] = (
    ("OwnerId", "ForeignKey:EntityId"),
    ("Name", "Data:Text"),
    *_AUDIT,
    ("WorkItemId", "ForeignKey:EntityId"),
    ("ServiceChannelId", "ForeignKey:EntityId"),
    ("GroupId", "ForeignKey:EntityId"),
    ("RoutingModel", "Data:StaticEnum"),
    ("RoutingPriority", "Data:Integer"),
    ("CapacityWeight", "Data:Double"),
    ("PushTimeout", "Data:Integer"),
    ("IsPushAttempted", "Data:Boolean"),
    ("IsPushed", "Data:Boolean"),
    ("IsTransfer", "Data:Boolean"),
)
_ACCOUNT: Final[tuple[Spec, ...]] = (
    ("Name", "Data:Switchable_PersonName"),
    ("Type", "Data:DynamicEnum"),
    ("RecordTypeId", "ForeignKey:EntityId"),
    ("ParentId", "ForeignKey:EntityId"),
    ("BillingAddress", "Data:Address"),
    ("ShippingAddress", "Data:Address"),
    ("Phone", "Data:Phone"),
    ("Fax", "Data:Phone"),
    ("AccountNumber", "Data:Text"),
    ("Website", "Data:Url"),
    ("Sic", "Data:Text"),
    ("Industry", "Data:DynamicEnum"),
    ("AnnualRevenue", "Data:Currency"),
    ("NumberOfEmployees", "Data:Integer"),
    ("Ownership", "Data:DynamicEnum"),
    ("TickerSymbol", "Data:Content"),
    ("Description", "Data:StringPlusClob"),
    ("Rating", "Data:DynamicEnum"),
    ("Site", "Data:Text"),
    ("OwnerId", "ForeignKey:EntityId"),
    *_AUDIT,
    ("PersonContactId", "ForeignKey:EntityId"),
    ("PersonMailingAddress", "Data:Address"),
    ("PersonEmail", "Data:Email"),
    ("PersonBirthdate", "Data:DateOnly"),
    ("Jigsaw", "Data:Text"),
    ("CleanStatus", "Data:StaticEnum"),
    ("AccountSource", "Data:DynamicEnum"),
    ("Tier__c", f"Data:DynamicEnum:{field_id(401)}"),
)
_WIDGET: Final[tuple[Spec, ...]] = (
    ("OwnerId", "ForeignKey:EntityId"),
    ("Name", "Data:Text"),
    *_AUDIT,
    ("Colour__c", f"Data:Text:{field_id(501)}"),
    ("Tags__c", f"Data:MultiEnum:{field_id(502)}"),
    ("Weight__c", f"Data:Double:{field_id(503)}"),
    ("Active__c", f"Data:Boolean:{field_id(504)}"),
    ("Due__c", f"Data:DateOnly:{field_id(505)}"),
    ("Alarm__c", f"Data:TimeOnly:{field_id(506)}"),
    ("Place__c", f"Data:Location:{field_id(507)}"),
    ("Notes__c", f"Data:StringPlusClob:{field_id(508)}"),
    ("Ship__c", f"Data:Address:{field_id(509)}"),
    ("Bill__c", f"Data:Address:{field_id(510)}"),
    ("Serial__c", f"Data:Text:{field_id(511)}"),
)

DERIVED_FIELDS: Final = {
    "MessagingSession": frozenset(
        {
            "ChannelEndUserFormula",
            "ChannelKey",
            "ChannelName",
            "ChannelType",
            "EndUserAccountId",
            "EndUserContactId",
            "EndUserMessageCount",
            "AgentMessageCount",
            "PreviewDetails",
        }
    )
}
"""Fields with a place in the schema whose values events do not carry (CDC guide: derived fields)."""


@dataclass(frozen=True, slots=True)
class BodyField:
    """One field of an event's body.

    Attributes:
        name: API name.
        doc: ``Role:Type`` and perhaps a field id.
        avro_type: Avro primitive of a plain value, None when the field is always a compound.
        compound: name of the record type, None for a plain field.
        parts: name and Avro primitive of each part of the compound, in order.
    """

    name: str
    doc: str
    avro_type: str | None
    compound: str | None
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def doc_type(self) -> str:
        """Salesforce's type name, the second word of ``doc``."""
        return self.doc.split(":")[1]

    @classmethod
    def from_doc(cls, name: str, doc: str) -> BodyField:
        """Return the field this ``doc`` describes; a type we do not know is a string.

        Raises:
            EmulatorError: ``doc`` is not ``Role:Type`` or ``Role:Type:FieldId``.
        """
        words = doc.split(":")
        if len(words) not in {2, 3} or not all(words):
            raise EmulatorError(
                f"{doc!r} is no field description", "Write Role:Type or Role:Type:FieldId, as Data:Text"
            )
        parts = _PARTS.get(words[1])
        if parts is None:
            return cls(name, doc, _PRIMITIVES.get(words[1], "string"), None)
        return cls(name, doc, "string" if words[1] == "Switchable_PersonName" else None, words[1], parts)


@dataclass(frozen=True)
class WriterSchema:
    """The writer schema of one entity's change events.

    Attributes:
        entity: object API name, such as ``Widget__c``.
        fields: the body's fields in order; the header, index 0, is not among them.
    """

    entity: str
    fields: tuple[BodyField, ...]

    @property
    def name(self) -> str:
        """Record name, such as ``Widget__ChangeEvent``."""
        return self.entity.removesuffix("__c") + ("__ChangeEvent" if "__" in self.entity else "ChangeEvent")

    @cached_property
    def json(self) -> str:
        """The schema as ``GetSchema`` returns it: JSON text, with docs and defaults."""
        seen: set[str] = set()
        body = [_field_json(field, seen) for field in self.fields]
        record = {
            "type": "record",
            "name": self.name,
            "namespace": NAMESPACE,
            "fields": [_header_json(), *body],
        }
        return json.dumps(record, separators=(",", ":"))

    @cached_property
    def schema_id(self) -> str:
        """Base64url MD5 of the Parsing Canonical Form, 22 characters."""
        fingerprint: bytes = parse_avro(self.json).fingerprint("md5")
        return base64.urlsafe_b64encode(fingerprint).rstrip(b"=").decode()

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each body field in the event record; the header has position 0."""
        return {field.name: place for place, field in enumerate(self.fields, start=1)}

    @cached_property
    def by_name(self) -> Mapping[str, BodyField]:
        """The body fields by API name."""
        return {field.name: field for field in self.fields}

    def with_fields(self, added: Sequence[Mapping[str, Any]] = (), removed: Iterable[str] = ()) -> WriterSchema:
        """Return the schema after an administrator changed the object.

        Args:
            added: one mapping a field: ``name``; ``doc`` (default: a custom text field); ``after``, the field
                it follows. Without ``after`` it goes to the middle of the body, as CampaignId once did, so
                that later bitmap positions move.
            removed: names of fields that go.

        Raises:
            EmulatorError: a field is added twice, or a named one does not exist.
        """
        fields = list(self.fields)
        for gone in removed:
            if gone not in self.index:
                raise EmulatorError(f"{self.entity} has no field {gone}", "Remove a field of its schema")
            fields = [field for field in fields if field.name != gone]
        for number, item in enumerate(added):
            names = [field.name for field in fields]
            name: Any = item.get("name")
            after: Any = item.get("after")
            if not isinstance(name, str) or not name or name in names or after not in {None, *names}:
                raise EmulatorError(
                    f"{name!r} can't be added to {self.entity}",
                    "Give a new name, and after a field that exists",
                )
            place = names.index(after) + 1 if after else len(names) // 2
            doc = item.get("doc") or f"Data:Text:{field_id(900 + len(names) + number)}"
            fields.insert(place, BodyField.from_doc(name, str(doc)))
        return WriterSchema(self.entity, tuple(fields))


def _field_json(field: BodyField, seen: set[str]) -> dict[str, Any]:
    branches: list[Any] = ["null"]
    if field.avro_type is not None:
        branches.append(field.avro_type)
    if field.compound is not None:
        branches.append(field.compound if field.compound in seen else _compound_json(field))
        seen.add(field.compound)
    return {"name": field.name, "type": branches, "doc": field.doc, "default": None}


def _compound_json(field: BodyField) -> dict[str, Any]:
    role = {"string": "Data:Text", "double": "Data:Double"}
    parts = [{"name": name, "type": ["null", kind], "doc": role[kind], "default": None} for name, kind in field.parts]
    return {"type": "record", "name": field.compound, "fields": parts}


def _header_json() -> dict[str, Any]:
    strings = {"type": "array", "items": "string"}
    types: tuple[tuple[str, Any], ...] = (
        ("entityName", "string"),
        ("recordIds", strings),
        ("changeType", {"type": "enum", "name": "ChangeType", "symbols": list(CHANGE_TYPES)}),
        ("changeOrigin", "string"),
        ("transactionKey", "string"),
        ("sequenceNumber", "int"),
        ("commitTimestamp", "long"),
        ("commitNumber", "long"),
        ("commitUser", "string"),
        ("nulledFields", strings),
        ("diffFields", strings),
        ("changedFields", strings),
    )
    fields = [{"name": name, "type": kind} for name, kind in types]
    return {
        "name": HEADER,
        "type": {"type": "record", "name": HEADER, "fields": fields},
        "doc": "Data:ComplexValueType",
    }


def standard_schemas() -> dict[str, WriterSchema]:
    """Return the first writer schema of every entity of the emulated org, by object API name."""
    specs = {
        "MessagingSession": _SESSION,
        "AgentWork": _AGENT_WORK,
        "MessagingEndUser": _END_USER,
        "PendingServiceRouting": _ROUTING,
        "Account": _ACCOUNT,
        "Widget__c": _WIDGET,
    }
    return {
        entity: WriterSchema(entity, tuple(BodyField.from_doc(name, doc) for name, doc in spec))
        for entity, spec in specs.items()
    }
