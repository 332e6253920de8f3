"""Named structures: stacked without loss, merged small-wins, and in files that Slicer understands."""

import gzip
import pickle

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.errors import GeometryMismatch, OutputError, UnknownOrgan, UnreadableFile, UnsupportedImage
from hnseg.image.files import read_volume, write_volume
from hnseg.image.grid import Grid
from hnseg.image.segmentation import Segment, Segmentation, read_segmentation, write_segmentation
from hnseg.image.volume import Volume
from hnseg.organs import BY_NAME, ORGANS


def box(grid, start_kji, stop_kji):
    mask = np.zeros(grid.shape_kji, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(start_kji, stop_kji, strict=True))] = True
    return Volume(mask, grid)


@pytest.fixture
def masks(oblique_grid):
    """The glottis overlaps the supraglottis; the cord and a tumour touch nothing; the chiasm is empty."""
    return {
        "Larynx_SG": box(oblique_grid, (0, 0, 0), (2, 3, 4)),
        "SpinalCord": box(oblique_grid, (0, 4, 0), (3, 5, 2)),
        "Glottis": box(oblique_grid, (1, 1, 2), (3, 3, 6)),
        "OpticChiasm": box(oblique_grid, (0, 0, 0), (0, 0, 0)),
        "GTVp": box(oblique_grid, (2, 4, 5), (3, 5, 7)),
    }


@pytest.fixture
def organ_masks(masks):
    return {name: mask for name, mask in masks.items() if name != "GTVp"}


def assert_same(segmentation, masks):
    assert [segment.name for segment in segmentation.segments] == list(masks)
    for name, mask in masks.items():
        assert np.array_equal(segmentation.mask(name).array_kji, mask.array_kji), name


# Stacking


def test_stacking_masks_and_taking_them_apart_is_the_same_masks(masks):
    assert_same(Segmentation.from_masks(masks), masks)


def test_masks_that_do_not_overlap_share_a_layer(masks):
    segmentation = Segmentation.from_masks(masks)
    assert [segment.layer for segment in segmentation.segments] == [0, 0, 1, 0, 0]
    assert len(segmentation.layers) == 2


def test_organs_get_their_label_colour_and_codes_and_others_a_free_label(masks):
    segmentation = Segmentation.from_masks(masks)
    cord, tumour = segmentation.segment("SpinalCord"), segmentation.segment("GTVp")
    assert (cord.label, cord.rgb) == (30, (244, 214, 49))
    assert "2748008" in cord.tags["TerminologyEntry"]
    assert cord.organ is BY_NAME["SpinalCord"]
    assert tumour.label == 31
    assert tumour.organ is None
    assert "TerminologyEntry" not in tumour.tags


def test_an_alias_becomes_the_organ_and_finds_it(oblique_grid):
    segmentation = Segmentation.from_masks({"OpticNerve_L": box(oblique_grid, (0, 0, 0), (1, 1, 1))})
    assert segmentation.segments[0].name == "OpticNrv_L"
    assert segmentation.mask("opticnrvl").array_kji.sum() == 1


def test_masks_are_not_changed_and_any_nonzero_value_is_inside(oblique_grid):
    array = np.zeros(oblique_grid.shape_kji, np.int16)
    array[1, 2, 3], array[1, 2, 4] = 255, -1
    segmentation = Segmentation.from_masks({"Lips": Volume(array, oblique_grid)})
    assert segmentation.mask("Lips").array_kji.sum() == 2
    assert array[1, 2, 3] == 255


def test_more_strangers_than_a_byte_counts_need_two_bytes():
    grid = Grid((300, 2, 2))
    masks = {f"lesion {n}": box(grid, (0, 0, n), (1, 1, n + 1)) for n in range(260)}
    segmentation = Segmentation.from_masks(masks)
    assert segmentation.layers[0].array_kji.dtype == np.uint16
    assert_same(segmentation, masks)


def test_masks_on_different_grids_are_refused(oblique_grid):
    other = Grid(oblique_grid.size_ijk, oblique_grid.spacing_mm, (10.0, -20.0, 30.1), oblique_grid.direction)
    with pytest.raises(GeometryMismatch, match="mask of Lips lies on another grid"):
        Segmentation.from_masks(
            {"Glottis": box(oblique_grid, (0,) * 3, (1,) * 3), "Lips": box(other, (0,) * 3, (1,) * 3)}
        )


