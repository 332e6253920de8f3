"""How every request becomes JSON and comes back."""

from __future__ import annotations

from typing import Any, Self

from hnseg.plain import from_plain, to_plain


class JsonRequest:
    """Base of the request dataclasses; the fields are the keys."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """From plain values; ``ConfigError`` names an unknown key and the nearest known one."""
        return from_plain(cls, data, where="The request")
