"""Whatever happens to a subscription: each event is committed once, in order, and no position is ahead of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import event as hypothesis_event
from hypothesis import strategies as st

from consumer.errors import FloodError, KafkaRefusedError, PositionLostError, ProducerFencedError, ServerProtectionError
from consumer.events import Keepalive, ReceivedEvent, StreamItem
from consumer.flood import MOST_BAD
from consumer.pipeline_parts import Limits
from consumer.ports import Batch
from consumer.tasks import task_group
from tests.fakes import CommitFault, Rig, event, keepalive, replay_id, virtual

_STEPS = ("pause", "resume", "stop", "cancel", "fence", "retry", "wait")


@dataclass(frozen=True)
class Story:
    """One run of the model.

    Attributes:
        items: what the org sends, in order.
        steps: what is done to the worker, each after some virtual milliseconds.
        faults: how the commits go.
        ends: what ends the stream before the item of an index.
        echoes: items that are sent again before the item of an index.
    """

    items: tuple[StreamItem, ...]
    steps: tuple[tuple[int, str], ...]
    faults: tuple[CommitFault | None, ...]
    ends: dict[int, type[PositionLostError | ServerProtectionError]]
    echoes: dict[int, list[int]]
    limits: Limits
    burst: int
    events: tuple[ReceivedEvent, ...] = field(init=False)

    def __post_init__(self) -> None:
        events = tuple(item for item in self.items if isinstance(item, ReceivedEvent))
        object.__setattr__(self, "events", events)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    items: list[StreamItem] = []
    number = 0
    kinds = st.sampled_from(["good"] * 8 + ["bad", "shared", "shared", "keepalive", "new_schema", "flood"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=40)):
        if kind == "keepalive":
            if items:
                items.append(Keepalive(items[-1].topic, items[-1].replay_id, number))
            continue
        if kind == "flood":
            for _ in range(draw(st.integers(15, 60))):
                number += 1
                items.append(event(number, bad=True))
            continue
        number += 1
        shared = kind == "shared" and items and isinstance(items[-1], ReceivedEvent)
        new = event(number, bad=kind == "bad", schema_id=f"s{number}" if kind == "new_schema" else "s1")
        items.append(replace(new, replay_id=items[-1].replay_id) if shared else new)
    # With a last keep-alive every position can be told.
    items += [event(number + 1), keepalive(number + 1)]
    indexes = st.integers(1, len(items) - 1)
    echoes = draw(st.dictionaries(indexes, st.lists(st.integers(0, len(items)), max_size=3), max_size=5))
    return Story(
        items=tuple(items),
        steps=tuple(draw(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(_STEPS)), max_size=12))),
        faults=tuple(draw(st.lists(st.sampled_from([None, None, None, *CommitFault]), max_size=12))),
        ends=draw(st.dictionaries(indexes, st.sampled_from([PositionLostError, ServerProtectionError]), max_size=3)),
        echoes={at: [each for each in several if each < at] for at, several in echoes.items()},
        limits=Limits(
            max_records=draw(st.integers(1, 12)),
            max_bytes=draw(st.sampled_from([10, 100, 1 << 20])),
            max_age_ms=draw(st.sampled_from([0, 5, 100])),
            buffer_events=draw(st.sampled_from([1, 7, 100])),
        ),
        burst=draw(st.integers(1, 20)),
    )


class Model:
    """The supervisor under a story, and what must hold at every commit."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.rig = Rig(story.items, limits=story.limits, burst=story.burst)
        self.rig.kafka.faults.extend(story.faults)
        self.rig.bus.errors = {at: error("ended") for at, error in story.ends.items()}
        self.rig.bus.echoes = story.echoes
        self.expected = [each.event_id for each in story.events]
        self._commits = 0

    async def play(self) -> None:
        """Do the story's steps, then let it come to rest, and check."""
        for delay_ms, step in self.story.steps:
            await self._for(delay_ms / 1000, step)
        self.rig.kafka.faults.clear()
        await self._to_rest()
        self.check()

    async def _for(self, seconds: float, step: str) -> None:
        """Run the current supervisor for a while, then do the step."""
        rig = self.rig
        try:
            async with task_group() as group:
                task = group.create_task(rig.subscription.run())
                await asyncio.sleep(seconds)
                self.check()
                if step == "fence":
                    rig.kafka.epoch += 1
                elif step == "pause":
                    rig.subscription.pause()
                elif step == "resume":
                    rig.subscription.resume()
                elif step == "retry":
                    rig.subscription.retry([])
                if step == "stop":
                    rig.subscription.stop()
                    await task
                else:
                    await asyncio.sleep(0.01)
                    task.cancel()
        except (ProducerFencedError, KafkaRefusedError):
            rig.restarted()
        assert rig.kafka.open_sinks == 0
        if step in {"stop", "cancel", "fence"}:
            rig.restarted()

    async def _to_rest(self) -> None:
        """Run until everything is committed, or a flood has halted it twice."""
        rig = self.rig
        rig.restarted()
        async with task_group() as group:
            task = group.create_task(rig.subscription.run())
            floods = 0
            while len(rig.kafka.event_ids()) < len(self.expected) and floods < 2:
                seen = len(rig.told.told)
                await rig.told.until(lambda seen=seen: len(rig.told.told) > seen)  # type: ignore[misc]
                for what in rig.told.told[seen:]:
                    if what[0] == "halted":
                        floods += isinstance(what[1], FloodError)
                        self.check_flood(what[1])
                        rig.subscription.resume()
            self.flooded = floods == 2
            rig.subscription.stop()
            await task

    def check_flood(self, error: Exception) -> None:
        """A flood halts right before a bad event: all that was good before it is committed."""
        if isinstance(error, FloodError):
            committed = self.rig.kafka.event_ids()
            assert self.bad(self.expected[len(committed)])
            told = self.rig.told.told
            began = max(index for index, what in enumerate(told) if what[0] == "streaming")
            held = [what[1] for what in told[began:] if what[0] == "processed" and what[1] not in committed]
            assert sum(map(self.bad, held)) >= MOST_BAD, "bad events of the flood were committed"

    def bad(self, event_id: str) -> bool:
        """Return whether an event can't be processed."""
        return self.story.events[self.expected.index(event_id)].payload.startswith(b"bad")

    def check(self) -> None:
        """What is committed is the beginning of what was sent, and each position claims no more than that."""
        kafka = self.rig.kafka
        committed = kafka.event_ids()
        assert committed == self.expected[: len(committed)]
        done: set[str] = set()
        for batch in kafka.batches:
            done |= _ids_of(batch, self)
            place = self.rig.bus.place(batch.position)
            before = [each.event_id for each in self.story.items[:place] if isinstance(each, ReceivedEvent)]
            assert done >= {*before, *batch.position.beyond}, "the position is ahead of the records"


