"""Parts of organs far from their place, in scans whose organs are boxes at places worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hnseg.errors import ConfigError
from hnseg.image.grid import Grid
from hnseg.image.volume import Volume
from hnseg.inference.postprocess import FAR, Removal, postprocess
from hnseg.models.metadata import Atlas, PostprocessSettings
from hnseg.organs import BY_NAME

# Asymmetric on purpose: no two organs mirror each other, and none lies at the origin.
CENTRES = {
    "Eye_PL": (32.0, -70.0, 18.0),
    "Eye_PR": (-30.0, -68.0, 21.0),
    "Brainstem": (1.0, 6.0, 5.0),
    "Parotid_L": (57.0, 2.0, -22.0),
    "Lips": (-2.0, -90.0, -52.0),
    "Larynx_SG": (3.0, -20.0, -106.0),
    "Glnd_Thyroid": (-3.0, -17.0, -150.0),
    "SpinalCord": (0.0, 24.0, -105.0),
}
SIZES = {
    "Eye_PL": (24.0, 20.0, 24.0),
    "Eye_PR": (24.0, 20.0, 24.0),
    "Brainstem": (28.0, 28.0, 60.0),
    "Parotid_L": (32.0, 32.0, 52.0),
    "Lips": (56.0, 20.0, 36.0),
    "Larynx_SG": (28.0, 24.0, 32.0),
    "Glnd_Thyroid": (52.0, 28.0, 48.0),
    "SpinalCord": (12.0, 20.0, 160.0),
}
ATLAS = Atlas(CENTRES, SIZES)
RULE = PostprocessSettings(largest_parts=False, fill_holes=False, inside_body=False, check_sides=False)
AT = np.array([40.0, -25.0, 900.0])
"""Where the atlas's origin lies in the scans."""
GRID = Grid((47, 60, 78), (6.0, 5.0, 7.0), (-100.0, -200.0, 500.0))
FEET_FIRST = Grid((47, 78, 60), (6.0, 7.0, 5.0), (176.0, 95.0, 1039.0), (-1, 0, 0, 0, 0, -1, 0, -1, 0))
UPRIGHT = Rotation.identity()

Box = tuple[str, tuple[float, float, float], tuple[float, float, float]]


def scan(*extra: Box, turned: Rotation = UPRIGHT, grid: Grid = GRID, names: tuple[str, ...] = tuple(CENTRES)) -> Volume:
    """Every organ as its box in a patient whose atlas is ``turned`` about its origin at ``AT``, and further boxes
    (organ, centre in the atlas, size).
    """
    k, j, i = np.indices(grid.shape_kji)
    where = (grid.to_lps(np.stack([i, j, k], axis=-1)) - AT) @ turned.as_matrix()
    labels = np.zeros(grid.shape_kji, np.uint8)
    for name, centre, size in [*((name, CENTRES[name], SIZES[name]) for name in names), *extra]:
        labels[(np.abs(where - centre) <= np.asarray(size) / 2).all(axis=-1)] = BY_NAME[name].label
    return Volume(labels, grid)


def organs_left(labels: Volume, settings: PostprocessSettings = RULE) -> tuple[Volume, dict[str, float]]:
    after, removals = postprocess(labels, settings, atlas=ATLAS)
    assert {removal.reason for removal in removals} <= {FAR}
    return after, {removal.organ: removal.ml for removal in removals}


FALSE_STEM: Box = ("Brainstem", (10.0, -20.0, -240.0), (40.0, 40.0, 60.0))  # in the shoulders, larger than the true one


@pytest.mark.parametrize("grid", [GRID, FEET_FIRST])
def test_a_part_far_away_goes_although_it_is_the_larger_one_and_is_reported(grid: Grid) -> None:
    true, strewn = scan(grid=grid), scan(FALSE_STEM, grid=grid)
    after, removals = postprocess(strewn, RULE, atlas=ATLAS)
    np.testing.assert_array_equal(after.array_kji, true.array_kji)
    lost = np.count_nonzero(strewn.array_kji) - np.count_nonzero(true.array_kji)
    assert removals == (Removal("Brainstem", pytest.approx(lost * 0.21), FAR),)  # type: ignore[arg-type]
    assert removals[0].ml > 80


@pytest.mark.parametrize("degrees", [(30, 0, 0), (-30, 0, 0), (0, 25, 0), (0, 0, 40), (-20, 15, -25)])
def test_a_turned_or_tilted_head_keeps_its_organs_and_loses_the_false_part(degrees: tuple[float, ...]) -> None:
    turned = Rotation.from_euler("xyz", degrees, degrees=True)
    after, removed = organs_left(scan(FALSE_STEM, turned=turned))
    np.testing.assert_array_equal(after.array_kji, scan(turned=turned).array_kji)
    assert set(removed) == {"Brainstem"}


@pytest.mark.parametrize("bent", [-30, 30])
def test_a_neck_that_is_bent_against_the_head_keeps_its_organs(bent: float) -> None:
    """Everything below z = −60 turns about (0, 20, −60), as far as a neck bends."""
    neck, hinge = Rotation.from_euler("x", bent, degrees=True), np.array([0.0, 20.0, -60.0])
    below = {name: tuple(neck.apply(np.subtract(at, hinge)) + hinge) for name, at in CENTRES.items() if at[2] < -60}
    moved = [(name, at, (20.0, 20.0, 30.0)) for name, at in below.items()]
    above = tuple(name for name in CENTRES if name not in below)
    labels = scan(*moved, names=above)
    assert organs_left(labels)[1] == {}
    assert set(organs_left(scan(*moved, FALSE_STEM, names=above))[1]) == {"Brainstem"}


