from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.experience.front import front

TRIED = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), max_size=12)  # cost, value


@settings(max_examples=200, deadline=None)
@given(TRIED)
def test_nothing_beats_the_front_and_everything_else_is_beaten_by_it(tried):
    best = front(range(len(tried)), cost=lambda i: tried[i][0], value=lambda i: tried[i][1])
    for i, (cost, value) in enumerate(tried):
        beaten = any(tried[j][0] <= cost and tried[j][1] >= value for j in best if j != i)
        assert beaten != (i in best)


@settings(max_examples=100, deadline=None)
@given(TRIED)
def test_along_the_front_what_costs_more_is_better(tried):
    found = front(tried, cost=lambda one: one[0], value=lambda one: one[1])
    assert found == sorted(set(found))
    assert len({value for _, value in found}) == len(found)
    assert [value for _, value in found] == sorted(value for _, value in found)
