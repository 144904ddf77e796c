"""Images on disk: once in a namespace, as long as somebody refers to them, never half there."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hermes_ws.errors import CommandError, StorageFull
from hermes_ws.store import blobs as storing
from hermes_ws.store.base import ConversationRef
from hermes_ws.store.blobs import Blob, Blobs, BlobSettings, Wanted, blob_digest, image_type
from hermes_ws.store.directory import Folders
from tests.pictures import blob_id, picture
from tests.store.conftest import REF

OTHER = ConversationRef("home", "other")
ABROAD = ConversationRef("abroad", "demo")
PNG = picture()
DAY_S = 86_400


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture
def blobs(folders: Folders) -> Blobs:
    return Blobs(folders, BlobSettings())


def keep(blobs: Blobs, data: bytes = PNG, ref: ConversationRef = REF, *, begun: bool = True) -> Blob:
    blob = blobs.judged(data)
    with blobs.adding():
        blobs.keep(ref, [Wanted(blob, data)], begun=begun)
    return blob


def refer(blobs: Blobs, blob: Blob, ref: ConversationRef = REF) -> None:
    with blobs.adding():
        blobs.keep(ref, [Wanted(blob)], begun=True)


def pooled(tmp_path: Path) -> list[Path]:
    """Files in the pools."""
    return [path for path in tmp_path.glob("hermes-ws-blobs/*/*") if path.is_file()]


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def read(blobs: Blobs, where: str | ConversationRef, blob: Blob) -> bytes | None:
    file = blobs.open(where, blob.digest)
    if file is None:
        return None
    with file:
        return file.read()


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/gif", "image/webp"])
def test_the_type_is_judged_by_the_content(blobs: Blobs, mime: str) -> None:
    data = picture(50, mime)
    assert blobs.judged(data) == (blob_id(data).removeprefix("blob_"), mime, 50)
    assert blobs.judged(data).id == blob_id(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"RIFF1234WAVE", b"GIF88a", b"BM"],
)
def test_anything_else_is_no_image(blobs: Blobs, data: bytes) -> None:
    assert image_type(data) is None
    with pytest.raises(CommandError, match="this is no image"):
        blobs.judged(data)


@pytest.mark.parametrize("text", ["", "blob_", "blob_" + "A" * 64, "blob_" + "0" * 63, "blob_../x", f"blob_{0:064}\n"])
def test_what_is_no_blobs_id_leads_nowhere(text: str) -> None:
    assert blob_digest(text) is None


def test_an_image_is_there_once_for_all_conversations_of_a_namespace(blobs: Blobs, tmp_path: Path) -> None:
    blob = keep(blobs)
    keep(blobs, ref=OTHER)
    keep(blobs, ref=OTHER)
    [file] = pooled(tmp_path)
    assert file.stat().st_nlink == 3
    assert read(blobs, "home", blob) == read(blobs, REF, blob) == read(blobs, OTHER, blob) == PNG
    assert read(blobs, ABROAD, blob) is read(blobs, "abroad", blob) is None
    keep(blobs, ref=ABROAD)
    assert [path.stat().st_nlink for path in pooled(tmp_path) if path != file] == [2]


def test_nobody_else_may_read_them(blobs: Blobs, tmp_path: Path) -> None:
    keep(blobs, begun=False)
    blobs.upload("home", picture(), time.time())
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_one_conversations_deletion_leaves_the_others(blobs: Blobs, folders: Folders, tmp_path: Path) -> None:
    blob = keep(blobs)
    keep(blobs, ref=OTHER)
    folders.set_aside(REF)
    assert read(blobs, REF, blob) is None
    folders.discard(REF)
    folders.empty_trash()
    assert blobs.sweep(time.time() - DAY_S) == 0
    assert read(blobs, OTHER, blob) == read(blobs, "home", blob) == PNG
    folders.discard(OTHER)
    folders.empty_trash()
    assert blobs.sweep(time.time() - DAY_S) == 1
    assert pooled(tmp_path) == []


def test_a_deletion_that_comes_to_nothing_puts_them_back(blobs: Blobs, folders: Folders) -> None:
    blob = keep(blobs)
    folders.set_aside(REF)
    folders.put_all_back()
    assert read(blobs, REF, blob) == PNG


def test_an_upload_waits_its_time_for_a_conversation(blobs: Blobs, tmp_path: Path) -> None:
    blob = blobs.upload("home", PNG, time.time())
    assert blobs.sweep(time.time() - 60) == 0
    age(pooled(tmp_path)[0], 100)
    blobs.upload("home", PNG, time.time())
    assert blobs.sweep(time.time() - 60) == 0, "it was uploaded anew"
    age(pooled(tmp_path)[0], 100)
    refer(blobs, blob)
    assert blobs.sweep(time.time() - 60) == 0, "somebody refers to it"
    assert blobs.found(REF, blob.digest) == blob
    age(pooled(tmp_path)[0], 100)
    blobs.upload("home", picture(), time.time() - 100)
    assert blobs.sweep(time.time() - 60) == 1
    assert read(blobs, REF, blob) == PNG


def test_uploads_that_nobody_uses_have_a_bound(folders: Folders, tmp_path: Path) -> None:
    blobs = Blobs(folders, BlobSettings(unused_bytes=250))
    first, second, third = (picture(100) for _ in range(3))
    one = blobs.upload("home", first, time.time())
    blobs.upload("home", second, time.time())
    with pytest.raises(StorageFull, match="250 bytes together"):
        blobs.upload("home", third, time.time())
    blobs.upload("home", second, time.time())
    blobs.upload("abroad", third, time.time())
    keep(blobs, third)
    refer(blobs, one)
    blobs.upload("home", picture(100), time.time())
    with pytest.raises(StorageFull):
        blobs.upload("home", picture(100), time.time())
    assert len(pooled(tmp_path)) == 5


def test_a_server_that_was_restarted_knows_the_bound_is_reached(folders: Folders) -> None:
    Blobs(folders, BlobSettings()).upload("home", PNG, time.time())
    with pytest.raises(StorageFull):
        Blobs(folders, BlobSettings(unused_bytes=150)).upload("home", picture(100), time.time())


def test_a_full_conversation_takes_no_more_and_what_it_has_counts_once(folders: Folders, tmp_path: Path) -> None:
    blobs = Blobs(folders, BlobSettings(conversation_bytes=250))
    keep(blobs)
    keep(blobs)
    more = [picture(100), picture(100)]
    with pytest.raises(CommandError, match="250 bytes together") as refused, blobs.adding():
        blobs.keep(REF, [Wanted(blobs.judged(data), data) for data in more], begun=True)
    assert refused.value.code == "too_large"
    assert len(pooled(tmp_path)) == 1
    keep(blobs, more[0])
    keep(blobs, more[1], OTHER)


def test_an_image_has_a_largest_size(folders: Folders) -> None:
    blobs = Blobs(folders, BlobSettings(image_bytes=100))
    assert blobs.judged(picture(100)).size == 100
    with pytest.raises(CommandError, match="at most 100 bytes, not 101"):
        blobs.judged(picture(101))


def test_a_fork_refers_to_what_it_shows(blobs: Blobs, tmp_path: Path) -> None:
    shown, hidden = keep(blobs), keep(blobs, picture())
    blobs.bring(REF, OTHER, [shown.digest, "0" * 64])
    assert read(blobs, OTHER, shown) == PNG
    assert read(blobs, OTHER, hidden) is None
    assert sorted(path.stat().st_nlink for path in pooled(tmp_path)) == [2, 3]


def test_where_there_are_no_hard_links_folders_hold_copies(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    blob = keep(blobs)
    keep(blobs, ref=OTHER)
    blobs.bring(REF, ConversationRef("home", "fork"), [blob.digest])
    assert [path.stat().st_nlink for path in pooled(tmp_path)] == [1]
    assert blobs.sweep(time.time() - DAY_S) == 1
    for ref in (REF, OTHER, ConversationRef("home", "fork")):
        assert read(blobs, ref, blob) == PNG


def test_a_file_with_as_many_links_as_may_be_is_copied(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    keep(blobs)
    monkeypatch.setattr(os, "link", refuse)
    assert read(blobs, OTHER, keep(blobs, ref=OTHER)) == PNG


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_and_leaves_nothing_half_done(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int) -> None:
        raise OSError(number, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(StorageFull):
            keep(blobs)
        with pytest.raises(StorageFull):
            blobs.upload("home", PNG, time.time())
    assert pooled(tmp_path) == []
    keep(blobs)
    assert len(pooled(tmp_path)) == 1


def test_what_a_crash_left_half_written_goes(blobs: Blobs, tmp_path: Path) -> None:
    keep(blobs)
    (pooled(tmp_path)[0].parent / "1234.tmp").write_bytes(PNG[:50])
    assert blobs.sweep(time.time() - DAY_S) == 1
    assert len(pooled(tmp_path)) == 1


def test_everything_is_synced_before_anybody_is_told(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    sync = os.fsync

    def noted(file: int) -> None:
        synced.add(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    keep(blobs, begun=False)
    folders = blobs._folders
    for folder in (folders.pool("home"), folders.images(REF), folders.root):
        assert {folder.name, folder.parent.name} & synced, folder
    assert {folders.images(REF).name, "hermes-ws-images", "hermes-ws-blobs", folders.pool("home").name} <= synced
    assert len([name for name in synced if name.endswith(".tmp")]) == 2


# -- conversations that have not begun -------------------------------------------------------------------


def test_what_waits_for_a_conversation_that_never_begins_goes(blobs: Blobs, folders: Folders, tmp_path: Path) -> None:
    blob = keep(blobs, begun=False)
    before = time.time() - 60
    assert blobs.unbegun(before) == []
    age(folders.images(REF) / "unbegun", 100)
    assert blobs.unbegun(before) == [REF]
    keep(blobs, begun=False)
    blobs.forget(REF, before)
    assert read(blobs, REF, blob) == PNG, "something has come since"
    age(folders.images(REF) / "unbegun", 100)
    blobs.forget(REF, before)
    folders.empty_trash()
    assert blobs.sweep(before) == 1
    assert pooled(tmp_path) == []
    assert read(blobs, REF, blob) is None


def test_once_it_has_begun_they_stay(blobs: Blobs, folders: Folders) -> None:
    blob = keep(blobs, begun=False)
    age(folders.images(REF) / "unbegun", 100)
    blobs.has_begun(REF)
    assert blobs.unbegun(time.time()) == []
    blobs.forget(REF, time.time())
    assert read(blobs, REF, blob) == PNG


def test_files_of_a_deleted_conversation_are_not_those_that_wait_for_the_next(blobs: Blobs, folders: Folders) -> None:
    keep(blobs, picture())
    folders.set_aside(REF)
    blob = keep(blobs, begun=False)
    folders.discard(REF)
    assert read(blobs, REF, blob) == PNG
    folders.set_aside(REF)
    folders.discard(REF)
    assert read(blobs, REF, blob) is None


def test_only_images_wait_whatever_a_tool_calls_its_files(folders: Folders) -> None:
    folders.workdir(REF).mkdir()
    (folders.workdir(REF) / "unbegun").touch()
    folders.discard(REF)
    assert not folders.workdir(REF).exists()


# -- side by side ----------------------------------------------------------------------------------------


def test_nothing_goes_between_being_looked_up_and_being_linked(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = blobs.upload("home", PNG, 0)
    found, removing = threading.Event(), blobs.removing

    def announced() -> AbstractContextManager[None]:
        found.set()
        return removing()

    monkeypatch.setattr(blobs, "removing", announced)
    with ThreadPoolExecutor() as pool, blobs.adding():
        assert blobs.found("home", blob.digest) == blob
        sweeping = pool.submit(blobs.sweep, time.time())
        assert found.wait(10)
        blobs.keep(REF, [Wanted(blob)], begun=True)
        assert not sweeping.done()
    assert sweeping.result() == 0
    assert len(pooled(tmp_path)) == 1


def test_adding_and_sweeping_at_once_lose_nothing(blobs: Blobs, folders: Folders, tmp_path: Path) -> None:
    images = [picture() for _ in range(5)]
    refs = [ConversationRef("home", f"c{number}") for number in range(4)]
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            blobs.sweep(time.time())

    def work(ref: ConversationRef) -> None:
        for turn in range(30):
            kept = [keep(blobs, data, ref) for data in images]
            assert all(read(blobs, ref, blob) for blob in kept)
            assert [blobs.found("home", blob.digest) for blob in kept] == kept
            if turn % 3 == 0:
                folders.set_aside(ref)
                folders.discard(ref)
                folders.empty_trash()

    with ThreadPoolExecutor(6) as pool:
        sweeping = pool.submit(sweep)
        try:
            list(pool.map(work, refs))
        finally:
            over.set()
        sweeping.result()
    assert len(pooled(tmp_path)) == len(images)


def test_an_image_that_two_bring_at_once_is_written_once(
    blobs: Blobs, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, others = storing._write, [ConversationRef("home", "second")]
    with ThreadPoolExecutor() as pool:

        def write_while_another_comes(path: Path, data: bytes, at_s: float | None) -> None:
            if others:
                wait([pool.submit(keep, blobs, data, others.pop())], 0.2)
            write(path, data, at_s)

        monkeypatch.setattr(storing, "_write", write_while_another_comes)
        blob = keep(blobs)
    assert (folders.pool("home") / blob.digest).lstat().st_nlink == 3


def test_a_link_that_somebody_else_has_made_is_as_good(blobs: Blobs, folders: Folders) -> None:
    blob = keep(blobs)
    storing._link(folders.pool("home") / blob.digest, folders.images(REF) / blob.digest)
    assert read(blobs, REF, blob) == PNG
