import pytest
import torch

from quickstudy import LabelledSet, Prior, Recipe, demo, load, save
from quickstudy.cli import main
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


def test_the_demonstration_runs_without_shipped_priors_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "shipped_names", list)
    monkeypatch.setattr("quickstudy.cli.demo.load_splits", lambda *args, **options: SPLITS)
    monkeypatch.setattr("sys.argv", f"quickstudy demo --seconds 1 --tasks 2 --out {tmp_path / 'out'}".split())
    main()
    told = capsys.readouterr()
    assert "on alphabets it has never seen" in told.out
    assert "nearest neighbour on pixels" in told.err
    assert "ms a task, 2 tasks" in told.err
    assert (tmp_path / "out" / "report.html").exists()
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "report.html exists. Choose another --out, or replace it with --force." in capsys.readouterr().err
