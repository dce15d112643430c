"""Makes the priors that come with quickstudy: `python -m quickstudy.priors.make NAME`, each in half an hour at most.

A prior is meta-trained on Glyphs' training alphabets, its weights are chosen on the validation alphabets, and the test
alphabets are not touched. The checkpoint stays in `runs/NAME`, so that an interrupted run goes on where it was.

`python -m quickstudy.priors.make NAME --calibrate` sets only its thresholds for "none of these" anew, and leaves the
weights as they are.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from quickstudy.learners.prior import load, save
from quickstudy.priors import shipped
from quickstudy.tasks.catalogue import load_splits
from quickstudy.training.origin import is_as_trained
from quickstudy.training.train_prior import recalibrate

OF_20 = "--n-way 20 --n-query 5 --tasks-per-step 1 --clip 10 --minutes 15"
COMMANDS = {
    "glyphs_prototypical_network": f"--learner prototypical_network --lr 0.003 {OF_20}",
    "glyphs_maml": "--learner maml --set lr=0.1 --n-query 5 --tasks-per-step 4 --clip 10 --minutes 25",
    "glyphs_fine_tune": f"--learner fine_tune --set-net width=48 --lr 0.002 {OF_20}",
}
"""The options of `quickstudy train glyphs` that made each."""


def main(name: str) -> None:
    """Trains one and puts it beside this file."""
    run = Path("runs") / name
    options = [*COMMANDS[name].split(), "--steps", "1000000", "--seed", "0", "--out", str(run), "--resume"]
    subprocess.run([sys.executable, "-m", "quickstudy", "train", "glyphs", *options], check=True)
    for file in ("prior.json", "weights.safetensors"):
        target = Path(__file__).parent / name / file
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(run / file, target)


def calibrate(name: str) -> None:
    """Sets the thresholds of one anew, on the validation alphabets."""
    prior, folder = load(shipped(name)), shipped(name)
    splits = load_splits("glyphs", n_way=prior.recipe.n_way)
    if not is_as_trained(name, prior.training, splits):
        raise SystemExit(f"glyphs are not drawn here as they were when {name} was trained: calibrate where they are.")
    save(folder, recalibrate(prior, splits.validation, queries=2500))


if __name__ == "__main__":
    (calibrate if "--calibrate" in sys.argv[2:] else main)(sys.argv[1])
