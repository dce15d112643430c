import csv
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw

import quickstudy.adapt_folder
from quickstudy import Prior, Recipe
from quickstudy.adapt_folder import adapt_folder, self_check, share_of_the_choice, stratified_folds
from quickstudy.errors import (
    DataError,
    DivergedError,
    OutputExistsError,
    ShapeError,
    TaskError,
    TooFewExamplesError,
    UnreadablePictureError,
)
from quickstudy.learners.learner import Learner
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.tasks.episodes import LabelledSet
from quickstudy.tasks.pictures import PictureEncoder

SHAPES = ("bar", "cross", "ring")


def draw(shape: str, shift: int = 0, mode: str = "L", size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Dark ink on white paper."""
    image = Image.new("L", (40, 40), "white")
    pen = ImageDraw.Draw(image)
    if shape == "bar":
        pen.line((8 + shift, 20, 32, 20), fill=0, width=5)
    elif shape == "cross":
        pen.line((8 + shift, 8, 32, 32), fill=0, width=4)
        pen.line((32, 8 + shift, 8, 32), fill=0, width=4)
    else:
        pen.ellipse((8, 8, 32 - shift, 32), outline=0, width=4)
    return image.resize(size).convert(mode)


def fill(root, shots: int, shapes=SHAPES):
    for shape in shapes:
        (root / shape).mkdir(parents=True, exist_ok=True)
        for i in range(shots):
            draw(shape, i).save(root / shape / f"{i}.png")
    return root


def make_prior(learner="prototypical_network", n_way=3, training=None, **options) -> Prior:
    torch.manual_seed(0)
    recipe = Recipe(learner, "conv4", (1, 28, 28), n_way, options, {"width": 4})
    encoder = PictureEncoder().to_settings()
    return Prior(recipe.build().eval(), recipe, encoder, training or {})


def rows(out):
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def pictures(tmp_path):
    """Three labelled pictures of each of three classes, and others without labels."""
    (tmp_path / "new" / "deeper").mkdir(parents=True)
    for i, shape in enumerate(("ring", "bar", "cross", "ring")):
        draw(shape, 2).save(tmp_path / "new" / ("deeper" if i > 2 else "") / f"{i} {shape}, new.png")
    return fill(tmp_path / "labelled", 3), tmp_path / "new", tmp_path / "out"


@pytest.mark.parametrize("learner", ["prototypical_network", "maml", "fine_tune"])
def test_predictions_are_a_table_of_file_label_and_probability(pictures, learner):
    labelled, new, out = pictures
    options = {"n_classes": 4} if learner == "fine_tune" else {}
    report, answers = adapt_folder(
        make_prior(learner, **options), labelled, name="mine", predict=new, out=out, check=False
    )
    table = rows(out)
    assert table[0] == ["file", "label", "probability"]
    assert [row[0] for row in table[1:]] == [
        "0 ring, new.png",
        "1 bar, new.png",
        "2 cross, new.png",
        "deeper/3 ring, new.png",
    ]
    assert all(row[1] in SHAPES and 1 / 3 <= float(row[2]) <= 1 for row in table[1:])
    assert len(answers.files) == 4
    assert report.method == learner.replace("_", " ")
    assert report.check is None
    page = (out / "report.html").read_text("utf-8")
    assert "1 bar, new.png" in page
    assert "mine" in page


@pytest.mark.parametrize("learner", ["prototypical_network", "maml"])
@pytest.mark.parametrize("check", [True, False])
def test_a_picture_gets_the_same_answer_alone_or_among_others(pictures, learner, check):
    labelled, new, out = pictures
    prior = make_prior(learner)
    adapt_folder(prior, labelled, name="mine", predict=new, out=out / "all", check=check)
    together = rows(out / "all")[1:]
    for i, file in enumerate(sorted(new.glob("*.png"))):
        adapt_folder(prior, labelled, name="mine", predict=file, out=out / str(i), check=check)
        assert rows(out / str(i))[1:] == [together[i]]


def test_what_is_to_be_named_may_not_lie_among_the_classes(pictures):
    labelled, new, _ = pictures
    draw("ring").save(labelled / "ring" / "more.png")
    (labelled / ".unlabelled").mkdir()
    for folder in (labelled / "ring", labelled / ".unlabelled"):
        with pytest.raises(DataError, match="lies among the classes in"):
            adapt_folder(make_prior(), labelled, name="mine", predict=folder)
    report, _ = adapt_folder(make_prior(), str(labelled), name="mine", predict=str(new / "0 ring, new.png"))
    assert report.predictions.files == ("0 ring, new.png",)


def test_copies_are_left_out_together_and_told(tmp_path):
    random = torch.Generator().manual_seed(0)
    for label in "abcde":
        (tmp_path / label).mkdir()
        for i in range(4):
            noise = Image.fromarray(torch.randint(256, (28, 28), dtype=torch.uint8, generator=random).numpy())
            for copy in ("", " (1)", " (2)"):
                noise.save(tmp_path / label / f"{i}{copy}.png")
    noise.save(tmp_path / "a" / "of e.png")
    report, _ = adapt_folder(make_prior(n_way=5), tmp_path, name="mine")
    scores = {score.method: score.mean for score in report.check.scores}
    assert scores["nearest neighbour on pixels"] < 60  # and would be 100 by the copies
    assert "41 of the 61 labelled pictures are copies of others, and tell nothing new." in report.warnings
    assert "Classes 'a' and 'e' have a picture in common." in report.warnings


def test_what_a_grey_prior_of_ink_cannot_see_is_told(tmp_path, pictures):
    hues = {"red": (255, 120, 120), "green": (120, 255, 120), "blue": (120, 120, 255)}
    for name, hue in hues.items():
        (tmp_path / "hues" / name).mkdir(parents=True)
        for i in range(2):
            photograph = Image.linear_gradient("L").resize((40, 40))
            Image.merge("RGB", [photograph.point(lambda v, c=c, i=i: (v + 9 * i) * c // 255) for c in hue]).save(
                tmp_path / "hues" / name / f"{i}.png"
            )
    report, _ = adapt_folder(make_prior(), tmp_path / "hues", name="mine", check=False)
    assert any("have colour, and mine reads them in grey" in warning for warning in report.warnings)
    for file in (tmp_path / "hues").rglob("*.png"):
        Image.open(file).convert("L").save(file)
    report, _ = adapt_folder(make_prior(), tmp_path / "hues", name="mine", check=False)
    assert any("mine reads pictures as ink on paper, and most of these" in warning for warning in report.warnings)
    assert not adapt_folder(make_prior(), pictures[0], name="mine", check=False)[0].warnings


def test_nearest_neighbour_names_no_second_best_and_says_why(pictures, monkeypatch):
    labelled, new, out = pictures
    (new / "broken.png").write_bytes(b"no picture")
    sound = quickstudy.adapt_folder.self_check
    monkeypatch.setattr(
        "quickstudy.adapt_folder.self_check",
        lambda *args, **options: replace(sound(*args, **options), used="nearest neighbour on pixels"),
    )
    report, _ = adapt_folder(make_prior(), labelled, name="mine", predict=new, out=out, skip_bad=True)
    assert any("gives all its answers the same probability" in warning for warning in report.warnings)
    assert set(report.predictions.closest) == {None}
    assert "1 of 5 pictures are left out: " in "".join(report.warnings)
    assert "broken.png" in (out / "report.html").read_text("utf-8")


def test_what_a_threshold_says_of_many_more_classes_is_doubted_and_none_is_no_name_of_a_class(pictures):
    labelled, new, _ = pictures
    thresholds = {"unknown": [{"n_way": 2, "n_shot": 3, "kept": 95.0, "refused": 60.0, "value": 0.0}]}
    prior = make_prior(training=thresholds)
    told = "calibrated on tasks of 2 classes, and here are"
    report, _ = adapt_folder(prior, labelled, name="mine", predict=new, unknown=True, check=False)
    assert not any(told in warning for warning in report.warnings)
    fill(labelled, 2, ("other",))
    report, _ = adapt_folder(prior, labelled, name="mine", predict=new, unknown=True, check=False)
    assert any(told in warning for warning in report.warnings)
    (labelled / "other").rename(labelled / "none of these")
    with pytest.raises(TaskError, match="a class is called 'none of these'"):
        adapt_folder(prior, labelled, name="mine", predict=new, unknown=True)


@pytest.mark.parametrize("check", [True, False])
def test_a_prior_that_diverges_in_adapting_writes_nothing_and_names_the_remedy(pictures, check):
    labelled, new, out = pictures
    said = "MAML diverged as it adapted to the labelled pictures: . of . answers are not finite. Take another prior"
    with pytest.raises(DivergedError, match=said):
        adapt_folder(make_prior("maml", lr=1e30, steps=5), labelled, name="mine", predict=new, out=out, check=check)
    assert not out.exists()


def test_the_same_seed_writes_the_same_table(pictures):
    labelled, new, out = pictures
    for name in ("one", "two"):
        adapt_folder(make_prior(), labelled, name="mine", predict=new, out=out / name)
    assert rows(out / "one") == rows(out / "two")


def test_nothing_is_written_without_a_place_for_it(pictures):
    labelled, new, out = pictures
    adapt_folder(make_prior(), labelled, name="mine", predict=new, check=False)
    assert not out.exists()


def test_results_do_not_go_among_the_classes_or_over_a_file(pictures):
    labelled, new, _ = pictures
    with pytest.raises(DataError, match="would lie among the classes"):
        adapt_folder(make_prior(), labelled, name="mine", predict=new, out=labelled / "out", check=False)
    file = next(path for path in labelled.rglob("*") if path.is_file())
    with pytest.raises(OutputExistsError, match="is a file"):
        adapt_folder(make_prior(), labelled, name="mine", predict=new, out=file, check=False)


def test_two_pictures_a_class_are_enough_to_check_with(tmp_path):
    report, answers = adapt_folder(make_prior(), fill(tmp_path, 2), name="mine")
    assert answers is None
    assert [score.method for score in report.check.scores] == [
        "prototypical network",
        "nearest neighbour on pixels",
        "from scratch",
    ]
    assert all(score.n == 6 and 0 <= score.mean <= 100 for score in report.check.scores)
    assert report.check.used == report.method
    assert report.check.used in {
        s.method for s in report.check.scores if s.mean == max(t.mean for t in report.check.scores)
    }


def test_one_picture_a_class_cannot_be_checked_with_and_the_report_says_so(tmp_path):
    report, _ = adapt_folder(make_prior(), fill(tmp_path, 1), name="mine")
    assert report.check is None
    assert report.method == "prototypical network"
    assert "no class has two different pictures" in report.warnings[0]


def test_pictures_of_one_class_alone_are_no_check(tmp_path):
    fill(fill(tmp_path, 3, ("bar",)), 1, ("cross", "ring"))
    report, _ = adapt_folder(make_prior(), tmp_path, name="mine")
    assert report.check is None
    assert "only one class has more than one picture" in report.warnings[0]


def test_classes_with_one_picture_are_named_and_the_others_checked(tmp_path):
    fill(fill(tmp_path, 2, ("bar", "ring")), 1, ("cross",))
    report, _ = adapt_folder(make_prior(), tmp_path, name="mine")
    assert report.check.scores[0].n == 4
    assert report.warnings[0] == "Classes with one picture were not checked: cross."
    assert not adapt_folder(make_prior(), tmp_path, name="mine", check=False)[0].warnings


class Always(Learner):
    """Says the same class of every picture."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def adapt(self, task, *, generator=None):
        logits = torch.nn.functional.one_hot(torch.tensor(self.label), task.n_way).float()
        return lambda x: torch.distributions.Categorical(logits=logits.expand(*x.shape[:2], -1))

    def loss(self, tasks, *, generator=None):
        raise NotImplementedError


def easy(counts=(4, 2)) -> LabelledSet:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = 200 * torch.nn.functional.one_hot(y, 9).to(torch.uint8)
    x[:, 8] = torch.arange(len(y))  # no two pictures are the same
    return LabelledSet(x.view(-1, 1, 3, 3), y, tuple("abc")[: len(counts)])


def test_the_method_that_names_most_left_out_pictures_is_used():
    found = self_check({"prior": Always(1), "other": NearestNeighbour(), "third": Always(0)}, easy(), seed=0)
    assert found.used == "other"
    assert [round(score.mean) for score in found.scores] == [33, 100, 67]
    assert found.why == "It named 6 of 6 pictures that were left out, more than any other."
    assert (found.expected.mean, found.expected.n) == (100, 6)
    assert found.confusion.tolist() == [[4, 0], [0, 2]]


def test_a_tie_goes_to_the_prior():
    found = self_check({"prior": Always(0), "third": Always(0)}, easy(), seed=0)
    assert found.used == "prior"
    assert found.why == "It named 4 of 6 pictures that were left out, as did third; a tie goes to it."


def draws_of(share: float, methods: int = 3, n: int = 15, seed: int = 0) -> torch.Tensor:
    """Whether methods that are all as good are right."""
    return torch.rand(methods, n, generator=torch.Generator().manual_seed(seed)) < share


def test_what_to_expect_of_the_choice_is_not_flattered_by_having_chosen():
    tables = [draws_of(0.6, seed=seed) for seed in range(300)]
    best = sum(table.sum(1).max().item() for table in tables) / len(tables) / 15
    expected = [share_of_the_choice(table, generator=torch.Generator().manual_seed(1)).percent for table in tables]
    assert 100 * best > 60 + 6
    assert abs(sum(expected) / len(expected) - 60) < 2  # 3 standard errors


@pytest.mark.parametrize("n", [2, 15])
def test_a_method_that_is_always_right_is_expected_to_stay_so(n):
    right = torch.stack([torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)])
    found = share_of_the_choice(right, generator=torch.Generator().manual_seed(0))
    assert (found.right, found.n) == (n, n)


