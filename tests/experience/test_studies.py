"""The record of searches: what is written is read back, whoever is killed meanwhile."""

import os
import random
import signal
import sqlite3
import time
import traceback
import warnings
from collections import Counter
from contextlib import closing, suppress

import pytest
import torch

optuna = pytest.importorskip("optuna", reason="pip install 'quickstudy[nas]'")

from quickstudy.errors import MissingExtraError, StudyError  # noqa: E402
from quickstudy.experience import studies  # noqa: E402
from quickstudy.experience.entries import ATTEMPTS  # noqa: E402
from quickstudy.experience.parameters import categorical  # noqa: E402
from quickstudy.experience.proposer import Proposer  # noqa: E402
from quickstudy.experience.record import Record  # noqa: E402
from quickstudy.experience.sampler import ProposerSampler  # noqa: E402
from quickstudy.experience.studies import connect, experience, open_study  # noqa: E402
from quickstudy.experience.trial import TaskDescription, Trial  # noqa: E402

CHOICES = {"0-1": ("none", "conv", "pool"), "width": (4, 8), "depth": (1, 2, 3)}
MOST = 12
SPACE = [(a, b, c) for a in CHOICES["0-1"] for b in CHOICES["width"] for c in CHOICES["depth"]]
TASK = TaskDescription("digits", torch.tensor([0.1, -2.5, 3e-7]), "5e1f")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")


def parameters(space="toy/1", digest="4f2a", choices=CHOICES):
    return categorical(
        space,
        digest,
        choices,
        encode=lambda choice: dict(zip(choices, choice)),
        decode=lambda values: tuple(values[name] for name in choices),
    )


class Near(Proposer):
    """Draws an untried member, more likely the better those were that share its values."""

    def propose(self, task, trials, space, *, n=1, generator):
        tried = {trial.choice for trial in trials}
        left = [choice for choice in space if choice not in tried]
        scores = [
            1.0 + sum((trial.value or 0.0) * len(set(choice) & set(trial.choice)) for trial in trials)
            for choice in left
        ]
        if not left:
            return []
        return [left[int(torch.multinomial(torch.tensor(scores), 1, generator=generator))]]


def value_of(choice):
    return None if choice[2] == 3 else SPACE.index(choice) / len(SPACE)


def work(record, most=None, seconds=0.0, tried=None):
    """Tries what is left."""
    done = 0
    while (most is None or done < most) and (ticket := record.next(Near(), TASK, SPACE)) is not None:
        if tried is not None:
            with tried.open("a") as file:
                file.write(f"{SPACE.index(ticket.choice)}\n")
        time.sleep(seconds)
        value = value_of(ticket.choice)
        if value is None:
            record.fail(ticket.number, "depth 3 diverges", seconds=1.5)
        else:
            record.finish(ticket.number, value, seconds=2.5)
        done += 1
    return record


@pytest.fixture(scope="module")
def undisturbed():
    """The trials of a search that nothing stopped."""
    with Record.open(None, TASK, parameters(), seed=3) as record:
        return work(record, MOST).trials()


def die_after(writes):
    """Lets this process be killed when it writes to the database for the n-th time, before that is done."""

    def commit(connection):
        nonlocal writes
        writes -= connection.in_transaction
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sqlite3.Connection.commit(connection)

    studies._Connection.commit = commit


