"""Curate a folder inside Slicer, without its window.

    Slicer --no-main-window --no-splash --python-script curate_in_slicer.py IN OUT [options of `hnseg curate`]

It is the command `hnseg curate` with Slicer's own Python; the exit code is the command's.
"""

import os
import sys
from pathlib import Path


def main(arguments):
    """Find the engine, hand the arguments on."""
    here = Path(__file__).resolve().parent
    for place in (Path(os.environ.get("HNSEG_EXTENSION", "")), here.parents[1] / "HNSegExtension", here):
        if (place / "HNSegLib").is_dir() and str(place) not in sys.path:
            sys.path.append(str(place))
    from HNSegLib.setting_up import SetUpFailed, check_curation

    try:
        check_curation()
    except SetUpFailed as lacking:
        print(lacking, file=sys.stderr)
        return 1
    from hnseg.cli.main import main as hnseg

    return hnseg(["curate", *arguments])


if __name__ == "__main__":
    code = main(sys.argv[1:])
    slicer = sys.modules.get("slicer")  # plain Python has none; slicer-core has no application
    (slicer.util.exit if hasattr(slicer, "app") else sys.exit)(code)