def test_no_masks_and_the_same_organ_twice_are_refused(oblique_grid):
    with pytest.raises(UnsupportedImage, match="no masks"):
        Segmentation.from_masks({})
    mask = box(oblique_grid, (0, 0, 0), (1, 1, 1))
    with pytest.raises(UnsupportedImage, match="Two segments are called OpticNrv_L"):
        Segmentation.from_masks({"OpticNrv_L": mask, "OpticNerve_L": mask})


def test_an_unknown_segment_is_refused_with_those_there_are(masks):
    with pytest.raises(UnknownOrgan, match=r"'Brainstem'; there are Larynx_SG, SpinalCord"):
        Segmentation.from_masks(masks).mask("Brainstem")


@pytest.mark.parametrize(
    ("segments", "layers", "word"),
    [
        ([("a", 0, 1), ("a", 0, 2)], 1, "called a"),
        ([("a", 0, 1), ("b", 0, 1)], 1, "share layer and label"),
        ([("a", 1, 1)], 1, "layer that is not there"),
        ([("a", 0, 1)], 0, "at least one layer"),
    ],
)
def test_a_segmentation_that_contradicts_itself_is_refused(oblique_grid, segments, layers, word):
    empty = Volume(np.zeros(oblique_grid.shape_kji, np.uint8), oblique_grid)
    with pytest.raises(UnsupportedImage, match=word):
        Segmentation(
            (empty,) * layers, tuple(Segment(name, layer, label, (1, 2, 3)) for name, layer, label in segments)
        )


def test_layers_on_different_grids_or_of_another_type_are_refused(oblique_grid):
    empty = Volume(np.zeros(oblique_grid.shape_kji, np.uint8), oblique_grid)
    moved = Volume(empty.array_kji, oblique_grid.cropped((1, 0, 0), oblique_grid.size_ijk))
    with pytest.raises(GeometryMismatch, match="different grids"):
        Segmentation((empty, moved), ())
    with pytest.raises(UnsupportedImage, match="uint8 or uint16"):
        Segmentation((empty.with_array(empty.array_kji.astype(np.int16)),), ())


@pytest.mark.parametrize("tags", [{"a|b": "c"}, {"a": "b|c"}, {"a:b": "c"}])
def test_tags_that_slicers_syntax_cannot_hold_are_refused(tags):
    with pytest.raises(UnsupportedImage, match="choose other signs"):
        Segment("x", 0, 1, (0, 0, 0), tags)


def test_a_segmentation_goes_to_another_process(masks):
    assert_same(pickle.loads(pickle.dumps(Segmentation.from_masks(masks))), masks)


# Labels


def test_where_organs_overlap_the_smaller_kind_wins(organ_masks):
    labels = Segmentation.from_masks(organ_masks).to_labels()
    glottis, larynx = organ_masks["Glottis"].array_kji, organ_masks["Larynx_SG"].array_kji
    assert (glottis & larynx).any()
    assert np.array_equal(labels.array_kji == BY_NAME["Glottis"].label, glottis)
    assert np.array_equal(labels.array_kji == BY_NAME["Larynx_SG"].label, larynx & ~glottis)
    assert labels.array_kji.dtype == np.uint8


def test_the_order_of_the_masks_does_not_matter(organ_masks):
    backwards = dict(reversed(list(organ_masks.items())))
    forwards = Segmentation.from_masks(organ_masks).to_labels()
    assert np.array_equal(Segmentation.from_masks(backwards).to_labels().array_kji, forwards.array_kji)


def test_labels_of_a_stranger_cannot_be_made(masks):
    with pytest.raises(UnknownOrgan, match="GTVp"):
        Segmentation.from_masks(masks).to_labels()


def test_a_label_map_becomes_thirty_segments_and_comes_back(oblique):
    labels = oblique.with_array((np.arange(105) % 31).astype(np.uint8).reshape(3, 5, 7))
    segmentation = Segmentation.from_labels(labels)
    assert [segment.name for segment in segmentation.segments] == [organ.name for organ in ORGANS]
    assert np.array_equal(segmentation.to_labels().array_kji, labels.array_kji)
    assert np.array_equal(segmentation.mask("Lips").array_kji, labels.array_kji == 23)