def test_what_to_expect_of_one_method_is_its_own_share():
    right = torch.tensor([[True] * 6 + [False] * 4])
    assert share_of_the_choice(right, generator=torch.Generator().manual_seed(0)).right == 6


def test_every_picture_is_left_out_once_and_its_class_never_vanishes():
    data = easy((7, 3, 1))
    folds = stratified_folds(data, seed=0)
    assert folds[-1] == -1  # the only one of its class stays
    for fold in range(int(folds.max()) + 1):
        kept = data.y[folds != fold]
        assert kept.unique().tolist() == [0, 1, 2]
    assert (folds[:-1] >= 0).all()


THRESHOLDS = {"n_way": 3, "n_shot": 3, "kept": 95.0, "refused": 60.0}


@pytest.mark.parametrize(("threshold", "refused"), [(-1.1, False), (1.1, True)])
@pytest.mark.parametrize(("name", "check"), [("value", True), ("value", False), ("probability", False)])  # old and new
def test_what_lies_below_the_threshold_is_none_of_these(pictures, threshold, refused, name, check):
    labelled, new, out = pictures
    prior = make_prior(training={"unknown": [{**THRESHOLDS, name: threshold}]})
    report, answers = adapt_folder(prior, labelled, name="mine", predict=new, out=out, unknown=True, check=check)
    assert [row[1] == "none of these" for row in rows(out)[1:]] == 4 * [refused]
    assert [label is None for label in answers.labels] == 4 * [refused]
    assert [row[2] == "" for row in rows(out)[1:]] == 4 * [
        refused
    ]  # a rejected class's probability is not that of none
    assert answers.probabilities.isnan().tolist() == 4 * [refused]
    assert "set on 3-way 3-shot tasks of validation classes, of whose" in report.settings["none of these"]
    adapt_folder(prior, labelled, name="mine", predict=new, out=out, check=check)
    assert "none of these" not in {row[1] for row in rows(out)}


