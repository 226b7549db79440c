from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from flask_prodserve.errors import ExitCode, LogFileError
from flask_prodserve.observe.access_log import MAX_LINE, AccessLog, open_access_log
from flask_prodserve.observe.events import RequestDone
from serving import PATIENCE, wait_until

EVENT = RequestDone(
    finished_at=1795233289.1234,  # 2026-11-21 03:54:49 UTC
    remote_addr="203.0.113.9",
    method="GET",
    target="/path?q=1",
    protocol="HTTP/1.1",
    status=200,
    response_bytes=123,
    referer="https://example.com/",
    user_agent="Mozilla/5.0 (X11)",
    host="shop.example",
    app_seconds=0.0012341,
    total_seconds=0.0023449,
)

COMBINED = re.compile(
    r"(?P<remote_addr>[^ ]+) - - \[(?P<time>[^]]+)\] "
    r'"(?P<request>-|(?P<method>[^ "]+) (?P<target>[^ "]+) (?P<protocol>[^ "]+))" (?P<status>\d{3}) (?P<bytes>\d+) '
    r'"(?P<referer>[^"]+)" "(?P<user_agent>[^"]+)" app=(?P<app>\d+\.\d{3})ms total=(?P<total>\d+\.\d{3})ms'
)

# Every text of an event that comes from the client, or from the proxy that it talks to.
TEXTS = ("remote_addr", "method", "target", "protocol", "referer", "user_agent", "host")

FORGERIES = {
    "newline": 'x\n1.2.3.4 - - [21/Nov/2026:03:54:49 +0000] "GET / HTTP/1.1" 200 1 "-" "-" app=0.000ms total=0.000ms',
    "carriage return": "x\rforged",
    "quote": 'x" 200 1 "-" "forged',
    "backslash": 'x\\" forged',
    "backslash at the end": "x\\",
    "what looks escaped": "x\\x22",
    "escape sequence": "\x1b[2Kforged",
    "control": "\x00\x07\x08\x7f\x9b",
    "line separators": "x\x0b\x0c\x1c\x1d\x1e\x85forged",
    "non-ASCII": "\xe4\xff\xa0",
    "blank": "GET / HTTP/1.1",
    "bracket": "] [x]",
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with timezone(monkeypatch, "UTC"):
        yield


@contextlib.contextmanager
def timezone(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@contextlib.contextmanager
def opened(destination: str | Path, format: str = "combined") -> Iterator[AccessLog]:
    log = open_access_log(str(destination), format)
    assert log is not None
    try:
        yield log
    finally:
        log.close()


def with_texts(names: Iterable[str], text: str) -> RequestDone:
    return EVENT._replace(**dict.fromkeys(names, text))  # type: ignore[arg-type]  # the names are those of texts


def written(tmp_path: Path, format: str, event: RequestDone) -> str:
    """The one line that is logged of *event*."""
    with opened(tmp_path / "access.log", format) as log:
        log.log(event)
    data = (tmp_path / "access.log").read_bytes()
    (tmp_path / "access.log").unlink()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert len(data) <= MAX_LINE
    return data[:-1].decode("ascii")


# What a line says.


def test_combined(tmp_path: Path) -> None:
    """The combined format is Apache's, followed by the times in milliseconds."""
    assert written(tmp_path, "combined", EVENT) == (
        '203.0.113.9 - - [21/Nov/2026:03:54:49 +0000] "GET /path?q=1 HTTP/1.1" 200 123 '
        '"https://example.com/" "Mozilla/5.0 (X11)" app=1.234ms total=2.345ms'
    )


def test_json(tmp_path: Path) -> None:
    """The json format is one object with everything that an event holds."""
    assert json.loads(written(tmp_path, "json", EVENT)) == {
        "time": "2026-11-21T03:54:49.123Z",
        "remote_addr": "203.0.113.9",
        "method": "GET",
        "target": "/path?q=1",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 123,
        "referer": "https://example.com/",
        "user_agent": "Mozilla/5.0 (X11)",
        "host": "shop.example",
        "app_ms": 1.234,
        "total_ms": 2.345,
    }


@pytest.mark.parametrize(
    ("zone", "finished_at", "expected"),
    [
        ("IST-5:30", 1795233288.0, "21/Nov/2026:09:24:48 +0530"),
        ("EST5", 1795233287.999, "20/Nov/2026:22:54:47 -0500"),
        ("CET-1", 1767222000.0, "01/Jan/2026:00:00:00 +0100"),
    ],
)
def test_combined_has_local_time_with_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, finished_at: float, expected: str
) -> None:
    """Combined lines have local time with its offset, as Apache and nginx write it."""
    with timezone(monkeypatch, zone):
        assert f"[{expected}]" in written(tmp_path, "combined", EVENT._replace(finished_at=finished_at))


@pytest.mark.parametrize(
    ("finished_at", "expected"),
    [(1795233289.0, "03:54:49.000Z"), (1795233289.9994, "03:54:49.999Z"), (1795233289.9996, "03:54:50.000Z")],
)
def test_json_has_milliseconds_in_utc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_at: float, expected: str
) -> None:
    """Times in json are UTC, rounded to milliseconds, whatever the zone of the process."""
    with timezone(monkeypatch, "IST-5:30"):
        line = written(tmp_path, "json", EVENT._replace(finished_at=finished_at))
    assert json.loads(line)["time"] == f"2026-11-21T{expected}"


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    """A malformed request of a Unix socket's peer has a dash for its address, its request line, and each missing field."""
    event = with_texts(TEXTS, "")._replace(status=400, app_seconds=0.0)
    assert written(tmp_path, "combined", event) == (
        '- - - [21/Nov/2026:03:54:49 +0000] "-" 400 123 "-" "-" app=0.000ms total=2.345ms'
    )


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_text_forges_a_combined_line(tmp_path: Path, name: str, forgery: str) -> None:
    """Whatever a text holds, it stays in its field of the one line, and the other fields are what they were."""
    honest = COMBINED.fullmatch(written(tmp_path, "combined", EVENT))
    line = written(tmp_path, "combined", with_texts([name], FORGERIES[forgery]))
    match = COMBINED.fullmatch(line)
    assert honest is not None
    assert match is not None
    assert line.isprintable()
    for field, value in honest.groupdict().items():
        if field == name:
            escaped = match[field]
            assert re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), escaped) == FORGERIES[forgery]
        elif field != "request":
            assert match[field] == value


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_text_forges_a_json_line(tmp_path: Path, name: str, forgery: str) -> None:
    """Whatever a text holds, the line is one object of ASCII from which it can be read back."""
    honest = json.loads(written(tmp_path, "json", EVENT))
    assert json.loads(written(tmp_path, "json", with_texts([name], FORGERIES[forgery]))) == honest | {
        name: FORGERIES[forgery]
    }


