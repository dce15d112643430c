"""Makes the prior of `quickstudy search`, priors/tiny, from our corpus.

    python benchmarks/corpora/prior.py                    learns, and puts the prior where it is shipped
    python benchmarks/corpora/prior.py --out FOLDER       puts it elsewhere

The task encoder learns to tell parts of the tasks' data sets apart, so the data of the corpus must be at hand
($QUICKSTUDY_DATA); what AEN learns from comes with the package. It takes some minutes of one core.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
if str(HERE.parent) not in sys.path:  # run as a script, its own folder is the first on the path
    sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from torch import Generator, Tensor  # noqa: E402

from corpora.tasks import load  # noqa: E402
from quickstudy.learners.prior import provenance  # noqa: E402
from quickstudy.nas.corpus import Measured, tiny_corpus  # noqa: E402
from quickstudy.nas.search_prior import SearchPrior, learn_search_prior, save_search_prior  # noqa: E402
from quickstudy.nets.task_encoder import TaskEncoder, contrast  # noqa: E402

HOME = HERE.parents[1] / "src" / "quickstudy" / "priors" / "tiny"
EMBEDDING, MEMBERS = 12, 3
LEFT_OUT = ("digits", "digits-in-a-row")
"""Tasks of the data that the demonstration searches: to the prior they are to be new."""


def embedded(
    names: Sequence[str], *, learn_from: Sequence[str], seed: int = 0
) -> tuple[TaskEncoder, dict[str, Tensor]]:
    """An encoder that learned from some tasks' data sets, and the embeddings of all that are named."""
    data = {name: load(name)[0].support for name in {*names, *learn_from}}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = TaskEncoder(EMBEDDING)
    pairs = [(data[name].x[0], data[name].y[0]) for name in learn_from]
    contrast(encoder, pairs, generator=Generator().manual_seed(seed))
    with torch.no_grad():
        found = {name: encoder(data[name].x, data[name].y, generator=Generator().manual_seed(0))[0] for name in names}
    return encoder, found


def make(corpus: Mapping[str, Measured], *, seed: int = 0) -> SearchPrior:
    """The prior of these tasks."""
    encoder, embeddings = embedded(list(corpus), learn_from=list(corpus), seed=seed)
    return learn_search_prior(
        {name: task.rows(task=embeddings[name]) for name, task in corpus.items()},
        encoder=encoder,
        members=MEMBERS,
        seed=seed,
        training={
            **provenance(),
            "embeddings": {name: [round(v, 5) for v in found.tolist()] for name, found in embeddings.items()},
        },
        on_progress=lambda stage, done, total: print(f"{stage} {done}/{total}", flush=True) if done % 25 == 0 else None,
    )


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HOME)
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    start = time.perf_counter()
    corpus = {name: task for name, task in tiny_corpus().items() if name not in LEFT_OUT}
    save_search_prior(arguments.out, make(corpus))
    print(f"learned from {len(corpus)} tasks in {time.perf_counter() - start:.0f} s: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