def test_organs_that_were_not_asked_for_become_background(oblique):
    labels = oblique.with_array((np.arange(105) % 31).astype(np.int16).reshape(3, 5, 7))
    segmentation = Segmentation.from_labels(labels, [BY_NAME["Lips"], BY_NAME["Brainstem"]])
    assert [segment.name for segment in segmentation.segments] == ["Lips", "Brainstem"]
    assert np.unique(segmentation.layers[0].array_kji).tolist() == [0, 5, 23]
    assert labels.array_kji.max() == 30


@pytest.mark.parametrize("value", [31, 70000, -1, 2.5, np.nan])
def test_values_that_are_no_labels_are_refused(oblique, value):
    array = np.zeros(oblique.array_kji.shape, np.float64)
    array[1, 2, 3] = value
    with pytest.raises(UnsupportedImage):
        Segmentation.from_labels(oblique.with_array(array))


# Files


def test_every_layer_name_colour_label_and_tag_survives_a_file(masks, tmp_path):
    segmentation = Segmentation.from_masks(masks)
    write_segmentation(segmentation, tmp_path / "case.seg.nrrd")
    again = read_segmentation(tmp_path / "case.seg.nrrd")
    assert again.segments == segmentation.segments
    assert [layer.array_kji.dtype for layer in again.layers] == [np.uint8, np.uint8]
    assert again.grid.is_close(segmentation.grid, tolerance_mm=1e-9)
    assert_same(again, masks)


def test_equal_segmentations_give_equal_bytes(masks, tmp_path):
    for name in ("a", "b"):
        write_segmentation(Segmentation.from_masks(masks), tmp_path / f"{name}.seg.nrrd")
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


def test_names_in_any_script_and_tags_with_odd_signs_survive_a_file(oblique_grid, tmp_path):
    layer = Volume(np.ones(oblique_grid.shape_kji, np.uint8), oblique_grid)
    segment = Segment("Zungengrund, 舌根\\neu", 0, 1, (1, 128, 255), {"Reviewed by": "ä: yes\nno"})
    write_segmentation(Segmentation((layer,), (segment,)), tmp_path / "x.seg.nrrd")
    assert read_segmentation(tmp_path / "x.seg.nrrd").segments == (segment,)


def test_two_byte_labels_survive_a_file(oblique_grid, tmp_path):
    layer = Volume(np.full(oblique_grid.shape_kji, 4000, np.uint16), oblique_grid)
    segmentation = Segmentation((layer,), (Segment("x", 0, 4000, (1, 2, 3)),))
    write_segmentation(segmentation, tmp_path / "x.seg.nrrd")
    assert read_segmentation(tmp_path / "x.seg.nrrd").mask("x").array_kji.all()


def test_a_segmentation_without_segments_survives_a_file(oblique_grid, tmp_path):
    empty = Volume(np.zeros(oblique_grid.shape_kji, np.uint8), oblique_grid)
    write_segmentation(Segmentation((empty,), ()), tmp_path / "x.seg.nrrd")
    assert read_segmentation(tmp_path / "x.seg.nrrd").segments == ()


