import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hnseg.cli import main as command_line
from hnseg.cli.console import progress, readable, table
from hnseg.cli.main import main
from hnseg.errors import Cancelled, UnreadableFile
from hnseg.version import RESEARCH_USE, __version__

Say = pytest.CaptureFixture[str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A subcommand of the test's own in place of `segment`: `hnseg segment PATH`; set ``run``."""
    fake = SimpleNamespace(run=lambda args: 0)

    def add_parser(subparsers: Any) -> None:
        parser = subparsers.add_parser("segment", help="fake")
        parser.add_argument("path", nargs="?")
        parser.add_argument("--device")

    fake.add_parser = add_parser
    real = command_line._module
    monkeypatch.setattr(command_line, "_module", lambda name: fake if name == "segment" else real(name))
    return fake


def raising(error: BaseException) -> Any:
    def run(args: Any) -> int:
        raise error

    return run


def test_help_lists_every_command_with_examples_exit_codes_and_the_research_sentence(capsys: Say) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for text in ("segment", "evaluate", "phantom", "models", "hnseg segment --ct", "130 interrupted", RESEARCH_USE):
        assert text in out


def test_help_imports_neither_the_engine_nor_what_it_stands_on() -> None:
    code = "import sys; from hnseg.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    spoken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(spoken.stderr.strip("[]\n").replace("'", "").split(", "))
    assert "hnseg.cli.segment" in loaded
    assert not loaded & {"numpy", "torch", "SimpleITK", "scipy", "monai", "rich", "hnseg.jobs.segment"}


@pytest.mark.parametrize(
    ("ct", "model", "said"),
    [
        ("nowhere.nrrd", "hnseg-base", "There is no file"),
        ("flat.nrrd", "hnseg-base", "The CT"),
        ("flat.nrrd", "hnseg-bas", "did you mean 'hnseg-base'?"),
    ],
)
def test_an_image_or_model_that_cannot_be_used_is_refused_before_pytorch_is_imported(
    tmp_path: Path, ct: str, model: str, said: str
) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 10, 11), np.int16)), str(tmp_path / "flat.nrrd"))
    words = ["segment", "--ct", str(tmp_path / ct), "--model", model, "-o", str(tmp_path / "o.seg.nrrd")]
    code = f"import sys; from hnseg.cli.main import main; main({words!r}); sys.exit('torch' in sys.modules)"
    spoken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said in spoken.stderr


def test_the_version_names_itself_and_the_research_sentence(capsys: Say) -> None:
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert __version__ in out
    assert RESEARCH_USE in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["segmnt"], "'segmnt' is not known; did you mean segment?"),
        (["--verbos"], "there is no option --verbos; did you mean --verbose?"),
        (["segment", "--dvice", "cpu"], "there is no option --dvice; did you mean --device?"),
        (["segment", "--dev", "cpu"], "there is no option --dev; did you mean --device?"),
        (["segment", "--zzzzz"], "there is no option --zzzzz; known are --device, --help, -h."),
        (["segment", "a", "b"], "unrecognized arguments: b"),
        (["segment", "--device", ""], "an argument is empty, as of a variable that was not set; give a value."),
    ],
)
def test_wrong_usage_is_one_sentence_with_the_nearest_known_word_and_exit_code_2(
    command: SimpleNamespace, capsys: Say, words: list[str], message: str
) -> None:
    assert main(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(message)
    assert second.startswith("See `hnseg")


def test_negative_numbers_and_values_after_an_equals_sign_are_no_unknown_options(command: SimpleNamespace) -> None:
    assert main(["segment", "--device=cpu", "--", "-x"]) == 0


def test_an_error_of_the_family_is_its_sentence_and_exit_code_1(command: SimpleNamespace, capsys: Say) -> None:
    command.run = raising(UnreadableFile("There is no file\n  ct.nrrd; check the path."))
    assert main(["segment"]) == 1
    assert capsys.readouterr().err == "There is no file ct.nrrd; check the path.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled("stopped")])
def test_an_interrupt_is_one_sentence_and_exit_code_130(
    command: SimpleNamespace, capsys: Say, error: BaseException
) -> None:
    command.run = raising(error)
    assert main(["segment"]) == 130
    assert capsys.readouterr().err == "Interrupted; nothing was written.\n"


def test_a_defect_is_one_sentence_that_names_a_log_without_the_users_paths(
    command: SimpleNamespace, capsys: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command.run = raising(RuntimeError("cannot chew /data/MUSTERMANN^MAX/ct.nrrd"))
    assert main(["segment", "/data/MUSTERMANN^MAX/ct.nrrd"]) == 1
    (log,) = tmp_path.glob("hnseg-defect-*.log")
    said = capsys.readouterr().err
    assert said == f"A defect of HNSeg stopped the command (RuntimeError); please report it with the log {log}.\n"
    text = log.read_text()
    assert "Traceback" in text
    assert "cannot chew <argument>" in text
    assert "MUSTERMANN" not in text


def test_running_out_of_memory_is_one_sentence(command: SimpleNamespace, capsys: Say) -> None:
    command.run = raising(MemoryError())
    assert main(["segment"]) == 1
    assert capsys.readouterr().err.startswith("The machine ran out of memory; ")


def test_the_commands_own_exit_code_is_returned(command: SimpleNamespace) -> None:
    command.run = lambda args: 1
    assert main(["segment"]) == 1


def test_plain_progress_says_each_phase_and_each_tenth_once(capsys: Say) -> None:
    with progress() as on_progress:
        for n in range(40):
            on_progress(n / 100, f"Window {n} of 100")
        on_progress(0.4, "Writing")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [*(f"{n:3}% Window {n} of 100" for n in (0, 10, 20, 30)), " 40% Writing"]
    assert shown.err == ""


def test_tables_align_names_left_and_numbers_right() -> None:
    text = table(("organ", "mL"), [("Lips", "23.0"), ("Brainstem", "9.5")])
    assert text.splitlines() == ["organ        mL", "─────────  ────", "Lips       23.0", "Brainstem   9.5"]


def test_paths_are_shown_as_one_would_type_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert readable(tmp_path / "a" / "b.nrrd") == str(Path("a") / "b.nrrd")
    assert readable(tmp_path.parent / "c.nrrd") == str(tmp_path.parent / "c.nrrd")
