import pytest

from quickstudy.training.proportion import Share


@pytest.mark.parametrize(
    ("right", "n", "expected"),
    [
        (10, 10, (100, 72.2, 100)),
        (0, 10, (0, 0, 27.8)),
        (5, 10, (50, 23.7, 76.3)),
        (81, 263, (30.8, 25.5, 36.6)),  # Newcombe, 1998, table I
    ],
)
def test_an_interval_is_wilsons_and_never_nought(right, n, expected):
    share = Share(right, n)
    assert (share.percent, share.low, share.high) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("n", [1, 2, 9, 1000])
def test_an_interval_holds_its_share_and_stays_within_0_and_100(n):
    for right in {0, 1, n // 2, n}:
        share = Share(right, n)
        assert 0 <= share.low <= share.percent <= share.high <= 100
        assert share.high - share.low > 0.1
