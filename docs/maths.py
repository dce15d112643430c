"""Formulas of the documentation as MathML, which browsers show without a script, a font or a connection."""

import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor

BLOCK = r"\$\$(.+?)\$\$"
INLINE = r"(?<!\\)\$(?![\s$])([^$`]+?)(?<!\s)\$"
REPLACED = {r"\arg": r"\mathrm{arg}\,"}
"""Commands that latex2mathml lacks."""
_BLOCK_PRIORITY, _INLINE_PRIORITY = 186, 184  # after code in backticks (190), before backslash escapes (180)


def mathml(latex: str, *, block: bool = False) -> str:
    """A formula in LaTeX as MathML.

    Raises:
        ValueError: Where it holds a command that is not known, which stops the build.
    """
    for command, replacement in REPLACED.items():
        latex = replacement.join(re.split(re.escape(command) + r"(?![A-Za-z])", latex))
    found = convert(latex.strip(), display="block" if block else "inline")
    if unknown := re.search(r"\\[A-Za-z]+", found):
        raise ValueError(f"{unknown[0]} in ${latex}$ is not known to latex2mathml. Write the formula in another way.")
    return found


class _Formula(InlineProcessor):
    def __init__(self, pattern: str, md: Markdown, *, block: bool) -> None:
        super().__init__(pattern, md)
        self.block = block

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        return self.md.htmlStash.store(mathml(m[1], block=self.block)), m.start(), m.end()


class Maths(Extension):
    """Replaces `$...$` and `$$...$$`."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Formula(BLOCK, md, block=True), "maths-block", _BLOCK_PRIORITY)
        md.inlinePatterns.register(_Formula(INLINE, md, block=False), "maths-inline", _INLINE_PRIORITY)


def makeExtension(**options: Any) -> Maths:
    """What Python-Markdown calls."""
    return Maths(**options)
