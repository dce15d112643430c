import errno
import json
import os
import stat
import sys
import time
import warnings

import pytest
import torch

from quickstudy.artefacts import (
    MANIFEST,
    WEIGHTS,
    Artefact,
    read_artefact,
    write_artefact,
    write_atomically,
    write_together,
)
from quickstudy.errors import ArtefactError, DamagedArtefactError, DataNotFoundError, ForeignArtefactError
from quickstudy.errors import NewerArtefactError as Newer

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3), "empty": torch.zeros(0)}


def write(folder, kind="learner", **settings):
    write_artefact(folder, Artefact(kind, {"name": "otter", **settings}, TENSORS))


def change(folder, **values):
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "new" / "folder", text="ü", nested={"list": [1, 2.5, None, True]})
    found = read_artefact(tmp_path / "new" / "folder", "learner")
    assert found.settings == {"name": "otter", "text": "ü", "nested": {"list": [1, 2.5, None, True]}}
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in TENSORS.items())


def test_settings_are_read_as_json_keeps_them(tmp_path):
    write_artefact(tmp_path, Artefact("learner", {"rates": {10: 0.2, 2: 0.1}, "size": (1, 2)}, {}))
    assert read_artefact(tmp_path, "learner").settings == {"rates": {"10": 0.2, "2": 0.1}, "size": [1, 2]}


def test_an_artefact_is_two_files_that_others_may_read(tmp_path):
    write(tmp_path)
    assert sorted(files(tmp_path)) == [MANIFEST, WEIGHTS]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in tmp_path.iterdir())


def test_what_a_killed_process_left_behind_goes_after_an_hour(tmp_path):
    write_atomically(tmp_path / "a.bin", b"1")
    old, new, other = (tmp_path / name for name in (".a.bin.x1.tmp", ".a.bin.x2.tmp", ".b.bin.x1.tmp"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 4000,) * 2)
    write_atomically(tmp_path / "a.bin", b"2")
    assert sorted(files(tmp_path)) == sorted([new.name, other.name, "a.bin"])


def test_an_artefact_without_tensors_can_be_kept(tmp_path):
    write_artefact(tmp_path, Artefact("learner", {}, {}))
    assert read_artefact(tmp_path, "learner").tensors == {}


def test_tensors_that_share_memory_and_views_can_be_kept(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    write_artefact(tmp_path, Artefact("learner", {}, {"one": whole, "same": whole, "turned": whole.T}))
    found = read_artefact(tmp_path, "learner").tensors
    assert torch.equal(found["one"], found["same"])
    assert torch.equal(found["turned"], whole.T)


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5])


def flip(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def cut_manifest(folder):
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:40])


@pytest.mark.parametrize(
    ("damage", "error", "told"),
    [
        (truncate, DamagedArtefactError, "bytes that do not match their checksum"),
        (flip, DamagedArtefactError, "do not match their checksum"),
        (lambda folder: (folder / WEIGHTS).unlink(), DamagedArtefactError, "is missing"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), DamagedArtefactError, "is missing"),
        (lambda folder: (folder / MANIFEST).unlink(), DataNotFoundError, "holds no prior"),
        (cut_manifest, DamagedArtefactError, "is not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"), DamagedArtefactError, "not readable JSON"),
        (lambda folder: (folder / MANIFEST).write_text('{"name": "left-pad"}'), ForeignArtefactError, "not written by"),
        (lambda folder: (folder / MANIFEST).write_text("[1, 2]"), ForeignArtefactError, "not written by quickstudy"),
        (lambda folder: change(folder, quickstudy="1"), ForeignArtefactError, "no format number"),
        (lambda folder: change(folder, quickstudy=99), Newer, "has format 99.*Upgrade quickstudy"),
        (lambda folder: change(folder, kind="proposer"), ForeignArtefactError, "holds a 'proposer'; a 'learner' was"),
        (lambda folder: change(folder, settings=None), DamagedArtefactError, "settings"),
        (lambda folder: change(folder, settings={"n_way": "5"}), DamagedArtefactError, "do not match their checksum"),
    ],
)
def test_what_is_damaged_foreign_or_newer_says_so_and_is_left_as_it_is(tmp_path, damage, error, told):
    write(tmp_path)
    damage(tmp_path)
    before = files(tmp_path)
    with pytest.raises(error, match=told) as raised:
        read_artefact(tmp_path, "learner")
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == before


def test_weights_that_are_no_safetensors_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    import hashlib
    import pickle

    write(tmp_path)
    content = pickle.dumps(Bomb())
    (tmp_path / WEIGHTS).write_bytes(content)
    change(tmp_path, weights_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ArtefactError, match="not a safetensors file"):
        read_artefact(tmp_path, "learner")


