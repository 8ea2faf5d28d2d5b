"""The partition of a key, as Kafka's Java client chooses it, so that other producers' records meet ours.

The algorithm is 32-bit MurmurHash2 with Kafka's seed (Kafka ``Utils.murmur2``); the sign bit is cut off, not
negated (``Utils.toPositive``).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_RECORD_ID_CHARS = 18
_RECORD_ID_SEED = _SEED ^ _RECORD_ID_CHARS
_unpack_record_id = Struct("<4IH").unpack


def murmur2(data: bytes) -> int:
    """Return the unsigned 32-bit MurmurHash2 of ``data`` with Kafka's seed."""
    length = len(data)
    if length == _RECORD_ID_CHARS:
        return _murmur2_of_record_id(data)
    hashed = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ ((word ^ word >> 24) * _M & _MASK)
    if whole != length:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15


def _murmur2_of_record_id(data: bytes) -> int:
    """Hash 18 bytes without a loop: nearly every key is a record id, and this is three times faster."""
    a, b, c, d, tail = _unpack_record_id(data)
    a = a * _M & _MASK
    b = b * _M & _MASK
    c = c * _M & _MASK
    d = d * _M & _MASK
    hashed = (_RECORD_ID_SEED * _M & _MASK) ^ ((a ^ a >> 24) * _M & _MASK)
    hashed = (hashed * _M & _MASK) ^ ((b ^ b >> 24) * _M & _MASK)
    hashed = (hashed * _M & _MASK) ^ ((c ^ c >> 24) * _M & _MASK)
    hashed = (hashed * _M & _MASK) ^ ((d ^ d >> 24) * _M & _MASK)
    hashed = (hashed ^ tail) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    result: int = hashed ^ hashed >> 15
    return result


@lru_cache(maxsize=1 << 16)
def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition, from zero, of a key in a topic of ``partitions`` partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
