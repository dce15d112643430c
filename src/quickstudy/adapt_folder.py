"""A few labelled pictures in a folder in, answers for the others out."""

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Generator, Tensor

from quickstudy.artefacts import write_together
from quickstudy.errors import DataError, DivergedError, ShapeError, TaskError
from quickstudy.learners.catalogue import LEARNERS, Recipe
from quickstudy.learners.learner import Learner
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.prior import Prior
from quickstudy.report import AdaptReport, Predictions, Score, SelfCheck, render
from quickstudy.tasks.encoder_for import look
from quickstudy.tasks.episodes import LabelledSet, to_float
from quickstudy.tasks.image_folder import image_folder, unlabelled_pictures
from quickstudy.tasks.pictures import PictureEncoder
from quickstudy.tasks.task import Task
from quickstudy.training.proportion import Share
from quickstudy.training.train_prior import refuse_as_folder
from quickstudy.training.unknown import Threshold, even_shots, nearest

NONE = "none of these"
FOLDS = 5
LOOK_ALIKE = 3  # pictures of one class taken for another before the report warns of the pair
FAR = 1.5  # times as many classes as a threshold was calibrated for, before the report warns
OnStage = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """Answers for pictures without labels."""

    files: tuple[Path, ...]
    labels: tuple[int | None, ...]
    """An index into the class names; None where it is none of them."""
    probabilities: Tensor
    """`(m,)`, of the class that is answered; NaN where the answer is none."""

    def to_csv(self, class_names: Sequence[str], folder: Path) -> str:
        """One row a file: its path below the folder, label, probability, which is empty for "none of these"."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "label", "probability"])
        for file, label, probability in zip(self.files, self.labels, self.probabilities.tolist()):
            name = (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
            answer = (NONE, "") if label is None else (class_names[label], f"{probability:.4f}")
            writer.writerow([name, *answer])
        return text.getvalue()


def adapt_folder(
    prior: Prior,
    folder: Path | str,
    *,
    name: str,
    predict: Path | str | None = None,
    out: Path | str | None = None,
    unknown: bool = False,
    check: bool = True,
    skip_bad: bool = False,
    seed: int = 0,
    on_stage: OnStage | None = None,
) -> tuple[AdaptReport, Answers | None]:
    """Adapts a prior to a folder of labelled pictures, checks it against simpler methods, and predicts.

    With two or more pictures a class it leaves pictures out in turn, and the method that names most of them rightly
    makes the predictions: the adapted prior, nearest neighbour on pixels, or a network trained from scratch. A tie
    goes to the prior.

    Args:
        prior: A meta-trained learner with the encoder of its pictures.
        folder: A subfolder a class.
        name: What the report calls the prior.
        predict: A folder of pictures without labels, which lies elsewhere, or one picture.
        out: Where `predictions.csv` and `report.html` go; nothing is written without it.
        unknown: Answer "none of these" below the threshold that was calibrated in meta-training.
        check: Leave pictures out and compare; else the prior is used.
        skip_bad: Leave unreadable pictures out instead of stopping.
        seed: Of what is left out, and of the baselines.
        on_stage: Is told what is being done.

    Raises:
        TaskError: Where `unknown` is asked of a prior without thresholds, or a class is called "none of these".
        DataError, TooFewExamplesError: Where the pictures cannot be read or do not make a task.
        ShapeError: Where the prior cannot tell so many classes apart.
        DivergedError: Where adapting to the pictures leads to answers that are not finite.
        OutputExistsError, DataError: Where `out` is a file, or it or `predict` lies among the classes.
    """
    folder, out = Path(folder), None if out is None else Path(out)
    predict = None if predict is None else Path(predict).expanduser()
    if out is not None:
        refuse_as_folder(out, folder)
    if predict is not None and predict.is_dir() and folder.expanduser().resolve() in predict.resolve().parents:
        raise DataError(
            f"{predict}, whose pictures are to be named, lies among the classes in {folder}. Move it elsewhere."
        )
    say = on_stage or (lambda stage: None)
    start = time.perf_counter()
    encoder = PictureEncoder.from_settings(prior.encoder)
    if prior.recipe.shape != (encoder.channels, encoder.size, encoder.size):
        raise ShapeError(
            f"{name} takes inputs of shape {prior.recipe.shape}, and its encoder makes pictures of shape "
            f"{(encoder.channels, encoder.size, encoder.size)}. Save it with the encoder that it was trained with."
        )
    say("reading pictures")
    warnings = list[str]()
    data = image_folder(folder, encoder=encoder, skip_bad=skip_bad, tell=warnings.append)
    warnings += doubts(folder, encoder, data, name)
    most = prior.recipe.n_way
    if data.n_classes > most and not LEARNERS[prior.recipe.learner].any_way:
        raise ShapeError(
            f"{name} tells at most {most} classes apart, and {folder} has {data.n_classes}. Take a prior without that "
            "limit, such as glyphs_prototypical_network, or train one with a larger --n-way."
        )
    counts = different(data)
    n_shot = even_shots(counts)
    threshold = nearest(prior.training.get("unknown", ()), data.n_classes, n_shot) if unknown else None
    if unknown and threshold is None:
        raise TaskError(f"{name} {why_no_threshold(prior)}, or omit --unknown.")
    if unknown and NONE in data.class_names:
        raise TaskError(f"a class is called {NONE!r}, which is what --unknown answers. Rename it, or omit --unknown.")
    if threshold is not None and data.n_classes > FAR * threshold.n_way:
        warnings.append(
            f'"{NONE}" was calibrated on tasks of {threshold.n_way} classes, and here are {data.n_classes}: the more '
            "there are, the more strangers are like one of them, and far more may pass than the report says."
        )
    own = prior.recipe.learner.replace("_", " ")
    methods: dict[str, Learner] = {own: prior.learner}
    if prior.recipe.transductive:
        warnings.append(f"{name} is transductive: its answer to a picture depends on the others that are asked about.")
    found: SelfCheck | None = None
    several = int((counts > 1).sum())
    if check and several > 1:
        methods["nearest neighbour on pixels"] = NearestNeighbour()
        methods["from scratch"] = scratch(prior.recipe, data.n_classes).build()
        say("leaving pictures out, to check")
        found = self_check(methods, data, seed=seed, on_stage=say)
    elif check:
        which = "only one class has more than one picture" if several else "no class has two different pictures"
        warnings.append(f"No picture could be left out to check the answers with: {which}.")
    if found is not None and int(counts.min()) == 1:
        single = [data.class_names[i] for i in (counts == 1).nonzero().flatten().tolist()]
        warnings.append(f"Classes with one picture were not checked: {', '.join(single[:5])}.")
    if found is not None and found.confusion is not None:
        mistakes = found.confusion - torch.diag(found.confusion.diagonal())
        for a, b in (mistakes >= LOOK_ALIKE).nonzero().tolist():
            warnings.append(
                f"{int(mistakes[a, b])} pictures of {data.class_names[a]!r} were taken for {data.class_names[b]!r}."
            )
    used = own if found is None else found.used
    if predict is not None and isinstance(methods[used], NearestNeighbour):
        warnings.append("Nearest neighbour gives all its answers the same probability: it says nothing of one of them.")
    answers, predictions, root = None, None, folder
    if predict is not None:
        say("predicting")
        files, x = unlabelled_pictures(predict, encoder, skip_bad=skip_bad, tell=warnings.append)
        probabilities = answer(methods[used], data, x, seed=seed)
        best = probabilities.max(1)
        labels: list[int | None] = best.indices.tolist()
        if threshold is not None:
            # The threshold is the prior's own, so the prior decides, whichever method names the class.
            known = familiar(prior.learner, threshold, data, x, seed=seed)
            labels = [label if score >= threshold.value else None for label, score in zip(labels, known.tolist())]
        top = probabilities.topk(min(2, data.n_classes)).indices
        ties = isinstance(methods[used], NearestNeighbour)  # to which all other classes are equally probable
        closest = tuple(
            int(row[0]) if label is None else None if ties else int(row[-1]) for row, label in zip(top, labels)
        )
        # A probability says which class it is if it is one of them, and so nothing where it is none.
        of_answer = best.values.masked_fill(torch.tensor([label is None for label in labels]), math.nan)
        answers = Answers(tuple(files), tuple(labels), of_answer)
        root = predict if predict.is_dir() else predict.parent
        names = tuple((f.relative_to(root) if f.is_relative_to(root) else f).as_posix() for f in files)
        predictions = Predictions(names, x, tuple(labels), of_answer, closest)
    settings = {"prior": name, "learner": own, "seed": str(seed), "pictures": describe(encoder)}
    if threshold is not None:
        settings["none of these"] = (
            f"below a {threshold.score} of {threshold.value:.3f}, set on {threshold.n_way}-way {threshold.n_shot}-shot "
            f"tasks of validation classes, of whose pictures it keeps {threshold.kept:.0f} %; of pictures of other "
            f"classes, in the same tasks, it refused {threshold.refused:.0f} %"
        )
    report = AdaptReport(
        prior=name,
        folder=folder.resolve().name,
        class_names=data.class_names,
        support=data.x,
        support_labels=tuple(data.y.tolist()),
        method=used,
        seconds=time.perf_counter() - start,
        check=found,
        predictions=predictions,
        warnings=tuple(warnings),
        ink=encoder.channels == 1 and encoder.ink,
        settings=settings,
    )
    if out is not None:
        table = {} if answers is None else {out / "predictions.csv": as_bytes(answers.to_csv(data.class_names, root))}
        write_together({**table, out / "report.html": as_bytes(render(report))})
    return report, answers


def why_no_threshold(prior: Prior) -> str:
    """Why a prior has no threshold for "none of these", and what to do about it."""
    if "unknown" not in prior.training:
        return "was saved without thresholds for --unknown, which `quickstudy train` calibrates: train it with that"
    n = prior.training.get("data", {}).get("validation", {}).get("classes", "fewer than 3")
    return (
        f"has no thresholds for --unknown: they are calibrated on 2 classes that are shown and a third that is not, "
        f"and its training left {n} classes to validate on. Train with --n-way 3 or more, or on more classes"
    )


def as_bytes(text: str) -> bytes:
    """UTF-8, in which a file name that is not UTF-8 keeps its own bytes."""
    return text.encode("utf-8", "surrogateescape")


def scratch(recipe: Recipe, n_way: int) -> Recipe:
    """The recipe of training the same network from scratch."""
    net = recipe.net or "conv4"
    return Recipe("from_scratch", net, recipe.shape, n_way, {}, recipe.net_options if recipe.net else {})


def describe(encoder: PictureEncoder) -> str:
    """The resize policy in words."""
    colour = "grey" if encoder.channels == 1 else "colour"
    return f"{encoder.size}x{encoder.size}, {colour}, {encoder.resize}"


@torch.no_grad()
def answer(learner: Learner, data: LabelledSet, x: Tensor, *, seed: int, batch: int = 256) -> Tensor:
    """Probabilities `(m, k)` of pictures `(m, c, h, w)`, with all labelled ones as the support set of one task."""
    predictor = learner.adapt(one_task(data), generator=Generator().manual_seed(seed))
    parts = [predictor(to_float(part)[None]).probs[0] for part in x.split(batch)]  # type: ignore[attr-defined]
    probabilities = torch.cat(parts)
    if n := int((~probabilities.isfinite()).any(1).sum()):
        raise DivergedError(
            f"{type(learner).__name__} diverged as it adapted to the labelled pictures: {n} of {len(x)} answers are "
            "not finite. Take another prior, or train one with a lower inner rate (lr) or fewer inner steps."
        )
    return probabilities


@torch.no_grad()
def familiar(
    learner: Learner, threshold: Threshold, data: LabelledSet, x: Tensor, *, seed: int, batch: int = 256
) -> Tensor:
    """What a threshold is compared with, `(m,)`, of pictures `(m, c, h, w)`."""
    scores = threshold.scores(learner, one_task(data), generator=Generator().manual_seed(seed))
    return torch.cat([scores(to_float(part)[None])[0] for part in x.split(batch)])


def one_task(data: LabelledSet) -> Task:
    """All labelled pictures as the support set of one task, and no queries."""
    return Task.of(to_float(data.x), data.y, n_way=data.n_classes)


def doubts(folder: Path, encoder: PictureEncoder, data: LabelledSet, name: str) -> list[str]:
    """What makes labelled pictures unfit for a prior or for a check, a sentence each."""
    found, seen = [], look(folder.expanduser())
    coloured = [one.colour and not (encoder.ink and one.paper) for one in seen]  # but for drawings in coloured ink
    if encoder.channels == 1 and 2 * sum(coloured) > len(seen):
        found.append(
            f"The pictures have colour, and {name} reads them in grey: what differs in colour alone looks alike to it. "
            "`quickstudy train` makes a prior that sees it, from many classes of such pictures."
        )
    elif encoder.ink and encoder.channels == 1 and 2 * sum(one.paper for one in seen) < len(seen):
        found.append(
            f"{name} reads pictures as ink on paper, and most of these are no drawings: half of their levels are lost. "
            "`quickstudy train` makes a prior that keeps them, from many classes of such pictures."
        )
    which = copies(data)
    if more := len(which) - len(which.unique()):
        found.append(f"{more} of the {len(which)} labelled pictures are copies of others, and tell nothing new.")
    pairs = torch.stack([which, data.y], 1).unique(dim=0).tolist()  # in the order of pictures, and then of classes
    shared = sorted({(a, b) for (one, a), (other, b) in pairwise(pairs) if one == other})
    for a, b in shared[:LOOK_ALIKE]:
        found.append(f"Classes {data.class_names[a]!r} and {data.class_names[b]!r} have a picture in common.")
    return found


def copies(data: LabelledSet) -> Tensor:
    """A number for each picture, the same for pictures that are read alike, `(n,)`."""
    found: Tensor = torch.unique(data.x.flatten(1), dim=0, return_inverse=True)[1]
    return found


def different(data: LabelledSet) -> Tensor:
    """How many different pictures each class has, `(classes,)`."""
    pairs = torch.stack([data.y, copies(data)], 1).unique(dim=0)
    return torch.bincount(pairs[:, 0], minlength=data.n_classes)


def self_check(
    methods: dict[str, Learner], data: LabelledSet, *, seed: int, on_stage: OnStage | None = None
) -> SelfCheck:
    """Leaves labelled pictures out in turn, and compares methods on them. The first wins a tie.

    The score of the method that wins is flattered, since the same pictures chose it; what is expected of it is not.
    """
    folds = stratified_folds(data, seed)
    right = torch.zeros(len(methods), len(data.y), dtype=torch.bool)
    seconds = dict.fromkeys(methods, 0.0)
    confusions = {method: torch.zeros(data.n_classes, data.n_classes, dtype=torch.int64) for method in methods}
    n_folds = int(folds.max()) + 1
    for fold in range(n_folds):
        if on_stage is not None:
            on_stage(f"leaving pictures out, part {fold + 1} of {n_folds}")
        rest, out = folds != fold, folds == fold
        known = LabelledSet(data.x[rest], data.y[rest], data.class_names)
        for i, (method, learner) in enumerate(methods.items()):
            start = time.perf_counter()
            answered = answer(learner, known, data.x[out], seed=seed).argmax(1)
            seconds[method] += (time.perf_counter() - start) / n_folds
            right[i, out] = answered == data.y[out]
            confusions[method].index_put_((data.y[out], answered), torch.ones_like(answered), accumulate=True)
    right = right[:, folds >= 0]
    totals = dict(zip(methods, right.sum(1).tolist()))
    n = right.shape[1]
    best = max(methods, key=lambda method: totals[method])
    first = next(iter(methods))
    ties = [method for method in methods if method != best and totals[method] == totals[best]]
    beside = f"as did {' and '.join(ties)}" if ties else "more than any other"
    tie = "; a tie goes to it" if ties and best == first else ""
    why = f"It named {totals[best]} of {n} pictures that were left out, {beside}{tie}."
    scores = tuple(scored(method, Share(totals[method], n), seconds[method]) for method in methods)
    honest = share_of_the_choice(right, generator=Generator().manual_seed(seed))
    return SelfCheck(scores, best, why, scored("the choice", honest), confusions[best])


def share_of_the_choice(right: Tensor, *, generator: Generator, resamples: int = 200) -> Share:
    """What share the method that names most pictures rightly names of others.

    Pictures are drawn with replacement and choose a method; it is judged by those that were not drawn. No method
    answers anew.

    Args:
        right: Whether each method was right about each picture, `(m, n)`; of a tie the first is chosen.
        generator: Of the drawing.
        resamples: How often it is drawn.

    References:
        Tsamardinos et al., [Bootstrapping the out-of-sample predictions for efficient and accurate
        cross-validation](https://doi.org/10.1007/s10994-018-5714-4), 2018.
    """
    n = right.shape[1]
    drawn = torch.randint(n, (resamples, n), generator=generator)
    times = torch.zeros(resamples, n).scatter_add_(1, drawn, torch.ones(resamples, n))
    chosen, others = (times @ right.T.float()).argmax(1), times == 0
    return Share(round(n * float((right[chosen] & others).sum() / others.sum())), n)


def scored(method: str, share: Share, seconds: float | None = None) -> Score:
    """Of the pictures that were left out."""
    return Score(method, "pictures left out", share.percent, None, share.n, seconds, share.low, share.high)


def stratified_folds(data: LabelledSet, seed: int) -> Tensor:
    """For each picture the fold that leaves it out with its copies, or -1 where its class has no other, `(n,)`."""
    generator, which = Generator().manual_seed(seed), copies(data)
    counts = different(data)
    n_folds = min(FOLDS, int(counts[counts > 1].min()))
    folds = torch.full((len(data.y),), -1)
    for label in (counts > 1).nonzero().flatten().tolist():
        rows = (data.y == label).nonzero().flatten()
        kinds = which[rows].tolist()
        own = list(dict.fromkeys(kinds))  # in the order of the pictures
        order = torch.randperm(len(own), generator=generator).tolist()
        fold = {own[kind]: place % n_folds for place, kind in enumerate(order)}
        folds[rows] = torch.tensor([fold[kind] for kind in kinds])
    return folds
