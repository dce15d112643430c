import pytest
import torch
from torch import Generator

from quickstudy.errors import TaskError
from quickstudy.experience.proposer import Proposer
from quickstudy.experience.trial import TaskDescription, Trial
from quickstudy.nas.architecture import Architecture, Graph, Node
from quickstudy.nas.baselines import candidates
from quickstudy.nas.baselines.bananas import Bananas
from quickstudy.nas.baselines.evolution import Evolution
from quickstudy.nas.baselines.forest import Forest
from quickstudy.nas.baselines.graph_ensemble import GraphEnsemble
from quickstudy.nas.baselines.local_search import LocalSearch
from quickstudy.nas.baselines.random_search import RandomSearch
from quickstudy.nas.baselines.rank_transfer import RankTransfer
from quickstudy.nas.baselines.tree_parzen import TreeParzen
from quickstudy.nas.limited import Limited
from quickstudy.nas.source import Rows, Source
from quickstudy.nas.space import Space
from quickstudy.nas.tables import seeded

TASK = TaskDescription("toy")


class Toy(Space):
    """Four choices of three values, of which no two alike may come first."""

    name = "toy"
    choices = {f"c{i}": ("a", "b", "c") for i in range(4)}  # noqa: RUF012
    vocabulary = ("a", "b", "c")

    def has(self, architecture: Architecture) -> bool:
        return architecture["c0"] != architecture["c1"]

    def graph(self, architecture: Architecture) -> Graph:
        nodes = (Node("input"), *(Node(str(v)) for _, v in architecture.choices), Node("output"))
        return Graph(nodes, tuple((i, i + 1) for i in range(5)))


SPACE = Toy()
MEMBERS = candidates.members(SPACE)[0]


def value(architecture: Architecture) -> float:
    """Largest where all of c1, c2 and c3 are c; c0 counts for little."""
    return sum("abc".index(str(v)) * (0.1 if name == "c0" else 1) for name, v in architecture.choices)


def source() -> Source:
    known = {}
    for name in ("one", "two"):
        chosen = [MEMBERS[i] for i in torch.randperm(len(MEMBERS), generator=seeded(name))[:30].tolist()]
        known[name] = Rows(tuple(chosen), torch.tensor([value(a) for a in chosen]).double())
    return Source(SPACE, known)


PROPOSERS: dict[str, Proposer[Architecture, Space]] = {
    "random": RandomSearch(),
    "local_search": LocalSearch(),
    "evolution": Evolution(),
    "tree_parzen": TreeParzen(),
    "bananas": Bananas(steps=20),
    "graph_ensemble": GraphEnsemble(networks=1, epochs=3),
    "forest": Forest(source(), trees=20),
    "rank_transfer": RankTransfer(source()),
}
proposers = pytest.mark.parametrize("proposer", PROPOSERS.values(), ids=PROPOSERS.keys())


def trials(n: int, *, failed: int = 0) -> tuple[Trial[Architecture], ...]:
    chosen = [MEMBERS[i] for i in torch.randperm(len(MEMBERS), generator=seeded("trials")).tolist()[:n]]
    return tuple(Trial(a, None if i < failed else value(a)) for i, a in enumerate(chosen))


def propose(proposer, given, *, n=1, seed=0):
    return proposer.propose(TASK, given, SPACE, n=n, generator=Generator().manual_seed(seed))


@proposers
@pytest.mark.parametrize("t", [0, 1, 12, 40])
def test_proposals_are_members_that_were_not_tried(proposer, t):
    found = propose(proposer, trials(t), n=3)
    assert len(set(found)) == len(found) == 3
    assert all(SPACE.parse(str(a)) == a for a in found)
    assert not {trial.choice for trial in trials(t)} & set(found)


@proposers
def test_the_same_trials_and_seed_give_the_same_proposals(proposer):
    before = torch.random.get_rng_state()
    first = propose(proposer, trials(15), n=2)
    propose(proposer, trials(20), seed=1)
    assert propose(proposer, trials(15), n=2) == first
    assert torch.equal(torch.random.get_rng_state(), before)


@proposers
def test_failures_are_not_proposed_again_and_stop_nothing(proposer):
    for given in (trials(14, failed=14), trials(14, failed=3)):
        (found,) = propose(proposer, given)
        assert found not in {trial.choice for trial in given}


@proposers
def test_all_that_is_left_is_proposed_and_then_nothing(proposer):
    left = set(MEMBERS) - {trial.choice for trial in trials(len(MEMBERS) - 2)}
    assert len(left) == 2
    assert set(propose(proposer, trials(len(MEMBERS) - 2), n=4)) == left
    assert propose(proposer, trials(len(MEMBERS))) == []


