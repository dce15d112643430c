"""The demonstration: a learner learns to learn before the user's eyes; then a network is searched that fits limits."""

import platform
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Generator, Tensor

from quickstudy.adapt_folder import scratch
from quickstudy.artefacts import write_atomically
from quickstudy.errors import OutcomeError
from quickstudy.learners.catalogue import Recipe
from quickstudy.learners.learner import Learner
from quickstudy.learners.maml import MAML
from quickstudy.learners.nearest_neighbour import NearestNeighbour
from quickstudy.learners.prior import Prior, load, provenance, save
from quickstudy.nas.budget import Budget
from quickstudy.nas.build import Limits
from quickstudy.nas.tried import Progress as SearchProgress
from quickstudy.priors import shipped, shipped_names
from quickstudy.report import DemoReport, Score, StepCurve, TaskShown, TrainingCurve, render
from quickstudy.search_data import REPORT, STUDIES, search_data
from quickstudy.tasks.catalogue import Splits
from quickstudy.tasks.episodes import Episodes, LabelledSet
from quickstudy.tasks.load_task import load_task
from quickstudy.training.evaluate import Evaluation, evaluate
from quickstudy.training.history import Progress
from quickstudy.training.meta_train import meta_train
from quickstudy.training.origin import origin
from quickstudy.training.unknown import calibrate, to_settings

LIVE = "prototypical network, trained live"
SETTINGS = {"5-way 1-shot": 5, "20-way 1-shot": 20}
QUERIES = {5: 5, 20: 2}  # query pictures a class
FEWER = {5: 10, 20: 40}  # from scratch is slow, and judged on so many times fewer tasks
STEPS, BATCH = 10, 8
SEARCH, SEARCHED, LIMITS = "search", "digits", Limits(max_params=5_000, max_memory=16 * 1024)
"""Folder, data and limits of the second act."""
NEEDED = ("sklearn", "optuna", "onnx", "onnxruntime", "onnxscript")
"""What the second act needs beyond the first."""
OnScore = Callable[[Score], None]


