"""The part of SOQL that the emulated org understands, as a tree.

``SELECT`` of fields, one relationship deep, or ``COUNT()``; ``WHERE`` with comparisons, ``LIKE``, ``IN``, ``NOT``,
``AND``, ``OR`` and parentheses; ``ORDER BY``; ``LIMIT`` and ``OFFSET``. As in the real one, ``AND`` and ``OR`` mix
only with parentheses. A subquery can stand among the fields. No date functions such as ``LAST_N_DAYS:3``, aggregates,
subqueries in WHERE, aliases or TYPEOF.
Source: SOQL and SOSL reference.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from consumer.emulator.rest_errors import RestError, malformed

MAX_LENGTH: Final = 100_000
"""Most characters of a statement."""

Kind: TypeAlias = Literal["text", "number", "boolean", "null", "datetime", "date", "time"]
Comparison: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "LIKE", "IN", "NOT IN"]


@dataclass(frozen=True, slots=True)
class Value:
    """A literal.

    Attributes:
        kind: what was written.
        value: text, number, boolean, None, or epoch milliseconds (times: of the day).
        raw: how a text was written, without its quotes; LIKE reads its escapes itself.
    """

    kind: Kind
    value: str | int | float | bool | None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Compare:
    """One field against one literal, or several for IN."""

    field: str
    op: Comparison
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    item: Condition


@dataclass(frozen=True, slots=True)
class Group:
    """All (AND) or any (OR) of several conditions."""

    op: Literal["AND", "OR"]
    items: tuple[Condition, ...]


Condition: TypeAlias = Compare | Not | Group


@dataclass(frozen=True, slots=True)
class Order:
    """One sort key; nulls come first unless asked otherwise."""

    field: str
    descending: bool = False
    nulls_last: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed statement.

    Attributes:
        fields: paths as written; empty for COUNT().
        entity: object as written.
        limit: None without LIMIT.
        children: subqueries of child relationships; their ``entity`` is the relationship.
    """

    fields: tuple[str, ...]
    entity: str
    where: Condition | None = None
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    children: tuple[Query, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it asks for COUNT() only."""
        return not self.fields and not self.children


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


_TOKENS: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>'(?:[^'\\]|\\.)*')
    |(?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
    |(?P<date>\d{4}-\d\d-\d\d(?![\dT]))
    |(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?Z)
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    |(?P<sign><=|>=|!=|<>|[=<>(),])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_COMPARISONS: Final[dict[str, Comparison]] = {
    "=": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
_KEYWORDS: Final = frozenset(
    {"SELECT", "FROM", "WHERE", "AND", "OR", "NOT", "IN", "LIKE", "ORDER", "BY", "LIMIT", "OFFSET", "GROUP", "HAVING"}
)
_MAX_DEPTH: Final = 50


def parse(text: str) -> Query:
    """Read a statement.

    Raises:
        RestError: MALFORMED_QUERY, with the place.
    """
    if len(text) > MAX_LENGTH:
        raise malformed(f"SOQL statements cannot be longer than {MAX_LENGTH} characters.")
    return _Parser(text).query()


def unescape(raw: str, *, like: bool = False) -> str:
    """Return what an escaped text means; ``like`` keeps the backslash before its two wildcards.

    Raises:
        RestError: MALFORMED_QUERY, unknown escape.
    """

    def one(found: re.Match[str]) -> str:
        code = found.group(1)
        if code[0] == "u" and len(code) == 5:
            return chr(int(code[1:], 16))
        if like and code in {"%", "_"}:
            return found.group(0)
        if code not in _ESCAPES:
            raise malformed(f"Illegal string literal: Invalid string literal '{raw}'. Illegal character sequence")
        return _ESCAPES[code]

    return re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", one, raw, flags=re.DOTALL)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    while place < len(text):
        match = _TOKENS.match(text, place)
        if match is None:
            raise _unexpected(text, text[place], place)
        kind = str(match.lastgroup)
        if kind != "space":
            found.append(_Token(kind, match.group(), place))
        place = match.end()
    return [*found, _Token("end", "<EOF>", len(text))]


def _unexpected(text: str, token: str, place: int) -> RestError:
    before = text[max(0, place - 30) : place + 20].replace("\n", " ")
    pointer = " " * (min(place, 30)) + "^"
    return malformed(f"\n{before}\n{pointer}\nERROR at Row:1:Column:{place + 1}\nunexpected token: '{token}'")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def query(self) -> Query:
        found = self._select(inner=False)
        if self._peek().kind != "end":
            raise self._fault()
        return found

    def _select(self, *, inner: bool) -> Query:
        self._word("SELECT")
        fields, children = self._fields(inner=inner)
        self._word("FROM")
        # Group is an object too.
        entity = self._take().text if self._peek().text.upper() == "GROUP" else self._name()
        where = self._condition() if self._takes("WHERE") else None
        order: tuple[Order, ...] = ()
        if self._takes("ORDER"):
            self._word("BY")
            order = self._orders()
        limit = self._whole() if self._takes("LIMIT") else None
        offset = self._whole() if self._takes("OFFSET") else 0
        if offset > 2000:
            raise RestError(400, "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        return Query(fields, entity, where, order, limit, offset, children)

    def _fields(self, *, inner: bool) -> tuple[tuple[str, ...], tuple[Query, ...]]:
        if self._peek().text.upper() == "COUNT" and self._tokens[self._next + 1].text == "(":
            self._next += 2
            self._sign(")")
            return (), ()
        names: list[str] = []
        children: list[Query] = []
        while True:
            if not inner and self._takes("("):
                children.append(self._select(inner=True))
                self._sign(")")
            else:
                names.append(self._name())
            if not self._takes(","):
                break
        folded = [name.lower() for name in (*names, *(child.entity for child in children))]
        double = next((name for place, name in enumerate(folded) if folded.index(name) != place), None)
        if double is not None:
            raise malformed(f"duplicate field selected: {double}")
        return tuple(names), tuple(children)

    def _condition(self) -> Condition:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise malformed("The query is nested too deeply.")
        items = [self._term()]
        op = self._peek().text.upper()
        if op in {"AND", "OR"}:
            # The other of the two is left over here, and refused as the token that nobody expects.
            while self._takes(op):
                items.append(self._term())
        self._depth -= 1
        if len(items) == 1:
            return items[0]
        return Group("AND" if op == "AND" else "OR", tuple(items))

    def _term(self) -> Condition:
        if self._takes("NOT"):
            return Not(self._term())
        if self._takes("("):
            inner = self._condition()
            self._sign(")")
            return inner
        return self._compare(self._name())

    def _compare(self, name: str) -> Compare:
        token = self._take()
        word = token.text.upper()
        if token.kind == "sign" and token.text in _COMPARISONS:
            return Compare(name, _COMPARISONS[token.text], (self._value(),))
        if word == "LIKE":
            return Compare(name, "LIKE", (self._value(like=True),))
        if word == "IN":
            return Compare(name, "IN", self._list())
        if word == "NOT":
            self._word("IN")
            return Compare(name, "NOT IN", self._list())
        raise self._fault(token)

    def _list(self) -> tuple[Value, ...]:
        self._sign("(")
        values = [self._value()]
        while self._takes(","):
            values.append(self._value())
        self._sign(")")
        return tuple(values)

    def _value(self, *, like: bool = False) -> Value:
        token = self._take()
        if token.kind == "text":
            raw = token.text[1:-1]
            return Value("text", unescape(raw, like=like), raw)
        if token.kind == "number":
            plain = re.fullmatch(r"[+-]?\d+", token.text)
            return Value("number", int(token.text) if plain else float(token.text))
        try:
            if token.kind == "datetime":
                return Value("datetime", _moment_ms(dt.datetime.fromisoformat(token.text)))
            if token.kind == "date":
                day = dt.datetime.fromisoformat(token.text).replace(tzinfo=dt.UTC)
                return Value("date", _moment_ms(day))
            if token.kind == "time":
                at = dt.time.fromisoformat(token.text.removesuffix("Z"))
                return Value("time", ((at.hour * 60 + at.minute) * 60 + at.second) * 1000 + at.microsecond // 1000)
        except ValueError:
            raise self._fault(token) from None
        word = token.text.upper()
        if token.kind != "name" or word not in {"TRUE", "FALSE", "NULL"}:
            raise self._fault(token)
        return Value("null", None) if word == "NULL" else Value("boolean", value=word == "TRUE")

    def _orders(self) -> tuple[Order, ...]:
        orders = [self._order()]
        while self._takes(","):
            orders.append(self._order())
        return tuple(orders)

    def _order(self) -> Order:
        name = self._name()
        descending = self._takes("DESC")
        if not descending:
            self._takes("ASC")
        nulls_last = False
        if self._takes("NULLS"):
            nulls_last = self._takes("LAST")
            if not nulls_last:
                self._word("FIRST")
        return Order(name, descending, nulls_last)

    def _whole(self) -> int:
        token = self._take()
        if not token.text.isdigit():
            raise self._fault(token)
        return int(token.text)

    def _name(self) -> str:
        token = self._take()
        if token.kind != "name" or token.text.upper() in _KEYWORDS:
            raise self._fault(token)
        return token.text

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind == "end":
            raise self._fault(token)
        self._next += 1
        return token

    def _takes(self, text: str) -> bool:
        token = self._peek()
        if token.kind in {"name", "sign"} and token.text.upper() == text:
            self._next += 1
            return True
        return False

    def _word(self, word: str) -> None:
        if not self._takes(word):
            raise self._fault()

    _sign = _word

    def _fault(self, token: _Token | None = None) -> RestError:
        token = token or self._peek()
        return _unexpected(self._text, token.text, token.place)


def _moment_ms(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
