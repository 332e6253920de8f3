"""What Slicer imports at start must load in a Slicer that lacks every package of ours."""

import ast
import subprocess
import sys
from pathlib import Path

EXTENSION = Path(__file__).parents[2] / "HNSegExtension"
MODULE_FILES = [path for folder in EXTENSION.iterdir() if folder.name not in ("hnseg", "HNSegLib")
                for path in folder.rglob("*.py")]  # fmt: skip


def test_nothing_third_party_is_imported_at_file_scope():
    allowed = {"qt", "ctk", "vtk", "slicer", "SegmentEditorEffects", "hnseg", "HNSegLib", *sys.stdlib_module_names}
    for path in MODULE_FILES:
        tree = ast.parse(path.read_text())
        modules = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in modules} <= allowed


def test_the_effect_needs_nothing_but_the_standard_library_of_what_it_imports():
    """Run where numpy, torch, SimpleITK and psutil cannot be imported, as in a Slicer that lacks them."""
    code = (
        "import sys\n"
        "for name in ('numpy', 'torch', 'SimpleITK', 'psutil', 'monai', 'vtk', 'slicer'): sys.modules[name] = None\n"
        "import hnseg.models.places, hnseg.organs, hnseg.version\n"
        "import HNSegLib.setting_up, HNSegLib.choices, HNSegLib.merging, HNSegLib.desk\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(EXTENSION), "PATH": ""})


def test_segmenting_and_rtstruct_need_no_package_that_the_extension_does_not_ask_for():
    """Run where the rest of the project's dependencies cannot be imported."""
    code = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Absent(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('highdicom', 'rich', 'matplotlib', 'yaml'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import hnseg.jobs.segment, hnseg.dicomrt.structure_set, hnseg.dicomrt.provenance, hnseg.phantom\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(EXTENSION), "PATH": ""})