def in_a_process(function):
    """Runs a function in a process of its own, which ends hard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "studies.db"
    with Record.open(path, TASK, parameters(), about={"shape": (1, 8, 8), "objective": "accuracy"}) as record:
        written = work(record, 5).trials()
    found = experience(path, parameters())
    assert not found.skipped
    studied = found.studies["digits"]
    assert studied.task.name == "digits"
    assert torch.equal(studied.task.embedding, TASK.embedding)
    assert studied.task.encoder == "5e1f"
    assert studied.about == {"shape": [1, 8, 8], "objective": "accuracy"}
    assert list(studied.trials) == written
    assert len(written) == 5
    assert all(trial == Trial(trial.choice, value_of(trial.choice), trial.seconds) for trial in written)


def test_a_search_that_was_stopped_is_the_search_it_would_have_been(tmp_path, undisturbed):
    for most in (1, 1, 5, MOST - 7):
        with Record.open(tmp_path / "studies.db", TASK, parameters(), seed=3) as record:
            work(record, most)
    assert record.trials() == undisturbed


def test_a_search_that_was_stopped_in_the_middle_of_each_trial_is_too(undisturbed):
    study = open_study(None, TASK, parameters())
    for _ in range(MOST):
        with Record(study, parameters(), seed=3) as record:
            assert record.next(Near(), TASK, SPACE).attempt == 1
        with Record(study, parameters(), seed=3) as record:
            work(record, 1)
    assert record.trials() == undisturbed
    assert sum(entry.state == "interrupted" for entry in record.history()) == MOST


@forks
def test_a_search_that_is_killed_before_it_writes_anything_at_any_moment_is_too(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr("quickstudy.experience.sampler.PATIENCE", 0.1)
    path = tmp_path / "studies.db"
    with Record.open(path, TASK, parameters(), seed=3):
        pass
    for writes in range(1, 13):
        pid = in_a_process(
            lambda writes=writes: (die_after(writes), work(Record.open(path, TASK, parameters(), seed=3)))
        )
        assert exit_code(pid) == -signal.SIGKILL
    with Record.open(path, TASK, parameters(), seed=3) as record:
        assert 0 < len(record.trials()) < MOST
        work(record, MOST - len(record.trials()))
        assert record.trials() == undisturbed
        assert len(record.study.trials) > MOST + 8  # what was killed is still told


@forks
@pytest.mark.parametrize("most", [None, 4])
def test_a_killed_process_loses_nothing_and_its_trial_is_run_again_at_once(tmp_path, most):
    path, begun = tmp_path / "studies.db", tmp_path / "begun"

    def be_killed():
        record = work(Record.open(path, TASK, parameters()), 3)
        ticket = record.next(Near(), TASK, SPACE)
        record.report(ticket.number, 1, 0.25)
        begun.write_text(str(SPACE.index(ticket.choice)))
        time.sleep(60)

    pid = in_a_process(be_killed)
    while not (begun.exists() and begun.read_text()):
        time.sleep(0.01)
    kill(pid)
    with Record.open(path, TASK, parameters()) as record:
        assert len(record.trials()) == 3
        ticket = record.next(Near(), TASK, SPACE, most=most)  # what was killed is none of the four
        assert ticket.choice == SPACE[int(begun.read_text())]
        assert (ticket.number, ticket.attempt) == (4, 2)
        assert record.history()[3].state == "interrupted"
        assert record.history()[3].reports == {1: 0.25}


def test_a_trial_of_another_machine_is_run_again_when_its_heart_stops(tmp_path, monkeypatch):
    path, elsewhere = tmp_path / "studies.db", {"machine": "elsewhere", "pid": 1, "started": None}
    with Record.open(path, TASK, parameters()) as record:
        with monkeypatch.context() as patch:
            patch.setattr("quickstudy.experience.sampler.this_process", lambda: elsewhere)
            lost, kept = record.next(Near(), TASK, SPACE), record.next(Near(), TASK, SPACE)
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("UPDATE trial_heartbeats SET heartbeat = DATETIME('now', '-2 minutes') WHERE trial_id = 1")
        database.close()
        assert record.next(Near(), TASK, SPACE).choice == lost.choice
        assert record.next(Near(), TASK, SPACE).choice not in (lost.choice, kept.choice)
        record.report(lost.number, 1, 0.25)  # it only seemed to be gone
        record.finish(lost.number, 0.5)
        assert Trial(lost.choice, 0.5) in record.trials()
        assert record.history()[-1].reports == {1: 0.25}


def test_hearts_beat_as_long_as_trials_are_open(tmp_path):
    with Record.open(tmp_path / "studies.db", TASK, parameters(), heartbeat=1) as record:
        ticket, database = record.next(Near(), TASK, SPACE), sqlite3.connect(tmp_path / "studies.db")

        def beat():
            return database.execute("SELECT heartbeat FROM trial_heartbeats").fetchone()

        first, since = beat(), time.monotonic()
        while beat() == first and time.monotonic() - since < 20:
            time.sleep(0.05)
        assert beat() > first
        record.finish(ticket.number, 0.5)
        database.close()


@forks
def test_processes_that_share_a_study_try_everything_once(tmp_path):
    path, tried = tmp_path / "studies.db", tmp_path / "tried"
    pids = [in_a_process(lambda: work(Record.open(path, TASK, parameters()), tried=tried)) for _ in range(3)]
    assert [exit_code(pid) for pid in pids] == [0, 0, 0]
    assert sorted(map(int, tried.read_text().split())) == list(range(len(SPACE)))
    with Record.open(path, TASK, parameters()) as record:
        assert {trial.choice: trial.value for trial in record.trials()} == {c: value_of(c) for c in SPACE}
        assert len(record.history()) == len(SPACE)


@forks
def test_they_do_where_some_are_killed(tmp_path):
    path, moments = tmp_path / "studies.db", random.Random(1)
    with Record.open(path, TASK, parameters()):
        pass
    steady = in_a_process(lambda: work(Record.open(path, TASK, parameters()), seconds=0.05))
    for _ in range(3):
        unlucky = in_a_process(lambda: work(Record.open(path, TASK, parameters()), seconds=0.05))
        time.sleep(moments.uniform(0.05, 0.4))
        kill(unlucky)
    assert exit_code(steady) == 0
    with Record.open(path, TASK, parameters()) as record:
        work(record)
        assert Counter(trial.choice for trial in record.trials()) == Counter(SPACE)


@forks
def test_processes_that_share_a_study_try_no_more_than_they_may(tmp_path):
    path, tried = tmp_path / "studies.db", tmp_path / "tried"

    def share():
        with Record.open(path, TASK, parameters(), seed=3) as record:
            while (ticket := record.next(Near(), TASK, SPACE, most=5)) is not None:
                with tried.open("a") as file:
                    file.write(f"{ticket.number}\n")
                record.finish(ticket.number, 0.5)

    pids = [in_a_process(share) for _ in range(4)]
    assert [exit_code(pid) for pid in pids] == [0] * 4
    assert len(tried.read_text().split()) == 5


@forks
def test_processes_that_make_a_study_at_once_agree_on_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "MAKING", 60.0)
    path, opened = tmp_path / "studies.db", tmp_path / "opened"
    connect(path)

    def make(seed):
        with suppress(StudyError):
            open_study(path, TASK, parameters(), about={"seed": seed})
            with opened.open("a") as file:
                file.write(f"{seed}\n")

    pids = [in_a_process(lambda seed=seed: make(seed)) for seed in range(6)]
    assert [exit_code(pid) for pid in pids] == [0] * 6
    found = optuna.load_study(storage=f"sqlite:///{path}", study_name="digits in toy/1").user_attrs["about"]["seed"]
    assert opened.read_text() == f"{found}\n"


def test_a_path_may_have_what_means_something_in_an_address(tmp_path):
    path = tmp_path / "what? 100%20#1" / "studies.db"
    path.parent.mkdir()
    with Record.open(path, TASK, parameters()):
        assert path.exists()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_study_whose_maker_was_killed_is_made_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "MAKING", 0.1)
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'studies.db'}", study_name="digits in toy/1")
    with Record.open(tmp_path / "studies.db", TASK, parameters()) as record:
        assert record.study.user_attrs["digest"] == "4f2a"


def test_open_trials_count_as_tried():
    with Record.open(None, TASK, parameters()) as record:
        tickets = [record.next(Near(), TASK, SPACE) for _ in SPACE]
        assert {ticket.choice for ticket in tickets} == set(SPACE)
        assert record.next(Near(), TASK, SPACE) is None
        assert record.trials() == []


def test_failed_trials_stay_failed_and_are_not_proposed_again():
    study = open_study(None, TASK, parameters())
    with Record(study, parameters()) as record:
        first = record.next(Near(), TASK, SPACE)
        record.fail(first.number, "the loss is not finite after 12 steps")
        second = record.next(Near(), TASK, SPACE)
        record.finish(second.number, float("nan"))
    with Record(study, parameters()) as record:
        work(record)
        assert [entry.why for entry in record.history()][:2] == [
            "the loss is not finite after 12 steps",
            "its value is nan",
        ]
        assert record.trials()[:2] == [Trial(first.choice, None), Trial(second.choice, None)]
        assert Counter(trial.choice for trial in record.trials()) == Counter(SPACE)


def test_a_choice_that_is_interrupted_again_and_again_has_failed():
    study = open_study(None, TASK, parameters())
    for attempt in range(1, ATTEMPTS + 1):
        with Record(study, parameters()) as record:
            ticket = record.next(Near(), TASK, SPACE)
            assert ticket.attempt == attempt
    with Record(study, parameters()) as record:
        assert record.next(Near(), TASK, SPACE).choice != ticket.choice
        assert record.trials() == [Trial(ticket.choice, None)]


def test_a_choice_whose_trial_was_interrupted_here_is_tried_again():
    with Record.open(None, TASK, parameters()) as record:
        first = record.next(Near(), TASK, SPACE)
        record.interrupt(first.number)
        again = record.next(Near(), TASK, SPACE)
        assert (again.choice, again.attempt) == (first.choice, 2)
        record.finish(again.number, 0.5)
        assert [(trial.choice, trial.value) for trial in record.trials()] == [(first.choice, 0.5)]


def test_an_interrupted_choice_that_no_longer_keeps_to_the_limits_is_left_alone():
    study = open_study(None, TASK, parameters())
    with Record(study, parameters()) as record:
        wide = record.next(Near(), TASK, SPACE).choice
    with Record(study, parameters()) as record:
        others = [choice for choice in SPACE if choice != wide]
        assert record.next(Near(), TASK, others, allowed=others.__contains__).choice != wide


def test_reports_and_attributes_are_kept_and_a_stopped_trial_has_no_value():
    with Record.open(None, TASK, parameters()) as record:
        ticket = record.next(Near(), TASK, SPACE)
        record.report(ticket.number, 1, 0.5)
        record.report(ticket.number, 3, 0.625)
        record.stop(ticket.number, seconds=4.0, attributes={"parameters": 1200})
        (entry,) = record.history()
        assert (entry.state, entry.value, entry.seconds) == ("stopped", None, 4.0)
        assert entry.reports == {1: 0.5, 3: 0.625}
        assert entry.attributes == {"parameters": 1200}
        assert record.trials() == [Trial(ticket.choice, None, 4.0)]


def test_a_proposer_that_raises_leaves_no_trial_behind():
    class Broken(Proposer):
        def propose(self, task, trials, space, *, n=1, generator):
            raise ZeroDivisionError

    with Record.open(None, TASK, parameters()) as record:
        with pytest.raises(ZeroDivisionError):
            record.next(Broken(), TASK, SPACE)
        assert record.next(Near(), TASK, SPACE).attempt == 1
        assert record.trials() == []


def test_to_a_proposer_what_still_runs_is_pending_and_what_failed_is_not():
    seen = []

    class Watching(Near):
        def propose(self, task, trials, space, *, n=1, generator):
            seen.append([(trial.value, trial.pending) for trial in trials])
            return super().propose(task, trials, space, n=n, generator=generator)

    with Record.open(None, TASK, parameters()) as record:
        failed, finished, _ = (record.next(Watching(), TASK, SPACE) for _ in range(3))
        record.fail(failed.number, "the loss is nan")
        record.finish(finished.number, 0.5)
        record.next(Watching(), TASK, SPACE)
    assert seen[2] == [(None, True), (None, True)]
    assert seen[3] == [(None, False), (0.5, False), (None, True)]


def test_a_study_keeps_to_what_was_settled_first(tmp_path):
    for value in (50, 60):
        with Record.open(tmp_path / "studies.db", TASK, parameters()) as record:
            assert record.settle("steps", value) == 50


def test_a_trial_is_ended_once():
    with Record.open(None, TASK, parameters()) as record:
        ticket = record.next(Near(), TASK, SPACE)
        record.finish(ticket.number, 0.5)
        with pytest.raises(StudyError, match=r"trial 0 is not open here; open are none\."):
            record.fail(ticket.number, "late")


def test_the_sampler_serves_optunas_own_loop():
    study = open_study(None, TASK, parameters())
    study.sampler = ProposerSampler(Near(), TASK, SPACE, parameters())

    def objective(trial):
        choice = tuple(trial.suggest_categorical(name, values) for name, values in CHOICES.items())
        if choice[2] == 3:
            raise ValueError("depth 3 diverges")
        return SPACE.index(choice)

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study.optimize(objective, n_trials=len(SPACE), catch=ValueError)
    optuna.logging.set_verbosity(before)
    assert Counter(tuple(trial.params.values()) for trial in study.trials) == Counter(SPACE)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (parameters(space="toy/2"), r"is of the space toy/1, not toy/2: .* Choose another storage"),
        (parameters(digest="77aa"), r"is of a version of toy/1 with the digest 4f2a, not 77aa: "),
    ],
    ids=["space", "digest"],
)
def test_a_study_of_another_space_is_refused_and_both_are_named(tmp_path, other, said):
    with Record.open(tmp_path / "studies.db", TASK, parameters(), name="mine"):
        pass
    with pytest.raises(StudyError, match=f"the study 'mine' {said}"):
        Record.open(tmp_path / "studies.db", TASK, other, name="mine")


def test_a_study_of_another_objective_is_refused(tmp_path):
    storage = connect(tmp_path / "studies.db")
    open_study(storage, TASK, parameters(), about={"objective": "accuracy"})
    with pytest.raises(StudyError, match=r"was made with the objective accuracy, not accuracy - 0\.1 log parameters: "):
        open_study(storage, TASK, parameters(), about={"objective": "accuracy - 0.1 log parameters"})
    with pytest.raises(StudyError, match="the study 'digits in toy/1' is of the task digits, not letters"):
        open_study(storage, TaskDescription("letters"), parameters(), name="digits in toy/1")


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        (TaskDescription("digits", torch.tensor([7.0, 8.0]), "ab12"), ([7.0, 8.0], "ab12")),
        (TaskDescription("digits", torch.tensor([7.0, 8.0, 9.0]), "5e1f"), (TASK.embedding.tolist(), "5e1f")),
        (TaskDescription("digits"), (TASK.embedding.tolist(), "5e1f")),
    ],
    ids=["another encoder", "the same", "none"],
)
def test_a_study_takes_the_embedding_of_another_encoder_and_else_keeps_its_own(tmp_path, later, kept):
    path = tmp_path / "studies.db"
    for task in (TASK, later):
        with Record.open(path, task, parameters()) as record:
            work(record, 1)
    task = experience(path, parameters()).studies["digits"].task
    assert (task.embedding.tolist(), task.encoder) == (pytest.approx(kept[0]), kept[1])


def test_a_study_from_before_encoders_had_digests_is_read_and_embedded_anew(tmp_path):
    path = tmp_path / "studies.db"
    with Record.open(path, TASK, parameters()) as record:
        work(record, 1)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("DELETE FROM study_user_attributes WHERE key = 'encoder'")
    task = experience(path, parameters()).studies["digits"].task
    assert (task.embedding.tolist(), task.encoder) == (TASK.embedding.tolist(), None)
    with Record.open(path, TASK, parameters()):
        pass
    assert experience(path, parameters()).studies["digits"].task.encoder == "5e1f"


def test_what_is_of_no_use_is_skipped_and_said(tmp_path):
    path, wider = tmp_path / "studies.db", CHOICES | {"width": (4, 8, 16)}
    for task, of, trials in (
        ("a", parameters(), 2),
        ("b", parameters(digest="77aa"), 2),
        ("c", parameters(space="toy/2"), 1),
        ("d", parameters(choices=wider), 1),
        ("e", parameters(), 0),
    ):
        with Record.open(path, TaskDescription(task), of) as record:
            work(record, trials)
    optuna.create_study(storage=f"sqlite:///{path}", study_name="theirs")
    found = experience(path, parameters())
    assert list(found.studies) == ["a", "b"]
    assert found.skipped == {
        "c in toy/2": "it is of the space toy/2, not toy/1",
        "d in toy/1": "it chose among other values than toy/1 has",
        "e in toy/1": "no trial of it is finished",
        "theirs": "it is not one of quickstudy's",
    }


def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "studies.db"
    path.write_text("a diary, " * 1000)
    with pytest.raises(StudyError, match=r"cannot be used: file is not a database\. It is damaged, or something else"):
        Record.open(path, TASK, parameters())
    with pytest.raises(StudyError, match=r"unable to open database file\. Its folder must exist"):
        Record.open(tmp_path / "nowhere" / "studies.db", TASK, parameters())
    with pytest.raises(StudyError, match=r"there are no studies at .*none\.db: no such file"):
        experience(tmp_path / "none.db", parameters())


def test_what_is_no_record_is_read_without_being_written_to(tmp_path):
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    with pytest.raises(StudyError, match=r"notes\.db: it is not the record of a search"):
        experience(path, parameters())
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["notes.db"]


def test_a_file_that_another_process_holds_is_named(tmp_path):
    path = tmp_path / "studies.db"
    with Record.open(path, TASK, parameters()):
        pass
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StudyError, match=r"studies.db cannot be used: database is locked\. Another process holds it"):
        open_study(connect(path, patience=0.1), TaskDescription("letters"), parameters())
    holder.close()


def test_no_password_is_told():
    for url in ("postgresql+nothing://me:secret@nowhere/x", "postgresql://me:secret@nowhere:notaport/x"):
        with pytest.raises((StudyError, MissingExtraError)) as caught:
            connect(url)
        assert "secret" not in str(caught.value)


@pytest.mark.skipif("QUICKSTUDY_POSTGRES" not in os.environ, reason="QUICKSTUDY_POSTGRES names no database")
@forks
def test_all_that_holds_of_postgresql(tmp_path):
    url, task, tried = os.environ["QUICKSTUDY_POSTGRES"], TaskDescription(f"digits {time.time()}"), tmp_path / "tried"

    def share():
        work(Record.open(url, task, parameters()), seconds=0.02, tried=tried)

    unlucky, *steady = [in_a_process(share) for _ in range(3)]
    time.sleep(0.5)
    kill(unlucky)
    assert [exit_code(pid) for pid in steady] == [0, 0]
    with Record.open(url, task, parameters()) as record:
        work(record)
        assert Counter(trial.choice for trial in record.trials()) == Counter(SPACE)
    assert len(tried.read_text().split()) <= len(SPACE) + 1
    assert len(experience(url, parameters()).studies[task.name].trials) == len(SPACE)
