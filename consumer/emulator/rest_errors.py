"""The refusals of the emulated org's REST API: an HTTP status and the error array of the REST API guide."""

from __future__ import annotations

from typing import Any


class RestError(Exception):
    """A request is refused; becomes ``[{"message", "errorCode"[, "fields"]}]``.

    Attributes:
        status: HTTP status.
        code: the guide's errorCode.
        message: its text.
        fields: names of the fields at fault.
    """

    def __init__(self, status: int, code: str, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields

    def body(self) -> list[dict[str, Any]]:
        """Return the answer's JSON."""
        fault: dict[str, Any] = {"message": self.message, "errorCode": self.code}
        if self.fields:
            fault["fields"] = list(self.fields)
        return [fault]


def malformed(message: str) -> RestError:
    """Return the refusal of a query that is no SOQL."""
    return RestError(400, "MALFORMED_QUERY", message)


def invalid_field(message: str) -> RestError:
    """Return the refusal of a field that is unknown, hidden, or not allowed where it stands."""
    return RestError(400, "INVALID_FIELD", message)


def invalid_type(name: str) -> RestError:
    """Return the refusal of an unknown object."""
    return RestError(
        400,
        "INVALID_TYPE",
        f"sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to append "
        "the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names.",
    )


def not_found(message: str = "The requested resource does not exist") -> RestError:
    """Return the refusal of a path or id that leads nowhere."""
    return RestError(404, "NOT_FOUND", message)


def locator_gone(message: str = "invalid query locator") -> RestError:
    """Return the refusal of a query cursor that is unknown, expired or pushed out by newer ones."""
    return RestError(400, "INVALID_QUERY_LOCATOR", message)


def no_access(name: str) -> RestError:
    """Return the refusal of an object that the user has no permission for."""
    return RestError(403, "INSUFFICIENT_ACCESS", f"insufficient access rights on object: {name}")
