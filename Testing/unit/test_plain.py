from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest

from hnseg.errors import ConfigError
from hnseg.plain import from_plain, to_plain


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Leaf:
    width_mm: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    leaf: Leaf
    pair: tuple[int, float] = (1, 2.0)
    table: dict[str, Leaf] = field(default_factory=dict)
    note: str | None = None
    mode: Literal["quick", "exact"] = "quick"
    colour: Colour = Colour.RED


def tree(**changes: object) -> Tree:
    return from_plain(Tree, {"leaf": {"width_mm": 2}, **changes}, where="tree.yaml")


def test_a_dataclass_survives_the_way_through_plain_values() -> None:
    original = Tree(Leaf(1.5, ("a", "b")), (3, 4.5), {"x": Leaf(0.25)}, "hello", "exact")
    assert from_plain(Tree, to_plain(original), where="tree") == original
    assert to_plain(original)["colour"] == "red"


def test_whole_numbers_pass_for_numbers_but_truth_values_do_not() -> None:
    assert isinstance(tree().leaf.width_mm, float)
    with pytest.raises(ConfigError, match=r"tree.yaml, leaf, width_mm needs a number, got True"):
        tree(leaf={"width_mm": True})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leafs": 1}, r"tree.yaml has no setting 'leafs'; did you mean 'leaf'\?"),
        ({"leaf": {"width_mm": 1, "zzz": 2}}, r"tree.yaml, leaf has no setting 'zzz'; known are names, width_mm"),
        ({"leaf": {}}, "tree.yaml, leaf lacks the setting 'width_mm'"),
        ({"leaf": 3}, "tree.yaml, leaf needs named values, got int"),
        ({"pair": [1]}, "tree.yaml, pair needs 2 values, got 1"),
        ({"pair": 7}, "tree.yaml, pair needs a list, got 7"),
        ({"pair": [1.5, 2]}, "tree.yaml, pair, 1 needs a whole number, got 1.5"),
        ({"note": 5}, "tree.yaml, note needs text, got 5"),
        ({"mode": "slow"}, "tree.yaml, mode is 'slow'; use one of 'quick', 'exact'"),
        ({"table": [1]}, r"tree.yaml, table needs named values, got \[1\]"),
        ({"table": {"x": {"width_mm": "wide"}}}, "tree.yaml, table, x, width_mm needs a number, got 'wide'"),
        ({"colour": "blue"}, "tree.yaml, colour is 'blue'; use one of 'red'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tree(**changes)