@pytest.mark.parametrize("name", ["local_search", "evolution", "tree_parzen", "bananas", "forest", "rank_transfer"])
def test_what_learns_finds_more_than_random_search(name):
    def found(proposer):
        best = []
        for seed in range(8):
            given: list[Trial[Architecture]] = []
            for _ in range(22):
                (choice,) = propose(proposer, given, seed=100 * seed + len(given))
                given.append(Trial(choice, value(choice)))
            best.append(sum(sorted((trial.value for trial in given), reverse=True)[:5]))
        return sum(best) / len(best)

    assert found(PROPOSERS[name]) > found(PROPOSERS["random"]) + 0.5


def test_local_search_stays_with_the_best_neighbour_so_far_and_begins_anew_elsewhere():
    search = LocalSearch(initial=1)
    start, worse, better, far = (Trial(SPACE.architecture(list(text)), v) for text, v in
                                 (("abaa", 1.0), ("acaa", 0.5), ("abba", 2.0), ("cabc", 0.1)))  # fmt: skip
    assert search.standing([start, worse], SPACE) is start
    assert search.standing([start, worse, better], SPACE) is better
    assert search.standing([start, worse, better, far], SPACE) is far
    within = Limited(SPACE, lambda member: member != far.choice, [start.choice])
    assert search.standing([start, worse, better, far], within) is better
    assert search.standing([start, better, Trial(far.choice, None, pending=True)], SPACE) is better
    assert propose(search, [start, worse, better])[0] in set(SPACE.neighbours(better.choice))


def test_evolution_forgets_the_oldest():
    best = Trial(SPACE.architecture(list("abcc")), 99.0)
    later = trials(5)
    alive = [trial.choice for trial in later]
    for seed in range(20):
        (child,) = propose(Evolution(population=5, tournament=5), [best, *later], seed=seed)
        assert child in set(SPACE.neighbours(max(alive, key=value)))


def test_rank_transfer_proposes_by_mean_rank():
    a, b, c = MEMBERS[:3]
    rows = {"one": Rows((a, b, c), torch.tensor([1.0, 2.0, 3.0])), "two": Rows((b, c), torch.tensor([900.0, 200.0]))}
    assert propose(RankTransfer(Source(SPACE, rows)), (), n=3) == [b, c, a]


def test_the_forest_takes_no_feedback():
    forest = PROPOSERS["forest"]
    order = propose(forest, (), n=len(MEMBERS))
    misled = [Trial(a, -value(a)) for a in order[:10]]
    assert propose(forest, misled, n=5) == order[10:15]


@pytest.mark.parametrize("method", [Forest, RankTransfer])
def test_transfer_without_other_tasks_says_so(method):
    with pytest.raises(TaskError, match="Give it a source"):
        method(Source(SPACE, {}))


def test_of_a_space_too_large_to_list_members_are_drawn(monkeypatch):
    monkeypatch.setattr(candidates, "LISTED", 10)
    found, codes = candidates.candidates(SPACE, n=30, generator=Generator().manual_seed(0))
    assert len(set(found)) == len(found) == len(codes) <= 30
    assert all(SPACE.has(a) for a in found)
    assert propose(Forest(source(), trees=5, drawn=20), trials(5), n=2)


@proposers
def test_what_would_be_returned_is_a_trial_that_succeeded(proposer):
    given = trials(9, failed=2)
    returned = proposer.incumbent(TASK, given, SPACE)
    assert returned in given[2:]
    assert proposer.incumbent(TASK, given, SPACE) == returned
    assert proposer.incumbent(TASK, trials(3, failed=3), SPACE) is None


def test_without_a_model_the_best_value_is_returned_and_the_earlier_of_two():
    a, b, c = MEMBERS[:3]
    given = [Trial(a, 1.0), Trial(b, 2.0), Trial(c, 2.0)]
    assert RandomSearch().incumbent(TASK, given, SPACE) is given[1]


def test_the_forest_returns_what_both_it_and_the_value_speak_for():
    forest = Forest(source(), trees=20, smoothed=True)
    order = propose(forest, (), n=len(MEMBERS))
    lucky, good, poor = Trial(order[-1], 5.0), Trial(order[0], 4.9), Trial(order[-2], 1.0)
    assert forest.incumbent(TASK, [lucky, poor, good], SPACE) is good
    assert PROPOSERS["forest"].incumbent(TASK, [lucky, poor, good], SPACE) is lucky
