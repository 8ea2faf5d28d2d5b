"""Values that are frozen for the type checker, and cheap to make.

``dataclass(frozen=True)`` sets each field through ``object.__setattr__``, which costs ten times as much; an event makes
some hundred fields. Strict mypy, which ``make check`` runs, refuses an assignment to a field of these all the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def frozen(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """Make a slotted dataclass whose instances are never changed.

    Args:
        eq: whether instances are equal, and hashed, by their fields; otherwise by identity.
    """

    def made(cls: type[T]) -> type[T]:
        return dataclasses.dataclass(slots=True, eq=eq, unsafe_hash=eq)(cls)

    return made
