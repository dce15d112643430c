import json
from dataclasses import replace

import pytest
from torch import Generator

from quickstudy.learners.catalogue import LEARNERS
from quickstudy.training.history import History, Validation


@pytest.fixture(scope="module")
def few_shot(script):
    return script("few_shot")


@pytest.fixture
def tiny(few_shot):
    return few_shot.rehearsal(0.002, 1.0)


def unit_of(few_shot, learner, which="equal_time"):
    return next(unit for unit in few_shot.UNITS[which]([0]) if unit.method == learner)


def test_a_unit_ends_with_the_process_that_began_it(few_shot, monkeypatch):
    parents, left = iter([7, 7, 1]), list[int]()
    monkeypatch.setattr(few_shot.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(few_shot.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(few_shot.os, "_exit", left.append)
    few_shot.follow(7)
    assert left == [1]
    assert not list(parents)


def test_every_learner_is_in_every_setting_and_every_unit_has_a_name_of_its_own(few_shot):
    units = list(few_shot.equal_time([0]))
    assert {(u.method, u.settings[0]) for u in units} == {(m, s) for m in LEARNERS for s in few_shot.SETTINGS}
    for which, make in few_shot.UNITS.items():
        names = [unit.name for unit in make([0, 1])]
        assert len(set(names)) == len(names), which


def test_what_is_not_trained_has_no_second_seed(few_shot):
    again = [unit.method for unit in few_shot.equal_time([0, 1]) if unit.seed == 1]
    assert again
    assert all(LEARNERS[method].trained for method in again)


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_can_be_built_from_its_settings(few_shot, tiny, learner):
    learner = few_shot.build(unit_of(few_shot, learner), tiny)
    assert isinstance(learner, few_shot.Learner)


@pytest.mark.parametrize("learner", ["prototypical_network", "maml", "nearest_neighbour"])
def test_a_unit_gives_accuracy_and_the_curve_that_led_to_it(few_shot, tiny, tmp_path, learner):
    rows = few_shot.run_unit(unit_of(few_shot, learner), tiny, tmp_path)
    accuracy = rows[0]
    assert (accuracy["metric"], accuracy["n"], accuracy["complete"]) == ("accuracy %", 4, True)
    if learner == "nearest_neighbour":
        assert len(rows) == 1
        return
    assert accuracy["iterations"] >= 1
    assert rows[1]["metric"] == "validation accuracy %"
    assert rows[1]["value"] == pytest.approx(max(value for _, _, value in rows[1]["curve"]), abs=1e-3)
    keys = [(row["method"], row["setting"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    json.dumps(rows)


def test_one_training_serves_all_settings_of_its_unit(few_shot, tiny, tmp_path):
    rows = few_shot.run_unit(unit_of(few_shot, "prototypical_network", "omniglot"), tiny, tmp_path)
    assert [row["setting"] for row in rows if row["metric"] == "accuracy %"] == ["20-way 1-shot", "5-way 1-shot"]


def test_the_best_weights_on_validation_are_also_judged_together(few_shot, tiny, tmp_path):
    unit = replace(unit_of(few_shot, "prototypical_network"), together=2)
    alone, both = few_shot.run_unit(unit, replace(tiny, minutes=0.02), tmp_path)[:2]
    assert both["method"] == "prototypical_network, best 2 weights together"
    assert {**both, "method": alone["method"], "value": alone["value"], "ci95": alone["ci95"]} == alone
    history = History.from_settings(few_shot.read_checkpoint(tmp_path, {})["history"])
    assert len(history.validations) > 2
    best = sorted(history.validations, key=lambda v: (v.score, v.step))[-2:]
    kept = {path.name for path in tmp_path.glob("weights-*")}
    assert kept == {f"weights-{validation.step}.safetensors" for validation in best}


def test_weights_are_judged_together_once_there_are_as_many(few_shot, tiny, tmp_path):
    unit = replace(unit_of(few_shot, "prototypical_network"), together=2)
    rows = few_shot.run_unit(unit, replace(tiny, minutes=1000.0, slice=0.0), tmp_path)
    assert {row["method"] for row in rows} == {"prototypical_network"}


def test_what_answers_together_gives_the_mean_of_its_probabilities(few_shot, tiny):
    unit = unit_of(few_shot, "prototypical_network")
    members = [few_shot.build(unit, tiny) for _ in range(2)]
    task = few_shot.episodes(tiny.data("glyphs", "test"), unit.settings[0]).sample(
        2, generator=Generator().manual_seed(0)
    )
    first, second = (member.adapt(task)(task.query.x).probs for member in members)
    assert not first.allclose(second)
    found = few_shot.Together(members).adapt(task)(task.query.x).probs
    assert found.allclose((first + second) / 2, atol=1e-6)


def test_a_unit_pauses_after_its_slice_and_goes_on_where_it_was(few_shot, tiny, tmp_path):
    unit = unit_of(few_shot, "prototypical_network")
    first = few_shot.run_unit(unit, replace(tiny, minutes=1000.0, slice=0.0), tmp_path)[0]
    assert not first["complete"]
    assert first["iterations"] == few_shot.read_checkpoint(tmp_path, {})["history"]["step"] == 1
    second = few_shot.run_unit(unit, replace(tiny, minutes=first["seconds"] / 60 + 1e-6), tmp_path)[0]
    assert second["complete"]
    assert second["iterations"] == 2


def test_a_unit_is_done_when_all_its_settings_have_rows_of_as_many_minutes(few_shot, tmp_path):
    import result

    unit = unit_of(few_shot, "prototypical_network", "omniglot")
    written = result.Result("omniglot", folder=tmp_path)
    common = {"seed": 0, "complete": True, "minutes": 30.0, "training": str(unit.training)}
    written.add(unit.method, "5-way 1-shot", "accuracy %", 98.0, **common)
    assert not few_shot.is_done(unit, written, 30)
    written.add(unit.method, "20-way 1-shot", "accuracy %", 95.0, **{**common, "complete": False})
    assert not few_shot.is_done(unit, written, 30)
    written.add(unit.method, "20-way 1-shot", "accuracy %", 95.0, **{**common, "training": "another outer rate"})
    assert not few_shot.is_done(unit, written, 30)
    written.add(unit.method, "20-way 1-shot", "accuracy %", 95.0, **common)
    assert few_shot.is_done(unit, written, 30)
    assert not few_shot.is_done(unit, written, 60)


def test_the_curve_has_rows_at_moments_that_every_learner_shares(few_shot):
    scale = few_shot.Scale(minutes=10, slice=10)
    validations = [Validation(i, 30.0 * i + 2, "accuracy %", 50.0 + i, 1.0) for i in range(1, 21)]
    history = History(20, 602.0, [], validations, validations[-1])
    rows = list(few_shot.curve(unit_of(few_shot, "maml"), history, scale))
    assert [(row["metric"], row["value"]) for row in rows] == [
        ("validation accuracy %", 70.0),
        ("validation accuracy % after 1 minutes", 52.0),
        ("validation accuracy % after 2 minutes", 54.0),
        ("validation accuracy % after 5 minutes", 60.0),
    ]
    slow = replace(history, validations=validations[-1:])
    assert len(list(few_shot.curve(unit_of(few_shot, "maml"), slow, scale))) == 1


def test_a_learner_may_be_trained_otherwise_in_some_settings(few_shot, monkeypatch):
    monkeypatch.setitem(few_shot.BY_SETTING, ("maml", "*20-way*"), {"lr": 0.5})
    assert few_shot.training_of("maml", "glyphs, 20-way 1-shot").lr == 0.5
    assert few_shot.training_of("maml", "glyphs, 5-way 1-shot").lr != 0.5
    assert few_shot.training_of("nearest_neighbour", "glyphs, 20-way 1-shot") is None


def test_rows_are_written_as_units_end_and_a_second_run_finds_them(few_shot, tmp_path, capsys):
    arguments = ["--smoke", "--only", "glyphs-5-way-1-shot/nearest", "--out", str(tmp_path)]
    arguments += ["--checkpoints", str(tmp_path / "checkpoints")]
    assert few_shot.main(arguments) == 0
    (row,) = json.loads((tmp_path / "few_shot_equal_time.json").read_text())["rows"]
    assert (row["method"], row["setting"]) == ("nearest_neighbour", "glyphs, 5-way 1-shot")
    capsys.readouterr()
    assert few_shot.main(arguments) == 0
    assert capsys.readouterr().out.startswith("0 unit(s) to run")
    assert few_shot.main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.endswith("done\n")


def test_trying_other_settings_writes_nothing(few_shot, tmp_path, capsys):
    arguments = ["--smoke", "--only", "glyphs-5-way-1-shot/maml/", "--out", str(tmp_path)]
    assert few_shot.main([*arguments, "--try", "lr=0.05", "outer.tasks=2"]) == 0
    assert "lr 0.05, steps 1; 2 tasks a step" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_listing_writes_nothing(few_shot, tmp_path, capsys):
    assert few_shot.main(["--smoke", "--which", "omniglot", "--out", str(tmp_path / "results"), "--list"]) == 0
    assert "1-shot/prototypical_network/0" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_long_runs_stand_beside_the_published_figures(few_shot, tiny, tmp_path):
    result = few_shot.open_result("omniglot", tiny, tmp_path)
    for _ in range(2):
        few_shot.add_published(result)
    assert len(result.rows) == len(few_shot.PUBLISHED)
    labels = {(unit.method, label) for unit in few_shot.long_runs([0]) for label in unit.labels}
    assert {(row["method"], row["setting"]) for row in result.rows} <= labels


def test_only_the_next_units_run_unless_all_are_asked_for_and_none_begins_too_late(few_shot, tmp_path, monkeypatch):
    begun = []

    class Process:
        returncode = 0

        def wait(self, timeout):
            return 0

    def start(unit, arguments, checkpoints):
        begun.append(unit.name)
        (few_shot.folder_of(unit, checkpoints) / "rows.json").write_text("[]")
        return Process()

    monkeypatch.setattr(few_shot, "start", start)
    arguments = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints"), "--only", "maml/"]
    assert few_shot.main(arguments) == 0
    assert few_shot.main([*arguments, "--jobs", "2"]) == 0
    assert begun == ["glyphs-5-way-1-shot/maml/0", "glyphs-5-way-1-shot/maml/0", "glyphs-5-way-1-shot/fomaml/0"]
    begun.clear()
    assert few_shot.main([*arguments, "--all"]) == 0
    assert len(begun) == 2 * len(few_shot.SETTINGS)
    begun.clear()
    assert few_shot.main([*arguments, "--all", "--hours", "0"]) == 0
    assert not begun


def test_a_unit_that_fails_is_named_and_the_others_go_on(few_shot, tmp_path, monkeypatch, capsys):
    class Process:
        def __init__(self, returncode):
            self.returncode = returncode

        def wait(self, timeout):
            return self.returncode

    def start(unit, arguments, checkpoints):
        if unit.method == "maml":
            return Process(1)
        rows = [{"method": unit.method, "setting": unit.labels[0], "metric": "accuracy %", "value": 50.0, "seed": 0}]
        (few_shot.folder_of(unit, checkpoints) / "rows.json").write_text(json.dumps(rows))
        return Process(0)

    monkeypatch.setattr(few_shot, "start", start)
    arguments = ["--out", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints"), "--only", "glyphs-5*maml/"]
    assert few_shot.main([*arguments, "--all"]) == 1
    assert "glyphs-5-way-1-shot/maml/0: failed with exit code 1." in capsys.readouterr().err
    (row,) = json.loads((tmp_path / "few_shot_equal_time.json").read_text())["rows"]
    assert row["method"] == "fomaml"
