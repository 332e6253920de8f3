"""The MR seen in a mirror: what a registration must beat, as left and right of a head are nearly alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hnseg.registration.images import Prepared
from hnseg.registration.poses import Pose, moved, pose


def mirrored(mr: Prepared, ct_to_mr: Pose, middle_ct: NDArray[np.float64]) -> tuple[Prepared, Pose]:
    """The MR with left and right exchanged, and the pose at which the mirrored head covers the CT's.

    The values are reversed along the MR's axis that lies closest to the CT's x; ``middle_ct`` (LPS mm) is a point of
    the patient's mid-sagittal plane, which stays in place.
    """
    across = int(np.argmax(np.abs(ct_to_mr[:3, 0] @ mr.grid.axes)))
    normal = mr.grid.axes[:, across]
    reverse = tuple(slice(None, None, -1 if axis == 2 - across else 1) for axis in range(3))
    image = Prepared(
        mr.values.with_array(mr.values.array_kji[reverse]),
        mr.valid.with_array(mr.valid.array_kji[reverse]),
        mr.air_below,
    )
    middle_mr = moved(middle_ct, ct_to_mr)
    reflected = middle_mr - 2 * normal * float((middle_mr - mr.grid.centre_lps) @ normal)
    return image, pose(np.eye(3), reflected - middle_mr) @ ct_to_mr
