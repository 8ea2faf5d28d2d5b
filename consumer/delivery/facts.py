"""What records of facts of one object have in common: topic, headers, times."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.delivery.headers import HeaderTemplate, iso_utc
from consumer.delivery.names import Topics


@dataclass(frozen=True, slots=True)
class Route:
    """Where the records of one kind and object go."""

    topic: str
    headers: HeaderTemplate


class Routes:
    """Routes of one kind of topic, by object.

    Args:
        org_id: 18-character org id.
        topics: the deployment's topic names.
        kind: topic kind, such as ``sharing``.
    """

    def __init__(self, org_id: str, topics: Topics, kind: str) -> None:
        self._org_id = org_id
        self._topics = topics
        self._kind = kind
        self._routes: dict[str, Route] = {}

    def of(self, entity: str) -> Route:
        """Return an object's route.

        Raises:
            ConfigError: the object's name is not one that a topic can have.
        """
        route = self._routes.get(entity)
        if route is None:
            headers = HeaderTemplate(self._org_id, entity, self._kind)
            route = self._routes[entity] = Route(self._topics.of(entity, self._kind), headers)
        return route


def time_text(ms: int | None) -> str | None:
    """Return epoch milliseconds as ISO 8601 UTC text, None for none."""
    return None if ms is None else iso_utc(ms)