def run_demo(
    splits: Splits,
    *,
    out: Path,
    seconds: float = 60.0,
    tasks: int = 600,
    seed: int = 0,
    on_training: Callable[[Progress], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_score: OnScore | None = None,
) -> DemoReport:
    """Meta-trains a prototypical network, compares it on tasks of unseen alphabets, and writes `report.html`.

    Args:
        splits: Glyphs, or another data set of pictures.
        out: Folder for the report and the prior that was trained.
        seconds: Of meta-training.
        tasks: Test tasks of each kind.
        seed: Of everything random.
        on_training: Is called in meta-training.
        on_stage: Is told what is being done.
        on_score: Is called with each score as it is known.
    """
    say = on_stage or (lambda stage: None)
    shape = tuple(splits.train.x.shape[1:])
    recipe = Recipe("prototypical_network", "conv4", shape, 20, net_options={"width": 32})
    torch.manual_seed(seed)
    learner = recipe.build()
    history = meta_train(
        learner,
        Episodes(splits.train, n_way=20, n_shot=1, n_query=5),
        steps=100_000,
        seconds=seconds,
        tasks_per_step=2,
        schedule="cosine",
        validation=Episodes(splits.validation, n_way=20, n_shot=1, n_query=2),
        validate_every=200,
        validation_tasks=100,
        seed=seed,
        on_progress=on_training,
    )
    say("calibrating when to answer none of these")
    training = {
        **origin(splits, out / "prior"),
        "n_way": 20,
        "n_shot": 1,
        "n_query": 5,
        "seconds": round(history.seconds, 1),
        "seed": seed,
        "unknown": to_settings(calibrate(learner, splits.validation)),
        **provenance(),
    }
    save(out / "prior", Prior(learner, recipe, splits.encoder.to_settings(), training))

    methods: dict[str, Learner] = {LIVE: learner}
    for name in ("glyphs_prototypical_network", "glyphs_maml", "glyphs_fine_tune"):
        if name in shipped_names():
            methods[f"{name.removeprefix('glyphs_').replace('_', ' ')}, shipped"] = load(shipped(name)).learner
    methods["from scratch"] = scratch(recipe, 20).build()
    methods["nearest neighbour on pixels"] = NearestNeighbour()
    scores = []
    for setting, n_way in SETTINGS.items():
        say(f"{tasks} tasks of unseen alphabets, {setting}")
        source = Episodes(splits.test, n_way=n_way, n_shot=1, n_query=QUERIES[n_way])
        for method, judged in methods.items():
            if method == "maml, shipped" and n_way != 5:
                continue  # its network has five outputs
            n = fewer(tasks, n_way) if method == "from scratch" else tasks
            found = evaluate(judged, source, tasks=n, seed=seed + 1)
            scores.append(Score(method, setting, found.mean, found.ci95, found.n, found.seconds / found.n))
            if on_score is not None:
                on_score(scores[-1])
    alone = " and ".join(str(fewer(tasks, n_way)) for n_way in FEWER)
    curve = TrainingCurve(LIVE, "20-way 1-shot", tuple(history.validations), 5.0)
    report = DemoReport(
        learner="a prototypical network",
        live=LIVE,
        seconds=history.seconds,
        trained_on=describe(splits.train),
        tested_on=describe(splits.test),
        scores=tuple(scores),
        chance={setting: 100 / n_way for setting, n_way in SETTINGS.items()},
        curve=curve,
        task=show_task(learner, splits.test, seed),
        steps=adaptation_curve(splits.test, seed),
        shell=f"quickstudy adapt {shlex.quote(str(out / 'prior'))} my_classes/ --predict unlabelled/ --out out/",
        python=(
            "import quickstudy\n"
            f'prior = quickstudy.load("{out / "prior"}")\n'
            "predictor = prior.learner.adapt(task)          # a few labelled pictures\n"
            "probabilities = predictor(task.query.x).probs  # of the others"
        ),
        ink=True,
        settings={
            "tasks": f"{tasks} of each kind, {alone} from scratch, inductive",
            "seed": str(seed),
            "steps": f"{history.step} of 2 tasks, 20-way 1-shot, conv4-32",
            "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
            "date": datetime.now(UTC).date().isoformat(),
        },
    )
    write_atomically(out / "report.html", render(report).encode())
    return report


def add_search(
    report: DemoReport,
    *,
    out: Path,
    budget: Budget,
    seed: int = 0,
    on_progress: Callable[[SearchProgress], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> DemoReport:
    """The second act: searches a network for handwritten digits within limits, and adds it to `report.html`.

    Where that cannot be, the report says why, in a sentence.

    Args:
        report: Of the first act.
        out: Folder of the first act's report; the search writes into `search` in it, in place of an earlier one.
        budget: Of the search.
        seed: Of everything random.
        on_progress: Is called when a trial has ended.
        on_stage: Is told what is being done after the search.
    """
    folder = out / SEARCH
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        why = (
            f"A search for a network needs what is not installed ({', '.join(missing)}): pip install 'quickstudy[nas]'."
        )
        report = replace(report, search_skipped=why)
    else:
        for file in folder.glob(f"{STUDIES}*"):  # the demonstration begins anew, where a search would go on
            file.unlink()
        try:
            found = search_data(
                load_task(SEARCHED, seed=seed),
                out=folder,
                budget=budget,
                limits=LIMITS,
                seed=seed,
                on_progress=on_progress,
                on_stage=on_stage,
            )
        except OutcomeError as error:  # a machine that is too slow for the seconds
            report = replace(report, search_skipped=f"The search led to nothing: {error}")
        else:
            report = replace(
                report,
                search=found.report,
                search_page=f"{SEARCH}/{REPORT}",
                search_shell="quickstudy search my_pictures/ --max-params 5k --max-memory 16k --out small/",
            )
    write_atomically(out / "report.html", render(report).encode())
    return report


def fewer(tasks: int, n_way: int) -> int:
    """How many of so many tasks are trained on from scratch."""
    return max(2, tasks // FEWER[n_way])


def describe(data: LabelledSet) -> str:
    """How many classes of how many groups."""
    groups = "" if data.groups is None else f" of {len(set(data.groups))} alphabets and symbol families"
    return f"{data.n_classes:,} characters{groups}"


def readable(name: str) -> str:
    """A class name without its group, in lower case but for the first letter."""
    sign, _, rest = name.rpartition("/")[2].partition(" ")
    return f"{sign} {rest.capitalize()}".strip()


@torch.no_grad()
def show_task(learner: Learner, data: LabelledSet, seed: int) -> TaskShown:
    """One task of five classes with the learner's answers."""
    generator, spare = Generator().manual_seed(seed + 2), int(data.counts().min()) - 1
    task = Episodes(data, n_way=5, n_shot=1, n_query=min(10, spare), encode=lambda x: x).sample(1, generator=generator)
    pictures = task.map(lambda value: value.float() / 255 if value.dtype == torch.uint8 else value)
    probabilities = learner.adapt(pictures)(pictures.query.x).probs[0]  # type: ignore[attr-defined]
    classes = [] if task.classes is None else task.classes[0].tolist()
    return TaskShown(
        LIVE,
        tuple(readable(data.class_names[i]) for i in classes),
        task.support.x[0],
        tuple(task.support.y[0].tolist()),
        task.query.x[0],
        tuple(task.query.y[0].tolist()),
        probabilities,
    )


@torch.no_grad()
def adaptation_curve(data: LabelledSet, seed: int, tasks: int = 100) -> StepCurve | None:
    """Accuracy of the shipped MAML after each inner step; None where it is not there."""
    if "glyphs_maml" not in shipped_names():
        return None
    learner = load(shipped("glyphs_maml")).learner
    if not isinstance(learner, MAML):
        return None
    source, generator = Episodes(data, n_way=5, n_shot=1, n_query=QUERIES[5]), Generator().manual_seed(seed + 3)
    right: list[list[Tensor]] = [[] for _ in range(STEPS + 1)]
    for _ in range(0, tasks, BATCH):
        task = source.sample(BATCH, generator=generator)
        for found, predictor in zip(right, learner.adapt_stepwise(task, STEPS)):
            answers = predictor(task.query.x).logits.argmax(-1)  # type: ignore[attr-defined]
            found.append(100 * (answers == task.query.y).double().mean(1))
    evaluations = [Evaluation("accuracy %", torch.cat(found), 0.0) for found in right]
    points = tuple((step, found.mean, found.ci95) for step, found in enumerate(evaluations))
    return StepCurve("maml, shipped", "5-way 1-shot", points, tasks, 20.0)