def _ids_of(batch: Batch, model: Model) -> set[str]:
    kafka = model.rig.kafka
    wanted = {kafka.topics.changes("MessagingSession"), kafka.topics.quarantine}
    ids = [dict(each.headers)["ce_id"].decode().partition(":")[0] for each in batch.records if each.topic in wanted]
    return set(ids)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stories())
def test_every_event_once_in_order_and_no_position_ahead(story: Story) -> None:
    model = Model(story)

    async def play() -> None:
        await model.play()

    virtual(play())
    hypothesis_event(f"halted by a flood: {model.flooded}")
    committed = model.rig.kafka.event_ids()
    assert committed == model.expected or model.flooded
    bad = [each.event_id for each in story.events if each.payload.startswith(b"bad") and each.event_id in committed]
    assert sorted(model.rig.kafka.restored().windows) == sorted(f"quarantine:{each}" for each in bad) or story.ends


def test_the_model_tells_a_position_that_is_ahead() -> None:
    """A model that finds nothing would pass everything."""
    story = Story((event(1), event(2), event(3)), (), (), {}, {}, Limits(10, 1000, 0, 10), 1)

    async def play() -> None:
        model = Model(story)
        await model.play()
        batch = model.rig.kafka.batches[-1]
        model.rig.kafka.batches.insert(0, replace(batch, records=(), position=replace(batch.position, beyond=("e9",))))
        try:
            model.check()
        except AssertionError:
            return
        raise AssertionError("not found")

    virtual(play())
    assert replay_id(1) == story.items[0].replay_id
