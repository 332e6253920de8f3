"""Install, list, remove; and the command line on top of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from hnseg.cli.main import main
from hnseg.errors import ModelError, OutputError
from hnseg.models import store
from hnseg.models.bundle import Bundle, write_bundle
from hnseg.models.metadata import BundleMetadata, NetworkSettings
from hnseg.models.networks import build_network
from hnseg.models.places import MODELS_VARIABLE, user_folder
from hnseg.models.store import install_bundle, list_bundles, remove_bundle
from hnseg.preprocessing import PreprocessSettings

ARGUMENTS = {"in_channels": 4, "out_channels": 2, "filters": [4, 4, 4], "factor": [1, 1, 2]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of their own, with no models and none shipped."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setattr("hnseg.models.places.shipped_folders", lambda: (tmp_path / "shipped",))
    return tmp_path


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    metadata = BundleMetadata(
        name="tiny",
        title="Tiny",
        version="0.1",
        licence="Apache-2.0",
        training_data="None.",
        network=NetworkSettings("subpixel_unet", ARGUMENTS),
        preprocess=PreprocessSettings(),
        patch_kji=(4, 4, 8),
        labels=("background", "Lips"),
    )
    torch.manual_seed(0)
    weights = build_network("subpixel_unet", **ARGUMENTS).state_dict()
    return write_bundle(
        tmp_path / "made" / "tiny", metadata=metadata, state_dict=weights, card="# Card\n", licence_text="L\n"
    )


def packed(bundle: Bundle, archive: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(bundle.folder.rglob("*")):
            zipped.write(path, inside + path.relative_to(bundle.folder).as_posix())
    return archive


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "www").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


def test_a_folder_is_installed_listed_and_removed(bundle: Bundle) -> None:
    installed = install_bundle(bundle.folder)
    assert installed.folder == user_folder() / "tiny"
    assert installed.digest == bundle.digest
    assert [(entry.name, entry.fault) for entry in list_bundles()] == [("tiny", "")]
    assert remove_bundle("tiny") == installed.folder
    assert list_bundles() == ()
    assert bundle.folder.is_dir()


@pytest.mark.parametrize("inside", ["", "some-folder/"])
def test_a_zip_file_is_installed_with_and_without_a_folder_around_it(
    bundle: Bundle, tmp_path: Path, inside: str
) -> None:
    installed = install_bundle(packed(bundle, tmp_path / "b.zip", inside))
    assert installed.folder == user_folder() / "tiny"
    assert [entry.name for entry in user_folder().iterdir()] == ["tiny"]


def test_a_zip_file_is_installed_from_an_address_with_its_digest(bundle: Bundle, tmp_path: Path, server: str) -> None:
    archive = packed(bundle, tmp_path / "www" / "b.zip")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert install_bundle(f"{server}/b.zip", sha256=digest.upper()).name == "tiny"


def test_an_address_without_or_with_another_digest_is_refused(bundle: Bundle, tmp_path: Path, server: str) -> None:
    packed(bundle, tmp_path / "www" / "b.zip")
    with pytest.raises(ModelError, match="needs its SHA-256"):
        install_bundle(f"{server}/b.zip")
    with pytest.raises(ModelError, match="not the one given"):
        install_bundle(f"{server}/b.zip", sha256="0" * 64)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        install_bundle(f"{server}/absent.zip", sha256="0" * 64)
    assert list(user_folder().iterdir()) == []


def test_a_download_that_grows_too_large_is_stopped(
    bundle: Bundle, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(bundle, tmp_path / "www" / "b.zip")
    monkeypatch.setattr(store, "SIZE_LIMIT", 100)
    with pytest.raises(ModelError, match="holds more than"):
        install_bundle(f"{server}/b.zip", sha256="0" * 64)


def test_a_zip_file_with_another_digest_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not the one given"):
        install_bundle(packed(bundle, tmp_path / "b.zip"), sha256="ab" * 32)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_a_zip_file_with_a_name_that_escapes_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    archive = packed(bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr(name, "boo")
    with pytest.raises(ModelError, match="would leave its folder"):
        install_bundle(archive)
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_zip_file_with_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    archive = packed(bundle, tmp_path / "b.zip")
    link = zipfile.ZipInfo("models/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="link"):
        install_bundle(archive)


def test_a_zip_file_that_unpacks_to_too_much_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SIZE_LIMIT", 1000)
    with pytest.raises(ModelError, match="unpacks to more than"):
        install_bundle(packed(bundle, tmp_path / "b.zip"))


def test_a_broken_zip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"PK nonsense")
    with pytest.raises(ModelError, match="not a whole zip file"):
        install_bundle(tmp_path / "b.zip")


def test_a_tampered_bundle_is_not_installed_and_nothing_stays(bundle: Bundle) -> None:
    (bundle.folder / "LICENSE").write_text("another")
    with pytest.raises(ModelError, match="not the file that was published"):
        install_bundle(bundle.folder)
    assert list(user_folder().iterdir()) == []


def test_a_second_model_of_that_name_needs_replace(bundle: Bundle) -> None:
    install_bundle(bundle.folder)
    with pytest.raises(ModelError, match="already installed"):
        install_bundle(bundle.folder)
    assert install_bundle(bundle.folder, replace=True).name == "tiny"
    assert [entry.name for entry in user_folder().iterdir()] == ["tiny"]


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no bundle at"):
        install_bundle(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_an_output_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Nothing can be installed"):
        install_bundle(bundle.folder, into=tmp_path / "file" / "models")


def test_a_shipped_model_is_found_hidden_by_the_users_and_not_removed(bundle: Bundle, home: Path) -> None:
    shutil.copytree(bundle.folder, home / "shipped" / "tiny")
    assert [entry.folder for entry in list_bundles()] == [home / "shipped" / "tiny"]
    with pytest.raises(ModelError, match="was left there"):
        remove_bundle("tiny")
    installed = install_bundle(bundle.folder)
    assert [entry.folder for entry in list_bundles()] == [installed.folder]


def test_removing_what_is_not_there_names_the_nearest(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="no model is installed"):
        remove_bundle("tiny")
    install_bundle(bundle.folder)
    with pytest.raises(ModelError, match="did you mean 'tiny'"):
        remove_bundle("tinny")


def test_a_broken_model_is_listed_with_its_fault_and_can_be_removed(bundle: Bundle) -> None:
    installed = install_bundle(bundle.folder)
    (installed.folder / "LICENSE").unlink()
    (entry,) = list_bundles()
    assert entry.bundle is None
    assert "lacks LICENSE" in entry.fault
    remove_bundle("tiny")
    assert list_bundles() == ()


def test_the_command_line_installs_lists_shows_verifies_and_removes(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "install", str(bundle.folder)]) == 0
    assert "Installed tiny 0.1" in capsys.readouterr().out
    assert main(["models", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["organs"], row["fault"]) == ("tiny", ["Lips"], None)
    assert main(["models", "list"]) == 0
    assert "Apache-2.0" in capsys.readouterr().out
    assert main(["models", "show", "tiny"]) == 0
    assert capsys.readouterr().out.strip() == "# Card"
    assert main(["models", "show", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["patch_kji"] == [4, 4, 8]
    assert main(["models", "verify", "tiny", str(bundle.folder)]) == 0
    assert capsys.readouterr().out.count("4 files as published") == 2
    assert main(["models", "remove", "tiny"]) == 0
    assert main(["models", "list"]) == 0
    assert "No model was found" in capsys.readouterr().err


def test_the_command_line_says_in_one_sentence_why_a_model_is_refused(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle.folder / "docs" / "README.md").write_text("# Other\n")
    assert main(["models", "verify", str(bundle.folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "docs/README.md" in captured.err
