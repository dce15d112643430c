import importlib.util
import json
import socket
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "result.py"


@pytest.fixture(scope="module")
def result():
    spec = importlib.util.spec_from_file_location("result", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["result"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["result"]


def test_rows_are_there_as_soon_as_they_are_added_and_a_second_run_knows_them(result, tmp_path):
    first = result.Result("speed", settings={"steps": (1, 5)}, folder=tmp_path)
    assert not first.has("maml", "1 step", "seconds")
    first.add("maml", "1 step", "seconds", 0.5, ci95=0.1, n=10, seconds=5)
    second = result.Result("speed", settings={"steps": (1, 5)}, folder=tmp_path)
    assert second.has("maml", "1 step", "seconds")
    assert not second.has("maml", "1 step", "seconds", seed=0)
    content = json.loads((tmp_path / "speed.json").read_text())
    assert list(content) == ["benchmark", "description", "commit", "date", "machine", "versions", "settings", "rows"]
    assert [p.name for p in tmp_path.iterdir()] == ["speed.json"]


def test_a_unit_that_runs_again_replaces_its_row_where_it_stood(result, tmp_path):
    written = result.Result("speed", folder=tmp_path)
    for seed in (0, 1):
        written.add("maml", "1 step", "seconds", 0.5, seed=seed)
    written.add("maml", "1 step", "seconds", 0.7, source="A paper")
    written.add("maml", "1 step", "seconds", 0.4, seed=0)
    assert [(row["value"], row.get("seed"), row.get("source")) for row in written.rows] == [
        (0.4, 0, None),
        (0.5, 1, None),
        (0.7, None, "A paper"),
    ]


def test_two_runs_side_by_side_keep_each_others_rows(result, tmp_path):
    one, two = result.Result("speed", folder=tmp_path), result.Result("speed", folder=tmp_path)
    one.add("a", "s", "m", 1.0)
    two.add("b", "s", "m", 2.0)
    assert one.has("b", "s", "m")
    assert two.has("a", "s", "m")


def test_rows_of_other_settings_are_not_mixed(result, tmp_path):
    result.Result("speed", settings={"steps": 1}, folder=tmp_path).add("a", "s", "m", 1.0)
    with pytest.raises(ValueError, match=r"steps = 1; this run has 2"):
        result.Result("speed", settings={"steps": 2}, folder=tmp_path)


def test_what_is_not_a_number_is_null(result, tmp_path):
    result.Result("speed", folder=tmp_path).add("a", "s", "m", float("nan"))
    row = json.loads((tmp_path / "speed.json").read_text())["rows"][0]
    assert (row["value"], row["why"]) == (None, "not finite")


def test_the_header_names_no_host_and_no_path(result):
    header = result.Result("speed").header
    assert socket.gethostname() not in map(str, header["machine"].values())
    header = json.dumps(header)
    assert str(Path.home()) + "/" not in header
    assert str(SCRIPT.parents[1]) not in header


def test_every_measured_row_tells_its_processor_and_no_published_one_does(result, tmp_path, monkeypatch):
    written = result.Result("speed", folder=tmp_path)
    for cpu in ("one", "another"):
        monkeypatch.setattr(result, "cpu", lambda cpu=cpu: cpu)
        written.add("maml", "1 step", "seconds", 0.5, seed=len(written.rows))
    written.add("maml", "1 step", "seconds", 0.7, source="A paper")
    assert [row.get("cpu") for row in written.rows] == ["one", "another", None]
