"""Who trains, who validates and who tests: by patient, drawn by seed, alike in what is annotated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Features = frozenset[str]
"""What a patient's cases have and lack, such as ``+MR`` and ``-OpticChiasm``."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Names of cases, sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Splits:
    """``test`` is set apart; the ``folds`` divide ``train``. ``seed`` drew them."""

    seed: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    folds: tuple[Fold, ...]


def make_splits(
    cases: Mapping[str, Features], *, subjects: Mapping[str, str], test_share: float, folds: int, seed: int
) -> Splits:
    """Split the cases, those of one subject together (an empty subject is a person of its own).

    With fewer patients than folds there are as many folds as patients; with a single one there are none.
    """
    rng = np.random.default_rng(seed)
    people = _people(cases, subjects)
    features = {person: frozenset().union(*(cases[name] for name in names)) for person, names in people.items()}
    train, test = spread(features, (1 - test_share, test_share), rng)
    count = min(folds, len(train))
    parts = spread({person: features[person] for person in train}, (1 / count,) * count, rng) if count > 1 else []
    everyone = _names(people, train)
    held = [_names(people, part) for part in parts]
    folded = tuple(Fold(tuple(name for name in everyone if name not in part), part) for part in held)
    return Splits(seed, everyone, _names(people, test), folded)


def spread(
    items: Mapping[str, Features], shares: Sequence[float], rng: np.random.Generator
) -> tuple[tuple[str, ...], ...]:
    """Items into parts of those shares, each feature in the same shares as far as it goes, the rarest first.

    Iterative stratification, Sechidis et al. 2011 (doi:10.1007/978-3-642-23808-6_10).
    """
    left = [str(name) for name in rng.permutation(sorted(items))]
    counts = Counter(feature for features in items.values() for feature in features)
    wanted = {feature: [share * count for share in shares] for feature, count in counts.items()}
    room = [share * len(left) for share in shares]
    parts: list[list[str]] = [[] for _ in shares]
    while left:
        feature = _rarest([items[name] for name in left])
        for name in [name for name in left if feature is None or feature in items[name]]:
            need = wanted[feature] if feature else room
            best = max(range(len(parts)), key=lambda part: (round(need[part], 9), round(room[part], 9), -part))
            parts[best].append(name)
            left.remove(name)
            room[best] -= 1
            for other in items[name]:
                wanted[other][best] -= 1
    return tuple(tuple(sorted(part)) for part in parts)


def _rarest(features: Sequence[Features]) -> str | None:
    counts = Counter(feature for some in features for feature in some)
    return min(counts, key=lambda feature: (counts[feature], feature), default=None)


def _people(cases: Mapping[str, Features], subjects: Mapping[str, str]) -> dict[str, list[str]]:
    people: dict[str, list[str]] = {}
    for name in sorted(cases):
        people.setdefault(subjects.get(name) or f"case {name}", []).append(name)
    return people


def _names(people: Mapping[str, Sequence[str]], some: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(name for person in some for name in people[person]))
