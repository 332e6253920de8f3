"""Frozen dataclasses ↔ the plain values of JSON and YAML. Unknown keys are refused, with the nearest known one."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hnseg.errors import ConfigError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Dataclasses become dictionaries, tuples lists, enums their values; the rest stays."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def from_plain(kind: type[T], data: Any, *, where: str) -> T:
    """The dataclass ``kind`` from a mapping; ``where`` names the source in messages.

    Understands nested dataclasses, ``tuple[X, …]``, ``tuple[X, Y]``, ``dict[str, X]``, ``X | None``, enums, literals,
    plain scalars. Raises ``ConfigError`` on an unknown or missing key and on a value of another type.
    """
    return cast(T, _dataclass(kind, data, where))


def _dataclass(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} needs named values, got {type(data).__name__}; write it as key: value pairs.")
    known = {field.name: field for field in fields(kind) if field.init}
    for key in data:
        if key not in known:
            raise ConfigError(f"{where} has no setting {key!r}; {nearest(str(key), known)}")
    for name, field in known.items():
        if name not in data and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{where} lacks the setting {name!r}; add it.")
    hints = get_type_hints(kind)
    return kind(**{key: _value(hints[key], item, f"{where}, {key}") for key, item in data.items()})


def nearest(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The end of a sentence: the nearest known name, or all of them."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."


def _value(kind: Any, item: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return item
    if origin in (Union, types.UnionType):
        return _either(arguments, item, where)
    if is_dataclass(kind):
        return _dataclass(kind, item, where)
    if origin is tuple:
        return _tuple(arguments, item, where)
    if origin in (dict, Mapping):
        return {key: _value(arguments[1], entry, f"{where}, {key}") for key, entry in _mapping(item, where).items()}
    if origin is Literal:
        return _choice(arguments, item, where)
    return _member(kind, item, where) if issubclass(kind, Enum) else _scalar(kind, item, where)


def _either(kinds: tuple[Any, ...], item: Any, where: str) -> Any:
    if item is None and type(None) in kinds:
        return None
    first, *others = (kind for kind in kinds if kind is not type(None))
    try:
        return _value(first, item, where)
    except ConfigError:
        if not others:
            raise
        return _either(tuple(others), item, where)


def _tuple(kinds: tuple[Any, ...], item: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(item, (list, tuple)):
        raise ConfigError(f"{where} needs a list, got {item!r}; write it in brackets.")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(item)
    if len(kinds) != len(item):
        raise ConfigError(f"{where} needs {len(kinds)} values, got {len(item)}; correct the list.")
    return tuple(
        _value(kind, entry, f"{where}, {n + 1}") for n, (kind, entry) in enumerate(zip(kinds, item, strict=True))
    )


def _mapping(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise ConfigError(f"{where} needs named values, got {item!r}; write it as key: value pairs.")
    return item


def _choice(choices: tuple[Any, ...], item: Any, where: str) -> Any:
    if item not in choices:
        raise ConfigError(f"{where} is {item!r}; use one of {', '.join(map(repr, choices))}.")
    return item


def _member(kind: type[Enum], item: Any, where: str) -> Enum:
    return kind(_choice(tuple(member.value for member in kind), item, where))


def _scalar(kind: type, item: Any, where: str) -> Any:
    if kind is float and isinstance(item, int) and not isinstance(item, bool):
        return float(item)
    if kind is float and isinstance(item, str) and (parts := _EXPONENT.fullmatch(item)):
        whole, rest, sign, exponent = parts.groups()
        written = f"{whole}{rest or '.0'}e{sign or '+'}{exponent}"
        raise ConfigError(f"{where} needs a number, got {item!r}, which YAML takes for text; write {written}.")
    if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
        raise ConfigError(f"{where} needs {_WORDS.get(kind, kind.__name__)}, got {item!r}; correct the value.")
    return item


_EXPONENT = re.compile(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)")
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
