"""Transform nodes against SimpleITK, point by point."""

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk

from hnseg.errors import GeometryMismatch
from hnseg.image.grid import Grid
from hnseg.image.itk import place, to_sitk
from hnseg.image.volume import Volume
from HNSegLib.transforms import add_transform, keep_registration, put_on_ct, registration_of, transform_of
from HNSegLib.volumes import add_volume, volume_of

POINTS = [(0.0, 0.0, 0.0), (10.0, -20.0, 30.0), (-31.5, 7.25, -12.0), (45.0, 44.0, 43.0)]


def rigid(oblique):
    transform = sitk.VersorRigid3DTransform()
    transform.SetMatrix(oblique.ravel().tolist())
    transform.SetCenter((12, -3, 40))
    transform.SetTranslation((5, 60, -17))
    return transform


def bspline():
    image = sitk.Image((20, 20, 20), sitk.sitkUInt8)
    image.SetOrigin((-100, -100, -100))
    image.SetSpacing((10, 10, 10))
    transform = sitk.BSplineTransformInitializer(image, [3, 3, 3])
    transform.SetParameters(np.random.default_rng(1).uniform(-4, 4, len(transform.GetParameters())).tolist())
    return transform


def field():
    image = sitk.Image((30, 30, 30), sitk.sitkVectorFloat64)
    place(image, Grid((30, 30, 30), (8, 8, 8), (-120, -120, -120)))
    z, y, x = np.meshgrid(*[np.arange(30)] * 3, indexing="ij")
    values = np.stack([3 * np.sin(x / 9), 2 * np.cos(y / 8), z / 10], axis=-1)
    filled = sitk.GetImageFromArray(values, isVector=True)
    filled.CopyInformation(image)
    return sitk.DisplacementFieldTransform(filled)


def lps_through(node, point_lps, *, to_parent):
    general = vtk.vtkGeneralTransform()
    ends = (node, None) if to_parent else (None, node)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*ends, general)
    return np.array(general.TransformPoint(np.multiply(point_lps, (-1, -1, 1)))) * (-1, -1, 1)


def test_a_rigid_transform_maps_the_same_points_from_parent_as_in_simpleitk(scene, oblique):
    node = add_transform(scene, rigid(oblique), "CT to MR")
    assert node.IsA("vtkMRMLLinearTransformNode")
    for point in POINTS:
        seen = lps_through(node, point, to_parent=False)
        np.testing.assert_allclose(seen, rigid(oblique).TransformPoint(point), atol=1e-9)


def test_a_hand_worked_shift_moves_the_mr_back_onto_the_ct(scene):
    # CT→MR is +7 mm to the patient's left: what the CT shows at x = 0 the MR shows at x = 7 (LPS).
    node = add_transform(scene, sitk.TranslationTransform(3, (7.0, 0.0, 0.0)), "CT to MR")
    mr = add_volume(scene, Volume(np.zeros((2, 2, 2), np.float32), Grid((2, 2, 2), origin_lps=(7, 0, 0))), "MR")
    mr.SetAndObserveTransformNodeID(node.GetID())
    np.testing.assert_allclose(volume_of(mr).grid.origin_lps, (0, 0, 0), atol=1e-12)


def test_moving_the_mr_by_its_node_shows_what_simpleitk_resamples(scene, oblique, volume):
    transform = rigid(oblique)
    mr = add_volume(scene, volume, "MR")
    mr.SetAndObserveTransformNodeID(add_transform(scene, transform, "CT to MR").GetID())
    moved = volume_of(mr)
    reference = sitk.Image(moved.grid.size_ijk, sitk.sitkUInt8)
    place(reference, moved.grid)
    resampled = sitk.Resample(to_sitk(volume), reference, transform, sitk.sitkLinear, -1000.0)
    np.testing.assert_allclose(sitk.GetArrayFromImage(resampled), moved.array_kji, atol=1)


# Between the nodes of a displacement field VTK interpolates cubically, ITK linearly.
BETWEEN_NODES_MM = 0.01


def test_a_bspline_maps_the_same_points_as_in_simpleitk(scene):
    node = add_transform(scene, bspline(), "deformable")
    for point in POINTS:
        seen = lps_through(node, point, to_parent=False)
        np.testing.assert_allclose(seen, bspline().TransformPoint(point), atol=1e-4)


