import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PACKAGES = {"torchopt_maml": "torchopt", "higher_maml": "higher", "metalearn_maml": "metalearn"}


@pytest.fixture(scope="module")
def speed(script):
    return script("maml_speed")


def doubled(problem):
    def double(value):
        return value.double() if value.is_floating_point() else value

    return replace(problem, tasks=problem.tasks.map(double), start=tuple(map(double, problem.start)))


def method_names():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import maml_speed

        return list(maml_speed.METHODS)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", method_names())
def test_every_method_finds_the_same_loss_and_meta_gradient(speed, name, steps):
    method = speed.METHODS[name]
    if method.module in PACKAGES:
        pytest.importorskip(PACKAGES[method.module], reason="in the extra `bench`")
    problem = doubled(speed.make_problem(speed.Size(tasks=2, width=4, side=16, n_query=2), steps, "cpu"))
    ours = speed.copied(speed.METHODS["quickstudy"].prepare(problem)())
    iterate = method.prepare(problem)
    first = speed.copied(iterate())
    second = iterate()
    for found in (first, second):
        assert found.loss.item() == pytest.approx(ours.loss.item(), rel=1e-6)
        # parallel-metalearn keeps its inner rate in float32
        assert speed.relative_error(found.gradients, ours.gradients) < (1e-7 if "metalearn" in name else 1e-10)


def test_a_method_that_does_other_work_is_refused(speed):
    problem = speed.make_problem(speed.Size(tasks=2, width=4, side=16, n_query=2), 1, "cpu")
    plain = speed.METHODS["plain autograd loop"]
    ours, other = plain.prepare(problem)(), plain.prepare(replace(problem, lr=0.2))()
    assert speed.check("plain", ours, ours, 1) == 0
    with pytest.raises(AssertionError, match="does not do the same work"):
        speed.check("plain", other, ours, 1)


@pytest.mark.parametrize(("steps", "gflop"), [(1, 5.21), (5, 8.65)])
def test_the_floor_counts_what_torch_counts_but_for_gradients_of_the_pictures(speed, steps, gflop):
    size = speed.Size(tasks=1)
    needed = speed.floating_point_operations(size, steps)
    assert needed / 1e9 == pytest.approx(gflop, abs=0.005)
    assert needed < speed.counted_operations(speed.make_problem(size, steps, "cpu")) < 1.005 * needed


def test_a_busy_machine_is_refused_unless_told(speed, monkeypatch, capsys):
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert not speed.is_idle(anyway=False)
    assert "load over the last minute is 3.00" in capsys.readouterr().err
    assert speed.is_idle(anyway=True)
    assert "Going on" in capsys.readouterr().err
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (0.0, 9.0, 9.0))
    assert speed.is_idle(anyway=False)


def test_the_best_peer_is_no_method_of_ours(speed, tmp_path):
    import result

    written = result.Result("maml_speed", folder=tmp_path)
    size = speed.Size()
    rate = speed.floating_point_operations(size, 1)  # a second of work
    seconds = {"quickstudy": [2.0] * 7, "plain autograd loop": [6.0] * 7, "torchopt": [4.0] * 7}
    speed.add_rows(written, 1, speed.Comparison(seconds, [rate] * 7, memory={"quickstudy": 100.0}), size)
    values = {(row["method"], row["metric"]): row["value"] for row in written.rows}
    assert values["floor", speed.SECONDS] == pytest.approx(1)
    assert [values[name, speed.SPEED] for name in seconds] == [2, pytest.approx(4 / 6), 1]
    assert values["quickstudy", speed.SHARE] == pytest.approx(50)
    assert values["quickstudy", speed.MEMORY] == 100
    assert all(row["setting"] == "1 step" for row in written.rows)


def test_intervals_of_medians_are_zero_where_nothing_varies_and_hold_most_of_what_does(speed):
    assert speed.median_interval([2.0] * 9) == 0
    assert speed.ratio_interval([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(0)  # rounds are paired
    assert 0 < speed.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) <= 2


def test_a_peer_that_fails_is_left_out_with_the_reason(speed, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torchopt", None)
    sys.modules.pop("peers.torchopt_maml", None)
    monkeypatch.setattr(speed, "peak_memory_alone", lambda *arguments: 1.0)
    monkeypatch.setattr(speed.gc, "collect", lambda: 0)
    names = ["quickstudy", "plain autograd loop", "torchopt"]
    threads = torch.get_num_threads()
    try:
        assert speed.main(["--smoke", "--steps", "1", "--methods", *names, "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    assert "torchopt is left out at 1 step: ModuleNotFoundError" in capsys.readouterr().err
    content = json.loads((tmp_path / "maml_speed.json").read_text())
    assert content["settings"]["1 step"]["left out"]["torchopt"].startswith("ModuleNotFoundError")
    timed = {row["method"] for row in content["rows"] if row["metric"] != speed.PART}
    assert timed == {"quickstudy", "plain autograd loop", "floor"}
    parts = {row["method"]: row["value"] for row in content["rows"] if row["metric"] == speed.PART}
    assert set(parts) == {*speed.KINDS, speed.OTHERS, speed.OUTSIDE}
    assert sum(parts.values()) == pytest.approx(100, abs=1)
    assert parts["convolutions and matrix products"] > 0


def test_peak_memory_is_that_of_the_iterations(speed):
    size = speed.Size(tasks=2, width=4, side=16, n_query=2)
    assert speed.peak_memory("plain autograd loop", size, 1, "cpu") >= 0
    assert speed.resident("VmHWM") >= speed.resident("VmRSS") > 0


def test_a_part_of_the_steps_goes_beside_the_other_part(speed, monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "parts_of_time", lambda *arguments: {})
    monkeypatch.setattr(speed, "peak_memory_alone", lambda *arguments: 1.0)
    monkeypatch.setattr(speed.gc, "collect", lambda: 0)
    arguments = ["--smoke", "--methods", "quickstudy", "plain autograd loop", "--out", str(tmp_path), "--steps"]
    threads = torch.get_num_threads()
    try:
        for steps in ("1", "5"):
            assert speed.main([*arguments, steps]) == 0
    finally:
        torch.set_num_threads(threads)
    content = json.loads((tmp_path / "maml_speed.json").read_text())
    assert {row["setting"] for row in content["rows"]} == {"1 step", "5 steps"}
    assert {"1 step", "5 steps"} < content["settings"].keys()
