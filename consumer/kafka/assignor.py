"""Who runs which subscription: every partition stays where it is as long as its worker lives.

The client's own strategies sort workers by random member ids, so that a standby that merely starts could take a
running subscription over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

NAME = "session-consumer-stay"
_VERSION = 0


def spread(owned: Mapping[str, frozenset[int]], partitions: Iterable[int]) -> dict[str, list[int]]:
    """Return each worker's partitions: what it owned, then free ones to whoever has least.

    Args:
        owned: what each worker says it owns, by member id; workers that are new own nothing.
        partitions: all partitions.
    """
    result: dict[str, list[int]] = {member: [] for member in sorted(owned)}
    for partition in sorted(partitions):
        owners = [member for member in result if partition in owned[member]]
        # Two owners: one of them was away. Fencing keeps that safe, whichever is chosen.
        chosen = owners[0] if owners else None
        if chosen is not None:
            result[chosen].append(partition)
    for partition in sorted(set(partitions) - {each for several in result.values() for each in several}):
        result[min(result, key=lambda member: len(result[member]))].append(partition)
    return {member: sorted(several) for member, several in result.items()}


def encode_owned(partitions: Iterable[int]) -> bytes:
    """Return what a worker tells the group about itself."""
    return ",".join(str(each) for each in sorted(partitions)).encode()


def decode_owned(data: bytes) -> frozenset[int]:
    """Return what a worker owns; what can't be read, by a later version perhaps, is nothing."""
    parts = (data or b"").decode("ascii", "replace").split(",")
    return frozenset(int(part) for part in parts if part.isdigit())


def stay_assignor(member_id: Callable[[], str]) -> type[Any]:
    """Return an assignor class of its own for one consumer: the client keeps no assignor instances.

    Args:
        member_id: gives the consumer's present id in the group. A worker that was frozen comes back under a new id
            and claims nothing: what it owned belongs to its successor by now.
    """

    class Stay(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka ships no types
        """Assigns one topic's partitions by :func:`spread`."""

        name = NAME
        owned: frozenset[int] = frozenset()
        owner = ""

        @classmethod
        def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
            topics = {topic for each in members.values() for topic in each.subscription}
            result: dict[str, list[tuple[str, list[int]]]] = {member: [] for member in members}
            for topic in sorted(topics):
                owned = {member: decode_owned(each.user_data) for member, each in members.items()}
                for member, several in spread(owned, cluster.partitions_for_topic(topic) or ()).items():
                    result[member].append((topic, several))
            return {
                member: ConsumerProtocolMemberAssignment(_VERSION, several, b"") for member, several in result.items()
            }

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> Any:
            owned = cls.owned if cls.owner == member_id() else ()
            return ConsumerProtocolMemberMetadata(_VERSION, list(topics), encode_owned(owned))

        @classmethod
        def on_assignment(cls, assignment: Any) -> None:
            cls.owned = frozenset(pair.partition for pair in assignment.partitions())
            cls.owner = member_id()

    return Stay
