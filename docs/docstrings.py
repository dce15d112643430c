"""What Griffe is told of our docstrings, beyond Google's style."""

import re
from typing import Any

import griffe


class Example(griffe.Extension):
    """Takes our `Example:` for the section that Google's style calls `Examples:`, so that doctests are code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:", "Examples:", obj.docstring.value, flags=re.MULTILINE)
