"""What every kind of fault and act is: a validated value with one line that describes it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Entity = Annotated[str, Field(min_length=1)]


class Fault(BaseModel):
    """Base of all kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    kind: ClassVar[str]

    @classmethod
    def summary(cls) -> str:
        """Return the one line that describes the kind, with its parameters."""
        line = (cls.__doc__ or "").partition("\n")[0]
        fields = ", ".join(
            name if field.is_required() else f"{name}={field.get_default(call_default_factory=True)!r}"
            for name, field in cls.model_fields.items()
        )
        return f"{line} ({fields})" if fields else line


def faults_of(error: ValidationError, prefix: str = "") -> list[str]:
    """Return one sentence for each fault pydantic found, without the values."""
    sentences = []
    for fault in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        sentences.append(f"{prefix}{where}: {message}" if where else f"{prefix}{message}")
    return sentences
