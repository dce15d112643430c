import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
import pytest
import torch
from PIL import Image

from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits, build
from quickstudy.nas.network import Network, load_network, save_network
from quickstudy.nas.standardise import standardised
from quickstudy.nas.tiny import Tiny
from quickstudy.report import Score
from quickstudy.search_data import (
    ONNX,
    STUDIES,
    TABLE,
    nearest_neighbour,
    search_data,
    warnings,
    with_onnx,
    with_torch,
)
from quickstudy.tasks.load_task import load_task
from quickstudy.tasks.task import Examples, Task


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """An npz of pictures whose brightest row tells the class."""
    y = np.arange(90) % 3
    x = 0.3 * np.random.default_rng(0).random((90, 1, 6, 6), np.float32)
    x[np.arange(90), 0, 2 * y] += 1
    path = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(path, x=x, y=np.array(["ant", "bee", "cat"])[y])
    return path


@pytest.fixture(scope="module")
def found(arrays, tmp_path_factory):
    out, stages = tmp_path_factory.mktemp("out"), []
    result = search_data(
        load_task(arrays),
        out=out,
        budget=Budget(seconds=None, trials=3, steps=2),
        limits=Limits(max_params=2000),
        proposer=RandomSearch(),
        on_stage=stages.append,
    )
    return result, out, stages


def test_the_saved_network_and_its_export_answer_as_the_one_that_was_found(found, arrays):
    result, out, _ = found
    x = load_task(arrays).task.query.x[0]
    logits = result.result.network(x).detach()
    saved = load_network(out / "network")
    assert torch.equal(saved.module(x), logits)
    assert saved.class_names == ("ant", "bee", "cat")
    session = onnxruntime.InferenceSession(out / ONNX)
    (exported,) = session.run(["logits"], {"input": x.numpy()})
    assert np.allclose(exported, logits.numpy(), atol=1e-4 * max(1.0, float(logits.abs().max())))


def test_the_table_has_a_row_for_each_architecture_that_was_tried(found):
    result, out, _ = found
    rows = list(csv.DictReader((out / TABLE).read_text().splitlines()))
    assert [row["architecture"] for row in rows] == [str(one.architecture) for one in result.result.tried]
    assert all(int(row["parameters"]) <= 2000 for row in rows)
    assert all(float(row["latency ms"]) > 0 for row in rows)
    assert {row["in limits"] for row in rows} == {"yes"}
    for row, one in zip(rows, result.result.tried):
        assert float(row["accuracy %"]) == pytest.approx(one.accuracies[-1].percent, abs=0.01)
        assert float(row["expected after the last rung %"]) == pytest.approx(one.value, abs=0.01)
    final = {str(a): share.percent for a, share in result.result.finalists}
    in_the_end = {row["architecture"]: float(p) for row in rows if (p := row["accuracy in the end %"])}
    assert in_the_end == pytest.approx(final, abs=0.01)


def test_what_is_masked_is_no_test_example():
    x, y = torch.arange(6.0).view(1, 6, 1, 1), torch.tensor([[0, 1, 0, 1, 0, -1]])
    real = torch.tensor([[True] * 5 + [False]])
    score = nearest_neighbour(Task(Examples(x, y.clamp_min(0)), Examples(x, y, real), 2))
    assert (score.n, score.mean) == (5, 100.0)


def test_the_report_and_the_files_say_the_same_as_the_result(found, arrays):
    result, out, stages = found
    report, page = result.report, (out / "report.html").read_text()
    assert report.test.mean == result.result.test.percent
    assert report.attempts[report.chosen].parameters == result.result.cost.parameters
    assert [cost.limit for cost in report.costs] == [2000, None, None, None]
    assert f"{result.result.cost.parameters:,}" in page
    assert "nearest neighbour" in page
    settings = json.loads((out / "network" / "prior.json").read_text())["settings"]
    assert settings["training"]["test"] == str(result.result.test)
    assert (out / STUDIES).exists()
    assert stages[-1] == "writing the report"
    assert "before it went on with these too" in page
    expected = f"{result.result.expected}, before the last {result.result.further} steps"
    assert settings["training"]["validation"] == expected


def test_the_lines_of_python_in_the_report_run(found, arrays):
    x = np.load(arrays)["x"][-15:]  # as the user has it
    names = {"x": x}
    exec(found[0].report.python, names)
    assert set(names["names"]) <= {"ant", "bee", "cat"}
    told, names["x"] = names["names"], x
    exec(found[0].report.onnx, names)
    assert names["answers"] == told