def test_a_displacement_field_maps_its_nodes_exactly_and_points_between_them_nearly(scene):
    node = add_transform(scene, field(), "deformable")
    for point in [(-40.0, 16.0, 80.0), (0.0, -64.0, 24.0)]:
        seen = lps_through(node, point, to_parent=False)
        np.testing.assert_allclose(seen, field().TransformPoint(point), atol=1e-6)
    for point in POINTS:
        seen = lps_through(node, point, to_parent=False)
        np.testing.assert_allclose(seen, field().TransformPoint(point), atol=BETWEEN_NODES_MM)


def test_a_composite_transform_maps_the_same_points_as_in_simpleitk(scene, oblique):
    composite = sitk.CompositeTransform([rigid(oblique), field()])
    node = add_transform(scene, composite, "both")
    for point in POINTS:
        seen = lps_through(node, point, to_parent=False)
        np.testing.assert_allclose(seen, composite.TransformPoint(point), atol=BETWEEN_NODES_MM)


def test_a_node_gives_back_the_simpleitk_transform_that_made_it(scene, oblique):
    back = transform_of(add_transform(scene, rigid(oblique), "t"))
    for point in POINTS:
        np.testing.assert_allclose(back.TransformPoint(point), rigid(oblique).TransformPoint(point), atol=1e-9)


@pytest.mark.parametrize("make", [bspline, field], ids=["B-spline", "displacement field"])
def test_a_non_linear_node_gives_back_the_simpleitk_transform_that_made_it(scene, make):
    back = transform_of(add_transform(scene, make(), "t"))
    for point in POINTS:
        np.testing.assert_allclose(back.TransformPoint(point), make().TransformPoint(point), atol=1e-4)


def test_a_chain_of_linear_nodes_gives_their_product(scene, oblique):
    inner = add_transform(scene, rigid(oblique), "inner")
    inner.SetAndObserveTransformNodeID(
        add_transform(scene, sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), "outer").GetID()
    )
    # From the world inwards: first the outer node's transform, then the inner one's.
    expected = rigid(oblique).TransformPoint((10 + 1, 20 + 2, 30 + 3))
    np.testing.assert_allclose(transform_of(inner).TransformPoint((10, 20, 30)), expected, atol=1e-9)


def test_a_node_known_from_its_inverse_only_is_refused(scene):
    node = add_transform(scene, field(), "inverse")
    node.Inverse()
    with pytest.raises(GeometryMismatch, match="inverse only"):
        transform_of(node)


def test_a_nested_non_linear_node_is_refused(scene):
    inner = add_transform(scene, field(), "inner")
    inner.SetAndObserveTransformNodeID(
        add_transform(scene, sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), "outer").GetID()
    )
    with pytest.raises(GeometryMismatch, match="nested"):
        transform_of(inner)


@pytest.fixture
def plan(scene):
    return scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Plan")


@pytest.fixture
def mr(scene):
    return add_volume(scene, Volume(np.ones((3, 5, 7), np.float32), Grid((7, 5, 3), (1, 2, 3), (9, 8, 7))), "T1")


def test_a_kept_registration_puts_its_mr_on_the_ct_when_asked(scene, plan, mr, oblique):
    transform = rigid(oblique)
    keep_registration(transform, mr, plan)
    assert mr.GetParentTransformNode() is None
    assert put_on_ct(plan, mr)
    on_ct = volume_of(mr).grid.to_lps((2, 3, 1))
    assert transform.TransformPoint(tuple(on_ct)) == pytest.approx((9 + 2, 8 + 6, 7 + 3))


def test_a_later_registration_takes_the_place_of_the_earlier_one(scene, plan, mr):
    for _ in range(2):
        keep_registration(sitk.TranslationTransform(3, (1, 2, 3)), mr, plan)
    assert scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 1
    assert registration_of(plan).GetName() == "T1 on the CT"


def test_an_mr_under_a_transform_stays_where_its_user_put_it(scene, plan, mr):
    own = add_transform(scene, sitk.TranslationTransform(3, (5, 5, 5)), "by hand")
    mr.SetAndObserveTransformNodeID(own.GetID())
    keep_registration(sitk.TranslationTransform(3, (1, 2, 3)), mr, plan)
    assert registration_of(plan) is None
    assert put_on_ct(plan, mr)
    assert mr.GetParentTransformNode() is own


def test_another_mr_than_the_registered_one_is_left_alone(scene, plan, mr):
    keep_registration(sitk.TranslationTransform(3, (1, 2, 3)), mr, plan)
    other = add_volume(scene, Volume(np.ones((3, 5, 7), np.float32), Grid((7, 5, 3))), "T2")
    assert not put_on_ct(plan, other)
    assert other.GetParentTransformNode() is None