@pytest.mark.parametrize("format", ["combined", "json"])
@pytest.mark.parametrize("character", ["x", "\xff", '"', "\n", " "])
@pytest.mark.parametrize("length", [500, 1000, 30000])
def test_line_is_shortened_to_what_a_pipe_takes_whole(tmp_path: Path, format: str, character: str, length: int) -> None:
    """However long texts are, and however they are escaped, the line fits, and still shows the address and the method."""
    address = "2001:db8:1234:5678:9abc:def0:1234:5678"
    event = with_texts(["target", "referer", "user_agent", "host"], character * length)
    line = written(tmp_path, format, event._replace(remote_addr=address, method="PROPPATCH"))
    assert address in line
    assert "PROPPATCH" in line
    assert COMBINED.fullmatch(line) if format == "combined" else json.loads(line)


@pytest.mark.parametrize("format", ["combined", "json"])
@pytest.mark.parametrize("character", ["x", "\xff"])
def test_line_fits_even_if_every_text_is_long(tmp_path: Path, format: str, character: str) -> None:
    """Also an address and a method that an app or a client made up cannot make a line longer than a pipe takes."""
    written(tmp_path, format, with_texts(set(TEXTS) - {"protocol"}, character * 30000))


def test_target_is_not_shortened_needlessly(tmp_path: Path) -> None:
    """A long target is whole where the line fits; where it does not, 1800 characters of it are kept, and dots show the cut."""
    assert f"GET /{'x' * 3000} HTTP" in written(tmp_path, "combined", EVENT._replace(target="/" + "x" * 3000))
    assert f"GET /{'x' * 1796}... HTTP" in written(tmp_path, "combined", EVENT._replace(target="/" + "x" * 30000))


# Where it goes.


def test_off_is_no_log() -> None:
    """ "off" opens nothing."""
    assert open_access_log("off", "combined") is None


