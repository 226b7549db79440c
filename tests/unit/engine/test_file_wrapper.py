"""What apps and middleware see of wsgi.file_wrapper."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

from flask_prodserve.engine.exchange.file_wrapper import FileWrapper


class Pipe:
    """Can be read, and nothing else."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


@pytest.mark.parametrize("file", [io.BytesIO(b"0123456789"), Pipe(b"0123456789")], ids=["file", "pipe"])
def test_it_looks_like_a_stream(file: object) -> None:
    """It has no length, so that Werkzeug's is_streamed holds, and gives the file in blocks."""
    wrapper = FileWrapper(file, 4)
    with pytest.raises(TypeError):
        len(wrapper)  # type: ignore[arg-type]  # which is the point
    assert Response(wrapper, direct_passthrough=True).is_streamed
    assert list(wrapper) == [b"0123", b"4567", b"89"]


def test_it_can_seek_if_its_file_can() -> None:
    """Werkzeug checks for ``seekable`` before it sends a range, and middleware may read."""
    wrapper = FileWrapper(io.BytesIO(b"0123456789"))
    assert wrapper.seekable()
    assert wrapper.seek(3) == wrapper.tell() == 3
    assert wrapper.bytes_left(None) == 7
    assert wrapper.bytes_left(2) == 2
    assert wrapper.read(2) == b"34"
    assert not hasattr(FileWrapper(Pipe(b"")), "seekable")
    assert FileWrapper(Pipe(b"0123")).bytes_left(None) == 0


def test_it_closes_its_file(tmp_path: Path) -> None:
    """Closing it closes the file; what cannot be closed is no error."""
    (tmp_path / "file").write_bytes(b"content")
    file = (tmp_path / "file").open("rb")
    FileWrapper(file).close()
    assert file.closed
    FileWrapper(Pipe(b"")).close()
