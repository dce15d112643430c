"""Learning to tell two digits apart, from one picture of each.

    python examples/digit_pairs.py                                        scikit-learn's digits
    python examples/digit_pairs.py --data mnist --shots 5 --steps 5       MNIST, which is downloaded once

The model is the smallest there is, logistic regression p(y = 1 | x) = sigma(w'x + b) on pixels. A task is a pair of
digits: 0 against 1, 4 against 9. MAML meets many pairs and learns the w and b from which a gradient step or two tell
*another* pair apart, 2 against 3. Here is what it learns; it is less than one hopes, and worth knowing why.

**Which digit is called 1?** If a coin decides, anew for every task, then whatever points from one digit to the other is
right in half of the tasks and wrong in the other half. What remains to be learned about w is its size: the best start
is zero, and MAML, which starts at random weights, moves towards it. It beats the random weights; the zero that we could
have chosen ourselves it cannot beat. Meta-SGD also learns how far every pixel steps: which pixels tell digits apart,
whatever the digits. That helps with pairs that it has never met, and a little with digits that it has never met.

**If the larger digit is always 1**, there is something to remember in w: what large digits look like. On digits that
were never seen it is wrong, and two steps from one picture do not unlearn it: the third table. A prior is worth what
the tasks that it comes from have in common with the new one.
"""

import argparse
import time
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Generator, Tensor, nn

from quickstudy import MAML, Examples, Learner, MetaSGD, Task, evaluate, meta_train
from quickstudy.tasks.named import load_named

PAIRS = list(combinations(range(10), 2))  # 45 of them
HELD_OUT = [(2, 3), (0, 9), (1, 4), (5, 8), (6, 7)]  # every digit once
SPLITS = {
    "new pairs of known digits": ([pair for pair in PAIRS if pair not in HELD_OUT], HELD_OUT),
    "new pairs of new digits, 6 to 9": (list(combinations(range(6), 2)), list(combinations(range(6, 10), 2))),
}


@dataclass(frozen=True)
class Pairs:
    """A source of tasks: pairs of digits. All that a source needs is `sample`."""

    pictures: Tensor
    """`(10, n, pixels)`, those of each digit."""
    pairs: list[tuple[int, int]]
    """(smaller, larger)."""
    n_shot: int
    """Support pictures of each digit."""
    ordered: bool
    """Whether the larger digit is always 1; else a coin decides."""
    n_query: int = 15

    def __post_init__(self) -> None:
        most = self.pictures.shape[1] - self.n_query
        if not 1 <= self.n_shot <= most:
            raise SystemExit(f"{self.n_shot} support pictures of each digit: take 1 to {most} (--shots).")

    def sample(self, b: int, *, generator: Generator) -> Task:
        """Draws `b` pairs, and pictures of each, none of them twice in a task."""
        digits = torch.tensor(self.pairs)[torch.randint(len(self.pairs), (b,), generator=generator)]  # (b, 2)
        if not self.ordered:
            heads = torch.rand(b, 1, generator=generator) < 0.5
            digits = torch.where(heads, digits.flip(1), digits)
        order = torch.rand(b, 2, self.pictures.shape[1], generator=generator).argsort(-1)
        x = self.pictures[digits[..., None], order[..., : self.n_shot + self.n_query]]  # (b, 2, n, pixels)
        y = torch.tensor([0, 1])[:, None].expand(x.shape[:3])
        support, query = (
            Examples(x[:, :, part].flatten(1, 2), y[:, :, part].flatten(1, 2))
            for part in (slice(self.n_shot), slice(self.n_shot, None))
        )
        return Task(support, query, n_way=2)


def load(data: str) -> Tensor:
    """As many pictures of each digit, `(10, n, pixels)`, in [0, 1]."""
    if data == "mnist":
        found, _ = load_named("mnist")
        x, y = found.x.flatten(1).numpy() / 255, found.y.numpy()
    else:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x / 16
    n = np.bincount(y).min()
    return torch.tensor(np.stack([x[y == digit][:n] for digit in range(10)]), dtype=torch.float32)


def logistic_regression(pixels: int, seed: int | None) -> nn.Linear:
    """sigma(w'x + b), whose single logit quickstudy takes for two classes; random weights, or zero without a seed."""
    torch.manual_seed(seed or 0)
    net = nn.Linear(pixels, 1)
    if seed is None:
        nn.init.zeros_(net.weight)
        nn.init.zeros_(net.bias)
    return net


def compare(
    pictures: Tensor,
    split: str,
    *,
    ordered: bool,
    n_shot: int,
    steps: int,
    iterations: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Accuracy of each way to start, in per cent, on known pairs and on new ones, on pictures that training had not."""
    known, new = SPLITS[split]
    train, test, pixels = pictures[:, ::2], pictures[:, 1::2], pictures.shape[-1]
    # The loss is nowhere curved more than |x|^2 / 4, and the inverse of that is the longest step that is safe: with it,
    # no way to start is put at a disadvantage by its step size.
    lr = 4 / float(train.square().sum(-1).mean())
    learners: dict[str, Learner] = {
        "random weights": MAML(logistic_regression(pixels, seed), lr=lr, steps=steps),
        "zero": MAML(logistic_regression(pixels, None), lr=lr, steps=steps),
        "MAML": MAML(logistic_regression(pixels, seed), lr=lr, steps=steps),
        "Meta-SGD": MetaSGD(logistic_regression(pixels, seed), lr=lr, steps=steps, rates_lr=lr / 20),
    }
    for name in ("MAML", "Meta-SGD"):
        source = Pairs(train, known, n_shot, ordered)
        meta_train(learners[name], source, steps=iterations, tasks_per_step=16, lr=0.02, schedule="cosine", seed=seed)

    def accuracy(learner: Learner, pairs: list[tuple[int, int]]) -> float:
        return evaluate(learner, Pairs(test, pairs, n_shot, ordered), tasks=600, batch=100).mean

    return {name: (accuracy(learner, known), accuracy(learner, new)) for name, learner in learners.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="MAML for logistic regression on pairs of digits.")
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits", help="digits: scikit-learn's, 8x8")
    parser.add_argument("--shots", type=int, default=1, help="pictures of each digit to learn from")
    parser.add_argument("--steps", type=int, default=2, help="gradient steps on them")
    parser.add_argument("--iterations", type=int, default=300, help="of meta-training, 16 pairs each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start, pictures = time.perf_counter(), load(arguments.data)
    print(
        f"sigma(w'x + b) on {pictures.shape[-1]} pixels, after {arguments.steps} gradient steps on {arguments.shots} "
        "of each digit.\nPer cent right on pictures that no training had seen, mean of 600 tasks."
    )
    known, new = SPLITS
    for split, ordered in ((known, False), (new, False), (new, True)):
        found = compare(
            pictures,
            split,
            ordered=ordered,
            n_shot=arguments.shots,
            steps=arguments.steps,
            iterations=arguments.iterations,
            seed=arguments.seed,
        )
        label = "the larger digit is 1" if ordered else "a coin decides which digit is 1"
        print(f"\n{split}; {label}\n  {'start':16}{'pairs trained on':>18}{'new pairs':>12}")
        for name, (on_known, on_new) in found.items():
            print(f"  {name:16}{on_known:18.1f}{on_new:12.1f}")
    print(f"\n{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