def test_the_header_tells_each_segments_extent(masks, tmp_path):
    write_segmentation(Segmentation.from_masks(masks), tmp_path / "x.seg.nrrd")
    header = (tmp_path / "x.seg.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert "Segment1_Extent:=0 1 4 4 0 2" in header  # i 0…1, j 4…4, k 0…2
    assert "Segment3_Extent:=0 -1 0 -1 0 -1" in header  # empty
    assert "kinds: list domain domain domain" in header
    assert "sizes: 2 7 5 3" in header


def test_one_layer_is_a_plain_label_map_for_every_other_program(organ_masks, tmp_path):
    del organ_masks["Glottis"]
    write_segmentation(Segmentation.from_masks(organ_masks), tmp_path / "x.seg.nrrd")
    labels = read_volume(tmp_path / "x.seg.nrrd")
    assert np.unique(labels.array_kji).tolist() == [0, 22, 30]
    pixel = sitk.ReadImage(str(tmp_path / "x.seg.nrrd"))
    assert pixel.GetPixel(3, 2, 1) == 22


def test_several_layers_are_no_label_map(masks, tmp_path):
    write_segmentation(Segmentation.from_masks(masks), tmp_path / "x.seg.nrrd")
    with pytest.raises(UnsupportedImage, match="2 layers of overlapping segments"):
        read_volume(tmp_path / "x.seg.nrrd")


def test_a_segmentation_is_written_under_a_nrrd_name_only(masks, tmp_path):
    with pytest.raises(OutputError, match=r"ends in \.seg\.nrrd"):
        write_segmentation(Segmentation.from_masks(masks), tmp_path / "x.nii.gz")
    with pytest.raises(OutputError, match="no folder"):
        write_segmentation(Segmentation.from_masks(masks), tmp_path / "nowhere" / "x.seg.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_a_segmentation_that_is_cut_short_is_refused(masks, tmp_path):
    write_segmentation(Segmentation.from_masks(masks), tmp_path / "x.seg.nrrd")
    raw = (tmp_path / "x.seg.nrrd").read_bytes()
    (tmp_path / "x.seg.nrrd").write_bytes(raw[:-20])
    with pytest.raises(UnreadableFile, match="cut short"):
        read_segmentation(tmp_path / "x.seg.nrrd")


def nrrd(path, fields, array=None):
    """A minimal NRRD of shape (k, j, i) with those key/value pairs."""
    array = np.ones((2, 2, 2), np.uint8) if array is None else array
    sizes = " ".join(map(str, array.shape[::-1]))
    lines = ["NRRD0004", "type: uint8", "dimension: 3", "space: LPS", f"sizes: {sizes}"]
    lines += ["space directions: (1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0,0)", "encoding: gzip"]
    lines += [f"{key}:={value}" for key, value in fields.items()]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + gzip.compress(array.tobytes()))
    return path


def test_a_name_that_is_not_utf_8_can_be_read_and_written_again(tmp_path):
    path = nrrd(tmp_path / "latin.seg.nrrd", {"Segment0_ID": "a", "Segment0_Name": "Tumeur_gr?", "Segment?": "x"})
    path.write_bytes(path.read_bytes().replace(b"?", b"\xe9"))
    segmentation = read_segmentation(path)
    assert segmentation.segments[0].name == "Tumeur_gr\N{REPLACEMENT CHARACTER}"
    write_segmentation(segmentation, tmp_path / "again.seg.nrrd")
    assert read_segmentation(tmp_path / "again.seg.nrrd").segments == segmentation.segments


def test_a_file_of_slicer_before_shared_layers_is_read(tmp_path):
    fields = {"Segment0_ID": "Segment_1", "Segment0_Name": "Cyst", "Segment0_DefaultColor": "0.5 0 1"}
    (segment,) = read_segmentation(nrrd(tmp_path / "old.seg.nrrd", fields)).segments
    assert (segment.name, segment.layer, segment.label, segment.rgb) == ("Cyst", 0, 1, (128, 0, 255))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"Segment0_LabelValue": "one"}, "broken"),
        ({"Segment0_Color": "red"}, "broken"),
        ({"Segment0_Layer": "3"}, "in layer 3, but has 1"),
    ],
)
def test_a_broken_header_is_refused(tmp_path, fields, word):
    with pytest.raises(UnreadableFile, match=word):
        read_segmentation(nrrd(tmp_path / "x.seg.nrrd", {"Segment0_ID": "a", **fields}))


def test_the_format_of_slicer_4_10_is_refused_with_a_remedy(tmp_path):
    fields = {"Segmentation_Extent": "0 1 0 1 0 1", "Segment0_ID": "a"}
    with pytest.raises(UnsupportedImage, match=r"before 4\.11"):
        read_segmentation(nrrd(tmp_path / "x.seg.nrrd", fields))


# Label maps and masks without names


@pytest.mark.parametrize("name", ["prediction.nrrd", "prediction.nii.gz", "prediction.mha", "prediction.seg.nrrd"])
def test_a_label_map_without_names_is_read_by_the_tables_labels(oblique, tmp_path, name):
    labels = oblique.with_array((np.arange(105) % 31).astype(np.uint8).reshape(3, 5, 7))
    write_volume(labels, tmp_path / name)
    assert np.array_equal(read_segmentation(tmp_path / name).to_labels().array_kji, labels.array_kji)


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("case_01_OAR_A_Carotid_L.seg.nrrd", "A_Carotid_L"),
        ("case_19_OAR_Larynx_SG.seg.nrrd", "Larynx_SG"),
        ("Parotid_R.nii.gz", "Parotid_R"),
        ("spinal cord.mha", "SpinalCord"),
    ],
)
def test_a_mask_without_names_is_the_organ_that_its_file_is_called_after(oblique_grid, tmp_path, name, organ):
    mask = box(oblique_grid, (1, 2, 3), (2, 4, 6))
    write_volume(mask, tmp_path / name)
    assert_same(read_segmentation(tmp_path / name), {organ: mask})


