"""Files of conversations: taken away at once, removed whatever they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hermes_ws.store.base import ConversationRef
from hermes_ws.store.directory import DataDirectory, Folders
from tests.store.conftest import REF

OTHER = ConversationRef("home", "other")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def make_files(folders: Folders, ref: ConversationRef = REF) -> None:
    for folder in (folders.workdir(ref), folders.outputs(ref)):
        folder.mkdir()
        (folder / "call.txt").write_text("x")


def trash_in(root: Path) -> list[Path]:
    """What was discarded and is not removed yet."""
    return [*root.glob("*/hermes-ws-trash/*"), *root.glob("*/*.deleted"), *root.glob("*/*.deleting")]


def left_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_discarded_files_are_gone_at_once_and_the_others_stay(folders: Folders, tmp_path: Path) -> None:
    make_files(folders)
    make_files(folders, OTHER)
    folders.discard(REF)
    assert not folders.workdir(REF).exists()
    assert not folders.outputs(REF).exists()
    make_files(folders)
    folders.empty_trash()
    assert len(left_in(tmp_path)) == 4
    assert trash_in(tmp_path) == []


def test_discarding_what_is_not_there_is_fine(folders: Folders, tmp_path: Path) -> None:
    folders.discard(REF)
    folders.empty_trash()
    folders.discard(REF)
    assert folders.remove_old_outputs(2**50) == 0
    assert left_in(tmp_path) == []


def test_the_trash_is_emptied_whatever_is_in_it(folders: Folders, tmp_path: Path) -> None:
    make_files(folders)
    work = folders.workdir(REF)
    locked = work / "locked" / "below"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    (locked / "file").chmod(0)
    locked.chmod(0o500)
    locked.parent.chmod(0)
    os.mkfifo(work / "pipe")
    (work / os.fsdecode(b"\xff\xfe not text")).write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "stays").write_text("x")
    (work / "link").symlink_to(outside)
    (work / "broken").symlink_to("nowhere")
    work.chmod(0o500)
    folders.discard(REF)
    folders.empty_trash()
    assert left_in(tmp_path) == ["outside/stays"]
    assert trash_in(tmp_path) == []


def test_folders_deeper_than_any_path_are_removed(folders: Folders, tmp_path: Path) -> None:
    make_files(folders)
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folders.workdir(REF))
        for _ in range(1_500):
            Path("deeper").mkdir()
            os.chdir("deeper")
    finally:
        os.fchdir(before)
        os.close(before)
    folders.discard(REF)
    folders.empty_trash()
    assert trash_in(tmp_path) == []


def test_a_workdir_that_is_a_link_is_taken_away_without_what_it_leads_to(folders: Folders, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "stays").write_text("x")
    folders.workdir(REF).symlink_to(outside)
    folders.discard(REF)
    folders.empty_trash()
    assert left_in(tmp_path) == ["outside/stays"]


def test_what_cannot_be_removed_is_said_and_left(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(folders)
    folders.discard(REF)

    def refuse(path: Path) -> None:
        raise PermissionError

    with monkeypatch.context() as patched, capture_logs() as lines:
        patched.setattr(Path, "unlink", refuse)
        folders.empty_trash()
    assert [(line["event"], line["left"]) for line in lines] == [("trash.not_empty", 2)]
    folders.empty_trash()
    assert left_in(tmp_path) == []


def test_without_a_trash_they_are_out_of_the_way_all_the_same(folders: Folders, tmp_path: Path) -> None:
    make_files(folders)
    in_the_way = tmp_path / "hermes-ws-work" / "hermes-ws-trash"
    in_the_way.touch()
    folders.set_aside(REF)
    folders.discard(REF)
    folders.put_all_back()
    assert not folders.workdir(REF).exists()
    folders.empty_trash()
    assert len(trash_in(tmp_path)) == 1
    in_the_way.unlink()
    folders.empty_trash()
    assert (trash_in(tmp_path), left_in(tmp_path)) == ([], [])


def test_what_was_set_aside_comes_back_unless_it_is_discarded(folders: Folders, tmp_path: Path) -> None:
    make_files(folders)
    make_files(folders, OTHER)
    for ref in (REF, OTHER):
        folders.set_aside(ref)
        assert not folders.workdir(ref).exists()
    folders.discard(OTHER)
    folders.put_all_back()
    assert (folders.workdir(REF) / "call.txt").read_text() == "x"
    assert (folders.outputs(REF) / "call.txt").read_text() == "x"
    assert not folders.workdir(OTHER).exists()
    folders.empty_trash()
    assert len(left_in(tmp_path)) == 2


def test_outputs_go_when_they_are_old(folders: Folders, tmp_path: Path) -> None:
    make_files(folders)
    kept = folders.outputs(REF)
    (kept / "old.txt").write_text("x")
    (kept / "old.bin").write_text("x")
    for name in ("old.txt", "old.bin"):
        os.utime(kept / name, (1_000, 1_000))
    os.utime(folders.workdir(REF) / "call.txt", (1_000, 1_000))
    assert folders.remove_old_outputs(1_000_000) == 0
    assert folders.remove_old_outputs(1_000_001) == 1
    assert sorted(path.name for path in kept.iterdir()) == ["call.txt", "old.bin"]
    assert (folders.workdir(REF) / "call.txt").exists()


def test_a_locked_directory_has_them_too(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    make_files(directory)
    directory.discard(REF)
    directory.empty_trash()
    assert left_in(tmp_path) == ["hermes-ws.lock"]
    directory.close()
