"""What the sizes of a network must be."""

from quickstudy.errors import ShapeError


def check_sizes(name: str, **sizes: int) -> None:
    """Raises ShapeError where a size of a network is below 1, which PyTorch would build and then stumble over.

    Example:
        >>> from quickstudy.nets.sizes import check_sizes
        >>> check_sizes("Conv4", channels=1, width=0)
        Traceback (most recent call last):
        ...
        quickstudy.errors.ShapeError: width is 0, but for Conv4 it is at least 1.
    """
    for size, value in sizes.items():
        if value < 1:
            raise ShapeError(f"{size} is {value}, but for {name} it is at least 1.")