@pytest.mark.parametrize(("destination", "stream"), [("stdout", "out"), ("-", "out"), ("stderr", "err")])
def test_standard_streams(destination: str, stream: str) -> None:
    """Lines reach the standard stream of the process as soon as they are flushed, though Python would buffer it."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(destination=destination, count=1, end="log.flush(); os._exit(0)")],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    output = {"out": done.stdout, "err": done.stderr}
    assert COMBINED.fullmatch(output.pop(stream).decode("ascii").removesuffix("\n"))
    assert set(output.values()) == {b""}


SCRIPT = """
import os, sys
from flask_prodserve.observe.access_log import open_access_log
from flask_prodserve.observe.events import RequestDone
event = RequestDone(0.0, "203.0.113.9", "GET", "/" + sys.argv[-1] * 30000, "HTTP/1.1", 200, 0, "", "", "", 0.0, 0.0)
log = open_access_log({destination!r}, "combined")
for _ in range({count}):
    log.log(event)
{end}
"""


def test_stream_without_descriptor(capsys: pytest.CaptureFixture[str]) -> None:
    """Where standard output has been replaced by a stream without descriptor, as test suites do, lines go through that."""
    with pytest.raises(OSError, match="fileno"):
        sys.stdout.fileno()
    with opened("stdout") as log:
        log.log(EVENT)
        assert COMBINED.fullmatch(capsys.readouterr().out.removesuffix("\n"))


def test_closing_leaves_standard_output_open(capfd: pytest.CaptureFixture[str]) -> None:
    """Closing the log does not close a stream that belongs to the process, and reopening it is nothing."""
    with opened("stdout") as log:
        log.reopen()
        log.log(EVENT)
    print("still there")
    line, rest = capfd.readouterr().out.splitlines()
    assert COMBINED.fullmatch(line)
    assert rest == "still there"


def test_file_is_appended_to_and_not_for_everybody(tmp_path: Path) -> None:
    """An existing file is appended to; a new one may be read by owner and group."""
    path = tmp_path / "access.log"
    mask = os.umask(0)
    try:
        for _ in range(2):
            with opened(path) as log:
                log.log(EVENT)
    finally:
        os.umask(mask)
    assert len(path.read_text().splitlines()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux lists descriptors there")
def test_descriptor_is_not_inherited_and_goes_with_the_log(tmp_path: Path) -> None:
    """A child process does not get the log's descriptor, also after a rotation, and it is closed once the log is gone."""
    before = os.listdir("/proc/self/fd")
    log = open_access_log(str(tmp_path / "access.log"), "combined")
    assert log is not None
    log.reopen()
    log.flush()  # the log's thread opens the file
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    child = [sys.executable, "-c", "import os; print([os.path.realpath(f.path) for f in os.scandir('/proc/self/fd')])"]
    listed = subprocess.run(child, close_fds=False, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    assert "access.log" not in listed
    log.close()
    del log
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("path", ["", "missing/access.log", "file/access.log"])
def test_file_that_cannot_be_opened(tmp_path: Path, path: str) -> None:
    """A directory, a missing directory and a file for a directory are errors of the settings that name ACCESS_LOG."""
    (tmp_path / "file").touch()
    with pytest.raises(LogFileError) as caught:
        open_access_log(str(tmp_path / path), "combined")
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(tmp_path / path) in caught.value.what
    assert "ACCESS_LOG" in caught.value.hint


def test_no_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without standard output is told to set ACCESS_LOG."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(LogFileError, match="ACCESS_LOG is stdout") as caught:
        open_access_log("stdout", "combined")
    assert "ACCESS_LOG" in caught.value.hint


# Rotation.


def test_reopen_follows_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rotation reopen() writes to a new file of the old name, though the working directory has changed."""
    monkeypatch.chdir(tmp_path)
    with opened("access.log") as log:
        log.log(EVENT._replace(target="/first"))
        os.rename("access.log", "access.log.1")
        log.log(EVENT._replace(target="/second"))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        log.reopen()
        log.log(EVENT._replace(target="/third"))
    assert re.findall("/(first|second|third)", (tmp_path / "access.log.1").read_text()) == ["first", "second"]
    assert re.findall("/(first|second|third)", (tmp_path / "access.log").read_text()) == ["third"]


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the file cannot be opened again, lines go on to the old one, and a warning says so."""
    directory = tmp_path / "logs"
    directory.mkdir()
    with opened(directory / "access.log") as log:
        directory.rename(tmp_path / "moved")
        log.reopen()
        log.log(EVENT)
    assert len((tmp_path / "moved" / "access.log").read_text().splitlines()) == 1
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("flask_prodserve.access", "WARNING")
    assert "could not reopen" in record.getMessage()


def test_rotation_under_load_loses_nothing(tmp_path: Path) -> None:
    """While threads log, files are rotated away: every line is whole, and in one of the files."""
    threads, lines, rotations = 4, 300, 20
    path = tmp_path / "access.log"
    with opened(path) as log:

        def work(number: int) -> None:
            for index in range(lines):
                log.log(EVENT._replace(target=f"/{number}-{index}"))

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for rotation in range(rotations):
            path.rename(tmp_path / f"access.log.{rotation}")
            log.reopen()
            wait_until(path.exists, "a new file")
        for worker in workers:
            worker.join(timeout=PATIENCE)
    matches = [COMBINED.fullmatch(line) for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    targets = [match and match["target"] for match in matches]
    assert sorted(map(str, targets)) == sorted(
        f"/{number}-{index}" for number in range(threads) for index in range(lines)
    )


def test_lines_of_processes_on_one_pipe_do_not_mix() -> None:
    """Lines of the greatest length that threads of two processes write to one full pipe arrive whole."""
    reader, writer = os.pipe()
    end = "import threading\nt = [threading.Thread(target=lambda: [log.log(event) for _ in range(100)]) for _ in 'ab']"
    end += "\nfor x in t: x.start()\nfor x in t: x.join()"
    script = SCRIPT.format(destination="stdout", count=0, end=end)
    processes = [subprocess.Popen([sys.executable, "-c", script, letter], stdout=writer) for letter in "xy"]
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        lines = pipe.read().splitlines()
    assert [process.wait(timeout=PATIENCE) for process in processes] == [0, 0]
    assert len(lines) == 400
    assert all(COMBINED.fullmatch(line) for line in lines)
    assert {len(set(re.findall("/([xy]+)\\.\\.\\.", line)[0])) for line in lines} == {1}


def test_log_that_is_closed_writes_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A request that ends after close() is not logged, and not written into a file that has been opened since."""
    with opened(tmp_path / "access.log") as log:
        pass
    with contextlib.ExitStack() as others:
        for number in range(3):
            others.enter_context(open(tmp_path / f"other{number}", "w"))
        log.log(EVENT)
        log.close()
    assert {file.read_text() for file in tmp_path.iterdir()} == {""}
    assert caplog.messages == []


# When it cannot be written.


def lost_and_found(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {(record.name, record.levelname) for record in caplog.records} == {("flask_prodserve.access", "WARNING")}
    return caplog.messages


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is always full")
def test_full_disk_is_reported_once_and_again_when_it_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk lines are dropped with one warning; once there is room another one says how many they were."""
    path = tmp_path / "access.log"
    with opened(path) as log:
        for _ in range(2):
            path.unlink()
            path.symlink_to("/dev/full")
            log.reopen()
            for _ in range(3):
                log.log(EVENT)
            log.flush()
            path.unlink()
            log.reopen()
            for _ in range(2):
                log.log(EVENT)
            log.flush()
        assert len(path.read_text().splitlines()) == 2
    first, second, third, fourth = lost_and_found(caplog)
    assert (first, second) == (third, fourth)
    assert "No space left on device" in first
    assert second == "writing to the access log again; lines lost: 3"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for files")
def test_line_that_was_cut_does_not_spoil_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a line for which only a part had room the part stays, on a line of its own, and the rest never follows."""
    import resource  # not on Windows

    path = tmp_path / "access.log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path) as log:
        log.log(EVENT._replace(target="/first"))
        log.flush()
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, limits[1]))
        try:
            log.log(EVENT._replace(target="/second"))
            log.log(EVENT._replace(target="/third"))
            log.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        log.log(EVENT._replace(target="/fourth"))
        log.log(EVENT._replace(target="/fifth"))
        log.flush()
    first, piece, fourth, fifth = path.read_text().splitlines()
    assert all(COMBINED.fullmatch(line) for line in (first, fourth, fifth))
    assert len(piece) == 40
    assert ["/first" in first, "/fourth" in fourth, "/fifth" in fifth] == [True, True, True]
    assert lost_and_found(caplog) == [
        "could not write to the access log, losing lines: [Errno 5] only a part of a line was written",
        "writing to the access log again; lines lost: 2",
    ]


def test_closed_pipe_fails_no_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Lines for a reader that has gone away are dropped, with one warning from however many threads."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with opened("stdout") as log:
            workers = [threading.Thread(target=log.log, args=(EVENT,)) for _ in range(8)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(timeout=PATIENCE)
    (message,) = caplog.messages
    assert "Broken pipe" in message


def test_closed_stream_fails_no_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Lines for a stream that somebody has closed are dropped."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with opened("stdout") as log:
        stream.close()
        log.log(EVENT)
    (message,) = lost_and_found(caplog)
    assert "closed file" in message
