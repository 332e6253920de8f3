"""The extension is configured, built and installed by the real CMake, on a STAND-IN for Slicer's build tree."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXTENSION = REPOSITORY / "HNSegExtension"
STAND_IN = Path(__file__).with_name("stand_ins") / "slicer_build"
SHIPPED = (".py", ".ui", ".svg", ".png", ".txt", ".html", ".css", ".js", ".json", ".typed")
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")

pytestmark = pytest.mark.skipif(CMAKE is None, reason="there is no cmake: pip install cmake")


def run(*command):
    done = subprocess.run([CMAKE, *map(str, command)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    paths = {
        "Slicer_DIR": STAND_IN,
        "CMAKE_TOOLCHAIN_FILE": STAND_IN / "toolchain.cmake",
        "CMAKE_INSTALL_PREFIX": prefix,
    }
    said = run("-S", REPOSITORY, "-B", build, *(f"-D{name}={path}" for name, path in paths.items()))
    assert "Warning" not in said
    run("--build", build)
    run("--install", build)
    return prefix / "lib" / "Slicer-5.10" / "qt-scripted-modules"


def expected_files():
    """Modules land without their folder, packages with it."""
    for path in sorted(EXTENSION.rglob("*")):
        relative = path.relative_to(EXTENSION)
        if path.suffix in SHIPPED and path.name != "CMakeLists.txt" and "__pycache__" not in relative.parts:
            package = relative.parts[0] in ("hnseg", "HNSegLib")
            yield relative if package else Path(*relative.parts[1:])


def test_every_file_of_the_extension_is_installed(installed):
    missing = [str(path) for path in expected_files() if not (installed / path).is_file()]
    assert not missing


def test_nothing_else_is_installed(installed):
    expected = set(expected_files())
    found = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    shared = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "Resources").rglob("*")}
    assert not found - expected - shared


def test_two_modules_do_not_ship_a_file_of_the_same_name():
    files = list(expected_files())
    assert len(files) == len(set(files))


def test_the_installed_packages_find_each_other_and_the_models_that_ship(installed):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import hnseg.models.places as places, HNSegLib.setting_up as setting_up\n"
        "print(places.__file__); print(places.shipped_folders()[0]); print(len(setting_up.requirements()))"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", code, str(installed)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert Path(said[0]).is_relative_to(installed)
    assert Path(said[1]) == installed / "Resources" / "Models"
    assert int(said[2]) > 5


def test_models_colours_and_terminology_are_installed(installed):
    models = REPOSITORY / "Resources" / "Models"
    shipped = [path.relative_to(models) for path in models.rglob("*") if path.is_file()] if models.is_dir() else []
    assert all((installed / "Resources" / "Models" / path).is_file() for path in shipped)
    assert (installed / "Resources" / "HNSeg.term.json").is_file()
    assert (installed / "Resources" / "HNSeg.ctbl").is_file()


def test_the_catalogue_entry_fits_its_schema_and_names_the_same_address_as_cmake():
    entry = json.loads((REPOSITORY / "HNSeg.json").read_text())
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert {"category", "scm_url"} <= set(entry) <= {
        "$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "dicom_support_rule",
        "build_subdirectory", "enabled", "tier",
    }  # fmt: skip
    assert f'"{entry["scm_url"]}"' in (REPOSITORY / "CMakeLists.txt").read_text()


def test_pictures_named_in_cmake_are_in_the_repository():
    lists = (REPOSITORY / "CMakeLists.txt").read_text()
    named = [line.split("/raw/main/")[1].rstrip('")') for line in lists.splitlines() if "/raw/main/" in line]
    assert named
    assert all((REPOSITORY / path).is_file() for path in named)