def test_an_empty_mask_is_still_the_organ_of_its_name(oblique_grid, tmp_path):
    mask = box(oblique_grid, (0, 0, 0), (0, 0, 0))
    write_volume(mask, tmp_path / "case_19_OAR_OpticChiasm.seg.nrrd")
    assert_same(read_segmentation(tmp_path / "case_19_OAR_OpticChiasm.seg.nrrd"), {"OpticChiasm": mask})


def test_a_single_mask_that_nothing_names_is_refused(oblique_grid, tmp_path):
    write_volume(box(oblique_grid, (1, 2, 3), (2, 4, 6)), tmp_path / "mask.nii.gz")
    with pytest.raises(UnknownOrgan, match="name the file after its organ"):
        read_segmentation(tmp_path / "mask.nii.gz")


def test_an_image_is_no_segmentation(oblique, tmp_path):
    write_volume(oblique, tmp_path / "ct.nrrd")
    with pytest.raises(UnsupportedImage, match="give labels, not an image"):
        read_segmentation(tmp_path / "ct.nrrd")


def test_a_folder_of_masks_is_one_segmentation(organ_masks, oblique, tmp_path):
    for name, mask in organ_masks.items():
        write_volume(mask, tmp_path / f"case_07_OAR_{name}.seg.nrrd")
    write_volume(oblique, tmp_path / "case_07_IMG_CT.nrrd")
    segmentation = read_segmentation(tmp_path)
    assert {segment.name for segment in segmentation.segments} == set(organ_masks)
    for name, mask in organ_masks.items():
        assert np.array_equal(segmentation.mask(name).array_kji, mask.array_kji)


def test_structures_beside_organs_keep_their_files_names_and_images_are_passed_over(organ_masks, oblique, tmp_path):
    name, mask = next(iter(organ_masks.items()))
    for file, volume in (
        (f"case_01_OAR_{name}", mask),
        ("Lens-Lt", mask),
        ("case_01_IMG_CT", oblique),
        ("values", mask.with_array(3 * mask.array_kji.astype(np.uint8))),
    ):
        write_volume(volume, tmp_path / f"{file}.nrrd")
    segmentation = read_segmentation(tmp_path)
    assert sorted(segment.name for segment in segmentation.segments) == sorted([name, "Lens-Lt"])
    np.testing.assert_array_equal(segmentation.mask("Lens-Lt").array_kji, mask.array_kji)


def test_a_folder_without_masks_or_with_one_organ_twice_is_refused(oblique_grid, tmp_path):
    with pytest.raises(UnreadableFile, match="no mask named after an organ"):
        read_segmentation(tmp_path)
    for name in ("Lips.nrrd", "lips.mha"):
        write_volume(box(oblique_grid, (0, 0, 0), (1, 1, 1)), tmp_path / name)
    with pytest.raises(UnsupportedImage, match="both of Lips"):
        read_segmentation(tmp_path)


@pytest.mark.real_data
def test_a_real_file_of_slicer_4_8_is_refused_with_a_remedy(shared_data):
    path = shared_data / "metric_vectors" / "slicerrt" / "EclipseProstate_Expanded_5_5_5_Rectum.seg.nrrd"
    with pytest.raises(UnsupportedImage, match="open and save it in a newer one"):
        read_segmentation(path)


@pytest.mark.real_data
def test_real_masks_of_two_observers_are_read(shared_data):
    folder = shared_data / "deepmind_oar_two_observers" / "0522c0057" / "oncologist"
    segmentation = read_segmentation(folder / "Brainstem.nrrd")
    assert [segment.name for segment in segmentation.segments] == ["Brainstem"]
    assert 15 < segmentation.mask("Brainstem").array_kji.sum() * segmentation.grid.voxel_ml < 40