@pytest.mark.parametrize(("shots", "expected"), [((2, 2, 2), 2), ((1, 3, 3), 2), ((1, 1, 5), 1), ((3, 4, 4), 3)])
def test_the_threshold_is_that_of_as_many_shots_as_the_task_has(tmp_path, shots, expected):
    for shape, n in zip(SHAPES, shots):
        fill(tmp_path, n, (shape,))
    known = [{"n_way": 3, "n_shot": n, "value": 0.9, "kept": 95.0, "refused": 90.0 + n} for n in (1, 2, 3, 5)]
    prior = make_prior(training={"unknown": known})
    report, _ = adapt_folder(prior, tmp_path, name="mine", unknown=True, check=False)
    said = report.settings["none of these"]
    assert f"3-way {expected}-shot tasks" in said
    assert said.endswith(f"in the same tasks, it refused {90 + expected} %")


def test_a_prior_without_thresholds_says_how_to_get_them(pictures):
    with pytest.raises(TaskError, match="mine was saved without thresholds for --unknown"):
        adapt_folder(make_prior(), pictures[0], name="mine", unknown=True)
    few = {"unknown": [], "data": {"validation": {"classes": 2}}}
    with pytest.raises(TaskError, match="its training left 2 classes to validate on"):
        adapt_folder(make_prior(training=few), pictures[0], name="mine", unknown=True)


