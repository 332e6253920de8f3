import os
from pathlib import Path

import pytest

from hnseg.errors import OutputError
from hnseg.jobs.staging import staged, sweep


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_nothing_appears_before_commit_and_everything_after(tmp_path: Path) -> None:
    table, report = tmp_path / "a.txt", tmp_path / "new" / "report"
    with staged(table, folders=[report]) as staging:
        staging.place_for(table).write_text("x")
        staging.place_for(report).mkdir()
        (staging.place_for(report) / "page.html").write_text("y")
        assert not table.exists()
        assert not report.exists()
        staging.commit()
    assert names(tmp_path) == ["a.txt", "new", "new/report", "new/report/page.html"]


def test_an_error_leaves_the_old_files_and_no_folder_that_was_made(tmp_path: Path) -> None:
    old = tmp_path / "old.txt"
    old.write_text("old")

    def job() -> None:
        with staged(old, tmp_path / "x" / "y" / "z.txt") as staging:
            staging.place_for(old).write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    assert names(tmp_path) == ["old.txt"]
    assert old.read_text() == "old"


def test_a_folder_that_exists_keeps_its_other_files(tmp_path: Path) -> None:
    report = tmp_path / "report"
    (report / "deep").mkdir(parents=True)
    (report / "mine.txt").write_text("mine")
    (report / "page.html").write_text("old")
    with staged(folders=[report]) as staging:
        (staging.place_for(report) / "deep").mkdir(parents=True)
        (staging.place_for(report) / "page.html").write_text("new")
        (staging.place_for(report) / "deep" / "a.png").write_text("a")
        staging.commit()
    assert names(tmp_path) == ["report", "report/deep", "report/deep/a.png", "report/mine.txt", "report/page.html"]
    assert (report / "page.html").read_text() == "new"


def test_a_disk_that_fills_up_is_told_of_the_users_own_path(tmp_path: Path) -> None:
    table = tmp_path / "new" / "a.txt"

    def job() -> None:
        with staged(table) as staging:
            staging.place_for(table).write_text("half")
            raise OutputError(f"Cannot write {staging.place_for(table)}: No space left on device; free some.")

    with pytest.raises(OutputError, match=rf"^Cannot write {table}: No space left on device; free some\.$"):
        job()
    assert names(tmp_path) == []


def test_an_output_that_nobody_wrote_is_no_error(tmp_path: Path) -> None:
    with staged(tmp_path / "a.txt") as staging:
        staging.commit()
    assert names(tmp_path) == []


def test_a_place_below_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refusal = r"file/o.nrrd cannot be written \(.*\); choose another place"
    with pytest.raises(OutputError, match=refusal), staged(tmp_path / "file" / "o.nrrd"):
        raise AssertionError("the work must not begin")


@pytest.mark.skipif(not Path("/proc/self").exists() or os.name == "nt", reason="needs a file system that refuses")
def test_a_file_system_that_refuses_is_named_before_the_work() -> None:
    with pytest.raises(OutputError, match=r"/proc/o.nrrd cannot be written"), staged("/proc/o.nrrd"):
        raise AssertionError("the work must not begin")


def test_a_file_where_a_folder_stands_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "o.nrrd").mkdir()
    with (
        pytest.raises(OutputError, match=r"o.nrrd cannot be written: it is a folder; give a file name"),
        staged(tmp_path / "o.nrrd"),
    ):
        raise AssertionError("the work must not begin")


def test_a_folder_where_a_file_stands_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    with (
        pytest.raises(OutputError, match="report cannot be written: it is a file"),
        staged(folders=[tmp_path / "report"]),
    ):
        raise AssertionError("the work must not begin")


def test_what_a_killed_process_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / f".o.nrrd.hnseg-{os.getpid()}-abc"
    other = tmp_path / ".o.nrrd.hnseg-1-abc"
    for folder in (left, other):
        folder.mkdir()
        (folder / "o.nrrd").write_text("half")
    sweep([tmp_path / "o.nrrd"], os.getpid())
    assert names(tmp_path) == [other.name, f"{other.name}/o.nrrd"]
