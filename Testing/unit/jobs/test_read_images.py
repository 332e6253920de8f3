"""What a request's images needed to be read goes with them."""

import numpy as np
import SimpleITK as sitk

from hnseg.jobs.request import SegmentRequest
from hnseg.jobs.segment import read_images


def test_a_note_on_how_an_image_was_read_goes_with_the_images(tmp_path):
    header = b"NRRD0001\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n\n"
    (tmp_path / "ct.nrrd").write_bytes(header + bytes(range(24)))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 3, 2), np.int16)), str(tmp_path / "mr.nrrd"))
    request = SegmentRequest(str(tmp_path / "ct.nrrd"), str(tmp_path / "o.seg.nrrd"), mr=str(tmp_path / "mr.nrrd"))
    images = read_images(request)
    assert images.ct.array_kji[3, 2, 1] == 23
    assert [note.split()[0] for note in images.notes] == ["ct.nrrd"]