def test_bad_pictures_are_named_and_skipped_only_when_asked(pictures):
    labelled, new, out = pictures
    (labelled / "bar" / "empty.png").write_bytes(b"")
    (new / "text.jpg").write_text("not a picture")
    with pytest.raises(UnreadablePictureError, match=r"1 of 10 pictures cannot be read:\n.*empty\.png.*0 bytes"):
        adapt_folder(make_prior(), labelled, name="mine", predict=new, out=out)
    (labelled / "bar" / "empty.png").unlink()
    with pytest.raises(UnreadablePictureError, match=r"text\.jpg"):
        adapt_folder(make_prior(), labelled, name="mine", predict=new, out=out)
    assert not out.exists()
    report, _ = adapt_folder(make_prior(), labelled, name="mine", predict=new, out=out, skip_bad=True, check=False)
    assert any("text.jpg" in warning for warning in report.warnings)
    assert len(rows(out)) == 1 + 4


def test_one_class_is_no_task(tmp_path):
    with pytest.raises(TooFewExamplesError, match="one class only, 'ring'"):
        adapt_folder(make_prior(), fill(tmp_path, 3, ("ring",)), name="mine")


def test_pictures_of_any_size_and_mode_are_read(tmp_path):
    fill(tmp_path, 1)
    for i, (mode, size) in enumerate(
        [("RGB", (60, 30)), ("RGBA", (17, 90)), ("P", (40, 40)), ("1", (28, 28)), ("LA", (3, 3))]
    ):
        draw(SHAPES[i % 3], 0, mode, size).save(tmp_path / SHAPES[i % 3] / f"other {i}.png")
    draw("ring", 0, "RGB", (500, 400)).save(tmp_path / "ring" / "photograph.jpg")
    report, _ = adapt_folder(make_prior(), tmp_path, name="mine", check=False)
    assert report.support.shape == (9, 1, 28, 28)


