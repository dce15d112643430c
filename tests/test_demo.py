import re
from dataclasses import replace

import pytest
import torch

from quickstudy import Budget, LabelledSet, Prior, Recipe, demo, load, load_network, save
from quickstudy.cli import main
from quickstudy.report import Attempt, Cost, DemoReport, Score, SearchReport, render
from quickstudy.tasks.catalogue import Splits
from quickstudy.tasks.pictures import PictureEncoder


def pictures(seed: int) -> LabelledSet:
    """Twenty classes that can be told apart: one bright square each, and noise."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(20).repeat_interleave(6)
    x = torch.randint(60, (len(y), 1, 16, 16), generator=random)
    for i, label in enumerate(y.tolist()):
        row, column = divmod(label, 5)
        x[i, 0, 4 * row : 4 * row + 4, 3 * column : 3 * column + 3] += 190
    names = tuple(f"alphabet {seed}/letter <{i}>" for i in range(20))
    return LabelledSet(x.to(torch.uint8), y, names, tuple(f"alphabet {seed}" for _ in names))


pytestmark = pytest.mark.usefixtures("without_export", "few_queries")

SPLITS = Splits(pictures(0), pictures(1), pictures(2), PictureEncoder(size=16))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two tiny priors, as if they had come with quickstudy."""
    torch.manual_seed(0)
    for name, learner in (("glyphs_maml", "maml"), ("glyphs_prototypical_network", "prototypical_network")):
        recipe = Recipe(learner, "conv4", (1, 16, 16), 5, net_options={"width": 2})
        save(tmp_path / "shipped" / name, Prior(recipe.build(), recipe))
    monkeypatch.setattr(demo, "shipped_names", lambda: ["glyphs_maml", "glyphs_prototypical_network"])
    monkeypatch.setattr(demo, "shipped", lambda name: tmp_path / "shipped" / name)
    monkeypatch.setattr(demo, "STEPS", 1)


def test_the_demonstration_trains_compares_and_reports(tmp_path, shipped):
    stages, scores, progress = [], [], []
    report = demo.run_demo(
        SPLITS,
        out=tmp_path / "out",
        seconds=1,
        tasks=4,
        on_training=progress.append,
        on_stage=stages.append,
        on_score=scores.append,
    )
    assert progress[-1].history.seconds >= 1
    assert len(stages) >= 2
    assert tuple(scores) == report.scores
    methods = {setting: [s.method for s in report.scores if s.setting == setting] for setting in demo.SETTINGS}
    assert methods["5-way 1-shot"] == [
        demo.LIVE,
        "prototypical network, shipped",
        "maml, shipped",
        "from scratch",
        "nearest neighbour on pixels",
    ]
    assert "maml, shipped" not in methods["20-way 1-shot"]  # it has five outputs
    assert all(0 <= score.mean <= 100 for score in report.scores)
    assert [step for step, _, _ in report.steps.points] == [0, 1]

    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert demo.LIVE in page
    assert "from scratch" in page
    assert "20-way 1-shot" in page
    assert "letter <" not in page  # names are escaped
    prior = load(tmp_path / "out" / "prior")
    assert type(prior.learner).__name__ == "PrototypicalNetwork"
    assert {(t["n_way"], t["n_shot"]) for t in prior.training["unknown"]} >= {(2, 1), (5, 1)}  # for adapt --unknown