@pytest.mark.parametrize(("low", "high"), [(0, 51), (43, 78), (56, 78)])
def test_a_scan_that_ends_within_organs_keeps_what_it_shows_of_them(low: int, high: int) -> None:
    shown = scan().cropped((0, 0, low), (47, 60, high - low))
    assert organs_left(shown)[1] == {}


def test_an_organ_that_is_found_nowhere_but_far_away_goes_as_a_whole() -> None:
    """A true one in reach would have been kept; its place is within the scan, and six organs tell it."""
    others = tuple(name for name in CENTRES if name != "Brainstem")
    after, removed = organs_left(scan(FALSE_STEM, names=others))
    assert set(removed) == {"Brainstem"}
    np.testing.assert_array_equal(after.array_kji, scan(names=others).array_kji)


def test_a_long_organ_may_run_on_and_have_gaps() -> None:
    on = ("SpinalCord", (0.0, 24.0, -290.0), (12.0, 20.0, 180.0))  # begins 15 mm below the cord's end
    assert organs_left(scan(on))[1] == {}
    far = ("SpinalCord", (0.0, 24.0, -330.0), (12.0, 20.0, 60.0))  # 115 mm below it
    assert set(organs_left(scan(far))[1]) == {"SpinalCord"}


def test_an_organ_may_lie_as_far_from_its_place_as_people_differ() -> None:
    others = tuple(name for name in CENTRES if name != "Parotid_L")
    for shift, goes in ((20.0, False), (125.0, True)):
        x, y, z = CENTRES["Parotid_L"]
        moved = ("Parotid_L", (x, y, z + shift), SIZES["Parotid_L"])
        assert bool(organs_left(scan(moved, names=others))[1]) is goes


def test_where_few_organs_were_found_or_most_disagree_nothing_is_judged() -> None:
    few = scan(FALSE_STEM, names=("Brainstem", "Eye_PL", "Eye_PR", "Lips"))
    assert organs_left(few)[1] == {}, "three others are not enough"
    rng = np.random.default_rng(3)
    strewn = [(name, tuple(rng.uniform((-120, -120, -380), (110, 60, 130))), (16.0, 16.0, 20.0)) for name in CENTRES]
    assert organs_left(scan(*strewn, names=()))[1] == {}


def test_without_an_atlas_or_with_the_rule_off_nothing_is_judged() -> None:
    labels = scan(FALSE_STEM)
    assert postprocess(labels, RULE)[1] == ()
    assert postprocess(labels, RULE, atlas=Atlas(CENTRES, {}))[1] == ()
    assert organs_left(labels, replace(RULE, near_place=False))[1] == {}


def test_the_part_at_its_place_is_the_one_that_stays_when_only_the_largest_may() -> None:
    after, removals = postprocess(scan(FALSE_STEM), replace(RULE, largest_parts=True), atlas=ATLAS)
    np.testing.assert_array_equal(after.array_kji, scan().array_kji)
    assert [removal.reason for removal in removals] == [FAR]


def test_settings_without_slack_are_refused() -> None:
    with pytest.raises(ConfigError, match="place_slack_mm is more than 0"):
        PostprocessSettings(place_slack_mm=0.0)


GULLET = {
    "Cricopharyngeus": ((0.0, -8.0, -128.0), (24.0, 20.0, 21.0)),
    "Esophagus_S": ((0.0, -4.0, -166.0), (24.0, 20.0, 56.0)),
}


def test_what_was_drawn_as_one_is_named_by_where_it_lies_and_reported() -> None:
    atlas = Atlas(
        {**CENTRES, **{name: centre for name, (centre, _) in GULLET.items()}},
        {**SIZES, **{name: size for name, (_, size) in GULLET.items()}},
    )
    inlet, below = (("Cricopharyngeus", *GULLET[name]) for name in GULLET)
    seen = scan(inlet, below)  # the network calls all of it the inlet
    true = scan(inlet, ("Esophagus_S", *GULLET["Esophagus_S"]))
    after, removals = postprocess(seen, replace(RULE, joined=(("Esophagus_S", "Cricopharyngeus"),)), atlas=atlas)
    wrong = np.argwhere(after.array_kji != true.array_kji)
    inlet_ends = AT[2] + GULLET["Cricopharyngeus"][0][2] - GULLET["Cricopharyngeus"][1][2] / 2
    assert np.abs(GRID.to_lps(wrong[:, ::-1])[:, 2] - inlet_ends).max() <= RULE.place_slack_mm / 2 + GRID.spacing_mm[2]
    assert 0 < len(wrong) < 0.5 * (true.array_kji == BY_NAME["Esophagus_S"].label).sum()
    (moved,) = removals
    assert moved.organ == "Cricopharyngeus"
    assert "Esophagus_S" in moved.reason
    kept, none = postprocess(seen, RULE, atlas=atlas)
    assert none == ()
    np.testing.assert_array_equal(kept.array_kji, seen.array_kji)
