import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from quickstudy.errors import DataError, DataNotFoundError
from quickstudy.tasks import fetch

CONTENT = bytes(range(256)) * 8192  # 2 MiB: several reads
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9/file.zip"  # the discard port: nobody answers


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


@pytest.fixture
def server():
    """The address of a server of CONTENT, which breaks off half-way where the path says so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing":
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def put(folder: Path, content: bytes = CONTENT) -> Path:
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "file.zip").write_bytes(content)
    return folder / "set" / "file.zip"


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert fetch.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("QUICKSTUDY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch.cache_folder() == tmp_path / "xdg" / "quickstudy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / ".cache" / "quickstudy"


def test_asking_for_the_cache_does_not_make_it(tmp_path):
    fetch.cache_folder()
    assert not (tmp_path / "cache").exists()


def test_the_users_folder_comes_before_the_cache(monkeypatch, tmp_path):
    cached = put(tmp_path / "cache")
    assert fetch.find("set/file.zip", url=NOWHERE, checksum=SHA256) == cached
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "data"))
    own = put(tmp_path / "data")
    assert fetch.find("set/file.zip", url=NOWHERE, checksum=MD5) == own


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_a_download_is_checked_and_kept_in_the_cache(server, tmp_path, checksum):
    path = fetch.find("set/file.zip", url=server, checksum=checksum)
    assert path == tmp_path / "cache" / "set" / "file.zip"
    assert path.read_bytes() == CONTENT
    assert fetch.find("set/file.zip", url=NOWHERE, checksum=checksum) == path
    assert leftovers(tmp_path) == ["file.zip"]


def test_progress_is_told_in_bytes_to_the_end(server):
    told = []
    fetch.find("set/file.zip", url=server, checksum=SHA256, on_progress=lambda *step: told.append(step))
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_download_that_is_not_the_official_file_is_not_kept(server, tmp_path):
    with pytest.raises(DataError, match=r"is not the official file: its sha256 is .*, not 00\. Try again"):
        fetch.find("set/file.zip", url=server, checksum="sha256:00")
    assert leftovers(tmp_path) == []


def test_a_download_that_breaks_off_is_not_kept_and_says_how_far_it_came(server, tmp_path):
    with pytest.raises(DataNotFoundError, match="closed after 1,048,576 of 2,097,152 bytes"):
        fetch.find("set/file.zip", url=f"{server}/half", checksum=SHA256)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("path", "reason"), [("", "refused"), ("/missing", "Not Found")])
def test_offline_the_error_says_what_to_put_where(server, tmp_path, path, reason):
    url = f"{server}{path}" if path else NOWHERE
    with pytest.raises(DataNotFoundError, match=reason) as error:
        fetch.find("set/file.zip", url=url, checksum=SHA256)
    assert url in str(error.value)
    assert "QUICKSTUDY_DATA is not set" in str(error.value)
    assert str(tmp_path / "cache" / "set" / "file.zip") in str(error.value)


def test_offline_the_error_names_the_users_folder_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("QUICKSTUDY_DATA", str(tmp_path / "data"))
    with pytest.raises(DataNotFoundError, match="data, which QUICKSTUDY_DATA names"):
        fetch.find("set/file.zip", url=NOWHERE, checksum=SHA256)


def test_a_damaged_file_that_is_there_is_named_and_left_alone(tmp_path):
    cached = put(tmp_path / "cache", b"damaged")
    with pytest.raises(DataError, match=r"file\.zip is not the official file.*Delete it"):
        fetch.find("set/file.zip", url=NOWHERE, checksum=SHA256)
    assert cached.read_bytes() == b"damaged"


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be written .*let QUICKSTUDY_CACHE name another folder"):
        fetch.find("set/file.zip", url=server, checksum=SHA256)


def test_a_block_that_fails_leaves_the_previous_file_intact(tmp_path):
    target = tmp_path / "kept"
    target.write_text("previous")

    def write_half() -> None:
        with fetch.atomically(target) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "previous"
    assert leftovers(tmp_path) == ["kept"]


def test_arrays_are_built_once_and_then_remembered():
    built = []

    def build():
        built.append(1)
        return {"x": np.arange(3)}

    first, second = fetch.remember("set/x.npz", build), fetch.remember("set/x.npz", build)
    assert built == [1]
    np.testing.assert_array_equal(first["x"], second["x"])


def test_damaged_arrays_are_built_again(tmp_path):
    put(tmp_path / "cache", b"PK\x03\x04 not an archive")
    assert fetch.remember("set/file.zip", lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    with np.load(tmp_path / "cache" / "set" / "file.zip") as stored:
        assert stored["x"].tolist() == [0, 1, 2]


def test_arrays_are_built_even_where_nothing_can_be_kept(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert fetch.remember("set/x.npz", lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    assert "cannot be written" in caplog.text