def test_the_lines_of_python_read_a_new_picture_as_the_search_did(tmp_path, monkeypatch):
    for name, level in (("dark", 40), ("bright", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (9, 7), (level, level + 5 * i, 0)).save(tmp_path / "pictures" / name / f"{i}.png")
    data = load_task(tmp_path / "pictures", size=8, test=0.25)
    space = Tiny(shape=data.shape, n_classes=2)
    architecture = space.sample(generator=torch.Generator().manual_seed(0))
    network = standardised(build(space, architecture), data.task.support.x[0]).eval()
    save_network(tmp_path / "network", Network(space, architecture, network, data.class_names, data.inputs))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 7), (40, 45, 0)).save("new.png")
    names = {}
    exec(with_torch(Path(), data), names)
    same = data.task.everything.x[0]
    found = (names["x"] == same).flatten(1).all(1)
    assert int(found.sum()) == 1
    torch.testing.assert_close(names["probabilities"], network(same[found]).softmax(1).detach())


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_lines_for_the_export_read_square_pictures_as_the_search_did_without_torch(tmp_path, monkeypatch, mode):
    generator = np.random.default_rng(0)
    for name in ("one", "other"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            levels = generator.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(levels).convert(mode).save(tmp_path / "pictures" / name / f"{i}.png")
    data = load_task(tmp_path / "pictures", size=8, test=0.25)
    lines = with_onnx(Path(), data).splitlines()
    assert not any("torch" in line or "quickstudy" in line for line in lines)
    (read,) = [line for line in lines if line.startswith("x =")]
    monkeypatch.chdir(tmp_path / "pictures" / "one")
    names = {"numpy": np, "PIL": PIL}
    Image.open("2.png").save("new.png")
    exec(read, names)
    same = data.task.everything.x[0].numpy()
    assert (np.abs(names["x"] - same).max((1, 2, 3)) < 1e-6).sum() == 1


def test_the_lines_of_python_divide_levels_as_the_search_did(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (30, 1, 6, 6), np.uint8)
    np.savez(tmp_path / "levels.npz", x=levels, y=np.arange(30) % 3)
    data, names = load_task(tmp_path / "levels.npz"), {"x": levels, "torch": torch}
    (line,) = [line for line in with_torch(Path(), data).splitlines() if line.startswith("x =")]
    exec(line, names)
    found = {tuple(row.tolist()) for row in names["x"].flatten(1)}
    assert {tuple(row.tolist()) for row in data.task.everything.x[0].flatten(1)} <= found


@pytest.mark.usefixtures("without_export")
def test_the_report_shows_none_that_breaks_the_limits_of_today(arrays, tmp_path):
    reports = []
    for most, trials in ((4000, 3), (1000, 6)):
        budget, limits = Budget(seconds=None, trials=trials, steps=1), Limits(max_params=most)
        found = search_data(load_task(arrays), out=tmp_path, budget=budget, limits=limits, proposer=RandomSearch())
        reports.append(found.report)
    wide, narrow = reports
    assert max(one.parameters for one in wide.attempts) > 1000
    assert all(one.parameters <= 1000 for one in narrow.attempts)
    assert narrow.attempts[narrow.chosen].parameters == narrow.costs[0].found


def test_more_seconds_are_advised_only_where_the_search_has_used_those_it_had(found, arrays):
    result, best = found[0].result, Score("nearest neighbour", "test", 101.0, None, 15, None, 90.0, 100.0)
    for short in (False, True):
        told = warnings(load_task(arrays), result, best, short)
        (advice,) = [warning for warning in told if warning.startswith("Nearest neighbour is better")]
        assert ("more seconds" in advice) is short


def test_few_validation_examples_are_told_of(found):
    assert any("validation examples" in warning for warning in found[0].report.warnings)


def test_a_network_that_is_slower_than_it_was_when_it_was_tried_is_told(found, arrays):
    slow = replace(found[0].result, limits=Limits(max_latency=1e-6))
    assert warnings(load_task(arrays), slow, None, True)[0].startswith("Measured once more, a prediction takes")
    assert not any("Measured" in one for one in warnings(load_task(arrays), found[0].result, None, True))