def test_more_classes_than_a_prior_has_outputs_are_refused_at_once(tmp_path):
    with pytest.raises(ShapeError, match=r"mine tells at most 2 classes apart, and .* has 3") as error:
        adapt_folder(make_prior("maml", n_way=2), fill(tmp_path, 2), name="mine")
    assert "glyphs_prototypical_network" in str(error.value)
    assert adapt_folder(make_prior(n_way=2), tmp_path, name="mine", check=False)[0].class_names == SHAPES


def test_fewer_classes_than_a_prior_has_outputs_are_fine(pictures):
    labelled, new, out = pictures
    adapt_folder(make_prior("maml", n_way=5), labelled, name="mine", predict=new, out=out)
    assert {row[1] for row in rows(out)[1:]} <= set(SHAPES)


def test_a_prior_whose_encoder_makes_other_pictures_than_it_takes_is_refused(pictures):
    prior = make_prior()
    wrong = Prior(prior.learner, prior.recipe, PictureEncoder(size=32, channels=3).to_settings())
    with pytest.raises(ShapeError, match=r"takes inputs of shape \(1, 28, 28\).*\(3, 32, 32\)"):
        adapt_folder(wrong, pictures[0], name="mine")


def test_a_transductive_prior_is_named_as_one(pictures):
    report, _ = adapt_folder(make_prior("maml", statistics="transductive"), pictures[0], name="mine", check=False)
    assert "mine is transductive" in report.warnings[0]


def test_adapting_leaves_the_prior_alone(pictures):
    prior = make_prior()
    before = {name: value.clone() for name, value in prior.learner.state_dict().items()}
    adapt_folder(prior, pictures[0], name="mine", predict=pictures[1])
    assert all(torch.equal(before[name], value) for name, value in prior.learner.state_dict().items())
    assert not prior.learner.training


def test_classes_that_are_often_confused_are_named(tmp_path):
    for shape, name in (("ring", "ring"), ("ring", "circle")):
        (tmp_path / name).mkdir()
        for i in range(5):
            draw(shape, i).save(tmp_path / name / f"{i}.png")
    report, _ = adapt_folder(make_prior(), tmp_path, name="mine")
    assert any("were taken for" in warning for warning in report.warnings)


def test_names_of_files_and_classes_may_hold_anything(tmp_path):
    names = ('a,b "c"', "<b>ü</b>")
    for shape, name in zip(SHAPES, names):
        (tmp_path / "known" / name.replace("/", "∕")).mkdir(parents=True)
        draw(shape).save(tmp_path / "known" / name.replace("/", "∕") / "1.png")
    draw("bar").save(tmp_path / "=1+1,\n.png")
    adapt_folder(make_prior(), tmp_path / "known", name="mine", predict=tmp_path / "=1+1,\n.png", out=tmp_path / "out")
    assert rows(tmp_path / "out")[1][0] == "=1+1,\n.png"
    assert "<b>ü" not in (tmp_path / "out" / "report.html").read_text("utf-8")
