"""What is kept of a call's output, and what of it is shown."""

from __future__ import annotations

import stat
import tracemalloc
from pathlib import Path

import pytest

from hermes_ws.tools.output import OutputKeeper

ADDRESS = "/api/conversations/demo/tool-calls/call_1/output"


def keeper(directory: Path, *, preview: int = 1_000, keep: int = 1_000_000) -> OutputKeeper:
    return OutputKeeper(directory / "call_1", preview_bytes=preview, keep_bytes=keep, address=ADDRESS)


def test_what_fits_the_preview_makes_no_file(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    kept.write("x" * 500)
    kept.write("y" * 500)
    kept.close()
    assert kept.preview() == ("x" * 500 + "y" * 500, False)
    assert kept.path is None
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_is_kept_whole(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    for n in range(500):
        kept.write(f"line {n} €\n")
    kept.close()
    assert kept.path == tmp_path / "call_1"
    assert kept.path.read_text() == "".join(f"line {n} €\n" for n in range(500))
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    assert kept.dropped_bytes == 0


def test_a_preview_is_the_beginning_and_the_end(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    text = "".join(f"{n:07}\n" for n in range(1_000))
    kept.write(text)
    kept.close()
    preview, cut = kept.preview()
    head, marker, tail = preview.partition("\n[")[0], preview.split("\n[")[1].split("]\n")[0], preview.split("]\n")[1]
    assert cut
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(preview) <= 1_000
    assert 2.5 < len(head) / len(tail) < 3.5
    assert f"{len(text) - len(head) - len(tail)} bytes" in marker
    assert ADDRESS in marker


@pytest.mark.parametrize("size", range(200, 216))
def test_no_character_is_split(tmp_path: Path, size: int) -> None:
    kept = keeper(tmp_path, preview=size, keep=size * 2)
    kept.write("€😀ä" * 500)
    kept.close()
    preview, _ = kept.preview()
    assert "�" not in preview
    assert len(preview.encode()) <= size
    assert (tmp_path / "call_1").read_text().startswith("€😀ä€")


@pytest.mark.parametrize("size", [0, 1, 3, 40])
def test_a_preview_too_small_for_its_marker_keeps_its_bound(tmp_path: Path, size: int) -> None:
    kept = keeper(tmp_path, preview=size)
    kept.write("€" * 100)
    preview, cut = kept.preview()
    assert len(preview.encode()) <= size
    assert cut
    kept.close()


def test_what_is_too_much_is_dropped_and_said_so(tmp_path: Path) -> None:
    kept = keeper(tmp_path, keep=2_000)
    kept.write("x" * 1_999)
    kept.write("€" * 10)
    kept.write("y")
    assert kept.dropped_bytes == 31
    assert "the first 1999 bytes of the output" in kept.preview()[0]
    kept.close()
    assert (tmp_path / "call_1").read_text() == "x" * 1_999 + "\n[31 more bytes were dropped]\n"
    assert kept.total_bytes == 2_030


def test_memory_is_bounded_by_the_preview(tmp_path: Path) -> None:
    kept = keeper(tmp_path, preview=10_000, keep=100_000)
    chunk = "x" * 60_000
    kept.write(chunk)
    tracemalloc.start()
    for _ in range(1_000):
        kept.write(chunk)
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()
    kept.close()
    assert kept.path is not None
    assert kept.path.stat().st_size < 100_100


def test_a_second_attempt_of_the_call_starts_anew(tmp_path: Path) -> None:
    for text in ("first" * 1_000, "second" * 500):
        kept = keeper(tmp_path)
        kept.write(text)
        kept.close()
    assert (tmp_path / "call_1").read_text() == "second" * 500


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "call_1").symlink_to("other")
    kept = keeper(tmp_path)
    kept.write("x" * 2_000)
    assert "could not be kept" in kept.preview()[0]
    assert kept.path is None
    assert (tmp_path / "other").read_text() == "other"


def test_a_disk_that_fails_does_not_fail_the_call(tmp_path: Path) -> None:
    (tmp_path / "no directory").write_text("")
    kept = keeper(tmp_path / "no directory")
    kept.write("x" * 2_000)
    kept.write("y" * 2_000)
    kept.close()
    preview, cut = kept.preview()
    assert "could not be kept: File exists" in preview
    assert cut
    assert kept.dropped_bytes == 4_000


def test_half_a_surrogate_pair_does_no_harm(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    kept.write("a\ud800b")
    assert kept.preview() == ("a?b", False)


def test_closing_twice_is_closing(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    kept.write("x" * 2_000)
    kept.close()
    kept.close()
    assert kept.preview()[1]
