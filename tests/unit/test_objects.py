"""What is known of a channel's objects: the newest schema wins, and rows are read by schema and describe together."""

from __future__ import annotations

from consumer.changes.schema import compile_schema
from consumer.objects import Objects
from tests.fake_org import ENTITY, FIELDS, SCHEMA, SCHEMA_JSON

NEWER = compile_schema("schema-2", SCHEMA_JSON)


def test_nothing_is_known_at_first() -> None:
    objects = Objects()
    assert objects.names() == ()
    assert (objects.schema(ENTITY), objects.schema_id(ENTITY), objects.plan(ENTITY)) == (None, None, None)


def test_a_newer_schema_takes_the_place_of_an_older_one_and_never_the_other_way() -> None:
    """Events of both schemas come side by side while a field is being deployed, and again when a stream goes back."""
    objects = Objects()
    assert objects.use(ENTITY, SCHEMA, 10)
    assert not objects.use(ENTITY, SCHEMA, 20), "it is no news"
    assert not objects.use(ENTITY, NEWER, 9)
    assert objects.schema(ENTITY) is SCHEMA
    assert objects.use(ENTITY, NEWER, 10)
    assert (objects.schema(ENTITY), objects.schema_id(ENTITY)) == (NEWER, "schema-2")
    assert not objects.use(ENTITY, SCHEMA, 9)
    assert objects.schema_id(ENTITY) == "schema-2"


def test_objects_are_known_in_the_order_they_appeared() -> None:
    objects = Objects()
    for entity in ("B", "A", "C", "A"):
        objects.use(entity, SCHEMA, 10)
    assert objects.names() == ("B", "A", "C")


def test_rows_can_be_read_once_schema_and_describe_are_known() -> None:
    objects = Objects()
    assert objects.describe(ENTITY, FIELDS)
    assert objects.plan(ENTITY) is None
    objects.use(ENTITY, SCHEMA, 10)
    plan = objects.plan(ENTITY)
    assert plan is not None
    assert objects.plan(ENTITY) is plan, "it is made once"


def test_a_describe_that_says_the_same_is_no_news() -> None:
    objects = Objects()
    objects.use(ENTITY, SCHEMA, 10)
    assert objects.describe(ENTITY, FIELDS)
    plan = objects.plan(ENTITY)
    assert not objects.describe(ENTITY, dict(FIELDS))
    assert objects.plan(ENTITY) is plan
    fewer = {name: info for name, info in FIELDS.items() if name != "Status"}
    assert objects.describe(ENTITY, fewer)
    assert objects.plan(ENTITY) is not plan


def test_a_newer_schema_is_read_by_a_new_plan() -> None:
    objects = Objects()
    objects.use(ENTITY, SCHEMA, 10)
    objects.describe(ENTITY, FIELDS)
    plan = objects.plan(ENTITY)
    objects.use(ENTITY, NEWER, 20)
    assert objects.plan(ENTITY) not in {None, plan}


def test_a_describe_that_was_forgotten_must_be_asked_again_before_rows_are_read() -> None:
    objects = Objects()
    objects.use(ENTITY, SCHEMA, 10)
    objects.describe(ENTITY, FIELDS)
    assert objects.plan(ENTITY) is not None
    objects.forget_describe(ENTITY)
    assert objects.plan(ENTITY) is None
    assert objects.describe(ENTITY, FIELDS), "the same describe is news again"
    assert objects.plan(ENTITY) is not None