FIRST = DemoReport(
    "a learner", "live", 1.0, "20 characters", "20 others", (Score("live", "5-way 1-shot", 90.0, 1.0, 4),), {}
)
QUICK = Budget(seconds=None, trials=2, steps=2)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The second act with trainings that are too short, and what it said."""
    out, stages = tmp_path_factory.mktemp("demo"), []
    (out / "search").mkdir()
    (out / "search" / "studies.db").write_text("of an earlier demonstration")
    return demo.add_search(FIRST, out=out, budget=QUICK, on_stage=stages.append), out, stages


def test_the_second_act_finds_a_network_within_its_limits_and_begins_anew(searched):
    report, out, stages = searched
    assert stages[-1] == "writing the report"
    costs = {cost.name: (cost.found, cost.limit) for cost in report.search.costs}
    assert costs["parameters"][0] <= costs["parameters"][1] == 5000
    assert costs["peak memory"][0] <= costs["peak memory"][1] == 16384
    assert len(report.search.attempts) == 2
    assert load_network(out / "search" / "network").class_names == tuple("0123456789")
    assert (out / "search" / "model.onnx").exists()


def test_both_acts_are_on_one_page_that_leads_to_the_report_of_the_search(searched):
    report, out, _ = searched
    page = (out / "report.html").read_text("utf-8")
    assert "Learning to learn" in page
    assert "A network that fits" in page
    assert f"{report.search.test.mean:.1f} %" in page
    assert f"{report.search.costs[0].found:,}" in page
    assert "92,032 numbers" in page  # 1,438 pictures of 64 pixels, which nearest neighbour keeps
    assert page.count('alt="labelled ') == 10
    for link in re.findall(r'href="([^#"]+)"', page):
        assert (out / link).is_file()
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data:)", page)


def test_without_its_extra_the_second_act_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NEEDED", ("torch", "a_package_that_nobody_has"))
    report = demo.add_search(FIRST, out=tmp_path, budget=QUICK)
    assert report.search is None
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "needs what is not installed (a_package_that_nobody_has): pip install &#39;quickstudy[nas]&#39;." in page
    assert not (tmp_path / "search").exists()


def test_a_machine_too_slow_for_the_second_act_keeps_the_first(tmp_path):
    report = demo.add_search(FIRST, out=tmp_path, budget=Budget(seconds=1e-6))
    assert "Give more seconds" in report.search_skipped
    assert "Learning to learn" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("limit", [None, 20])
def test_a_second_act_of_series_without_attempts_or_baselines_can_be_shown(limit):
    bare = SearchReport(
        "a", ("b", "c"), (1, 9), (2, 2), 3.0, "text", "<svg></svg>", (Cost("parameters", 9, limit),), None
    )
    page = render(replace(FIRST, search=bare))
    assert "None" not in page
    assert ("at most" in page) == (limit is not None)
    tried = replace(bare, attempts=(Attempt(0, 1.0, 50.0, 9),), chosen=0)
    assert "1 network" in render(replace(FIRST, search=tried))


def test_the_command_line_plays_both_acts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "shipped_names", list)
    monkeypatch.setattr("quickstudy.cli.demo.load_splits", lambda *args, **options: SPLITS)
    monkeypatch.setattr("quickstudy.cli.demo.Budget", lambda **options: QUICK)
    monkeypatch.setattr("sys.argv", f"quickstudy demo --seconds 1 --tasks 2 --out {tmp_path / 'out'}".split())
    main()
    told = capsys.readouterr()
    assert "second act: a network for handwritten digits, with at most 5,000 parameters" in told.err
    assert re.search(r"\d %\S* of 359 test digits, with [\d,]+ parameters", told.out)
    assert "A network that fits" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "on alphabets it has never seen" in told.out
    assert "nearest neighbour on pixels" in told.err
    assert "ms a task, 2 tasks" in told.err
    for there in ("report.html", "prior"):
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1
        assert f"{there} exists. Choose another --out, or replace it with --force." in capsys.readouterr().err
        (tmp_path / "out" / "report.html").unlink(missing_ok=True)


def test_the_second_act_may_be_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("quickstudy.cli.demo.load_splits", lambda *args, **options: SPLITS)
    monkeypatch.setattr("quickstudy.cli.demo.run_demo", lambda *args, **options: FIRST)
    monkeypatch.setattr("sys.argv", f"quickstudy demo --search-seconds 0 --out {tmp_path / 'out'}".split())
    main()
    assert "search" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_seconds_that_are_no_time_are_refused_before_the_first_act(tmp_path, monkeypatch, capsys, seconds):
    monkeypatch.setattr("sys.argv", f"quickstudy demo --search-seconds {seconds} --out {tmp_path / 'out'}".split())
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert not (tmp_path / "out").exists()