def fill_the_disk(monkeypatch, call: int) -> None:
    """There is no room for the n-th file that is to be on the disk."""
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("call", [1, 2])
def test_files_that_belong_together_are_replaced_together_or_not_at_all(tmp_path, monkeypatch, call):
    paths = tmp_path / "table.csv", tmp_path / "report.html"
    write_together(dict.fromkeys(paths, b"old"))
    fill_the_disk(monkeypatch, call)
    with pytest.raises(OSError, match="No space left"):
        write_together(dict.fromkeys(paths, b"new"))
    assert files(tmp_path) == {path.name: b"old" for path in paths}
    write_together(dict.fromkeys(paths, b"new"))
    assert files(tmp_path) == {path.name: b"new" for path in paths}


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_the_previous_artefact_whole(tmp_path, monkeypatch, call):
    write(tmp_path)
    before = files(tmp_path)
    fill_the_disk(monkeypatch, call)  # at the weights, or at the manifest after them
    with pytest.raises(OSError, match="No space left"):
        write_artefact(tmp_path, Artefact("learner", {"name": "new"}, {"a": torch.ones(50)}))
    assert files(tmp_path) == before
    assert read_artefact(tmp_path, "learner").settings["name"] == "otter"


def killed_before(event: int, folder, name, tensors) -> bool:
    """Writes in a process that ends, as by kill -9, before its n-th change to the disk; whether it came to that."""
    changes = {"open", "os.mkdir", "os.chmod", "os.rename", "os.remove"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which do nothing here
        child = os.fork()
    if child == 0:
        left = event

        def count(happens, arguments):
            nonlocal left
            if happens in changes and str(folder) in str(arguments[0]):
                left -= 1
                if left < 0:
                    os._exit(9)

        try:
            sys.addaudithook(count)
            write_artefact(folder, Artefact("learner", {"name": name}, tensors))
            os._exit(0)
        finally:
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, 9)
    return ended == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("again", [False, True], ids=["once", "and again at the next writing"])
def test_a_kill_at_any_moment_leaves_the_old_artefact_or_the_new_one(tmp_path, again):
    old, new, newer = torch.zeros(5), torch.ones(50), torch.full((3,), 2.0)
    found, event, killed = [], 0, True
    while killed:
        folder = tmp_path / str(event)
        write_artefact(folder, Artefact("learner", {"name": "old"}, {"a": old}))
        killed = killed_before(event, folder, "new", {"a": new})
        read = read_artefact(folder, "learner")
        found.append(read.settings["name"])
        assert torch.equal(read.tensors["a"], {"old": old, "new": new}[found[-1]])
        if again:  # a writing that is cut off after one that was cut off
            for later in range(event % 3, event + 1, 3):
                killed_before(later, folder, "newer", {"a": newer})
                read = read_artefact(folder, "learner")
                expected = {"old": old, "new": new, "newer": newer}[read.settings["name"]]
                assert torch.equal(read.tensors["a"], expected)
        event += 1
        write_artefact(folder, Artefact("learner", {"name": "last"}, {"a": old}))
        assert torch.equal(read_artefact(folder, "learner").tensors["a"], old)
        assert not list(folder.glob(".weights.*.safetensors"))
    assert found == sorted(found, reverse=True), "it never goes back"
    assert {"old", "new"} == set(found)
    assert len(found) > 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_kill_while_the_first_artefact_is_written_leaves_none_or_all_of_it(tmp_path):
    event = 0
    while killed_before(event, folder := tmp_path / str(event), "new", TENSORS):
        if (folder / MANIFEST).exists():
            assert read_artefact(folder, "learner").settings["name"] == "new"
        event += 1


def test_settings_that_are_no_json_change_nothing(tmp_path):
    write(tmp_path)
    before = files(tmp_path)
    for value in (float("nan"), torch.ones(1)):
        with pytest.raises((ValueError, TypeError)):
            write(tmp_path, bad=value)
    assert files(tmp_path) == before


def test_a_file_takes_the_place_of_another_only_when_it_is_whole(tmp_path):
    path = tmp_path / "note.txt"
    write_atomically(path, b"old")
    handle = path.open("rb")
    write_atomically(path, b"new")
    assert handle.read() == b"old"  # who reads the old one goes on reading it
    handle.close()
    assert files(tmp_path) == {"note.txt": b"new"}


def test_names_that_are_no_unicode_come_back(tmp_path):
    settings = {"class_names": ["caf\udce9", "Ärger"]}
    write_artefact(tmp_path, Artefact("learner", settings, {"a": torch.zeros(1)}))
    assert read_artefact(tmp_path, "learner").settings == settings
