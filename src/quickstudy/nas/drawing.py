"""The graph of an architecture as a picture."""

import math
from collections.abc import Sequence
from html import escape

from quickstudy.nas.architecture import INPUT, OUTPUT, Graph, Node
from quickstudy.nas.layout import layered
from quickstudy.nas.tiny import halved
from quickstudy.quantities import plural

WORDS = {
    INPUT: ("input", "end"),
    OUTPUT: ("output", "end"),
    "none": ("none", "skip"),
    "skip": ("skip", "skip"),
    "skip_connect": ("skip", "skip"),
    "nor_conv_1x1": ("1×1 convolution", "convolution"),
    "nor_conv_3x3": ("3×3 convolution", "convolution"),
    "avg_pool_3x3": ("3×3 average", "pool"),
    "conv1": ("1×1 convolution", "convolution"),
    "conv3": ("3×3 convolution", "convolution"),
    "sep_conv3": ("3×3 separable", "separable"),
    "avg_pool3": ("3×3 average", "pool"),
    "gat": ("attention (GAT)", "attention"),
    "gcn": ("convolution (GCN)", "convolution"),
    "cheb": ("Chebyshev filter", "convolution"),
    "arma": ("ARMA filter", "convolution"),
    "gin": ("sum (GIN)", "separable"),
    "sage": ("mean (GraphSAGE)", "separable"),
    "graph": ("sum (k-GNN)", "separable"),
    "fc": ("fully connected", "pool"),
}
"""The name of each operation in a drawing, and its kind, which gives the colour."""

SERIES_WORDS = {
    "conv1": "1-step convolution",
    "conv3": "9-step convolution",
    "sep_conv3": "9-step separable",
    "avg_pool3": "3-step average",
}
"""Those that have another name where inputs are series."""

BETWEEN = {
    "stem_stride1": (("convolution",), ()),
    "stem_stride2": (("convolution",), ("stride 2",)),
    "stem_pool2": (("convolution",), ("maximum",)),
    "stem_pool4": (("convolution",), ("stride 2", "maximum")),
    "down_stride": (("convolution",), ("stride 2",)),
    "down_avg": (("average",), ("1×1", "convolution")),
    "down_max": (("maximum",), ("1×1", "convolution")),
    "head_mean": (("mean",), ("linear layer",)),
    "head_max": (("maximum",), ("linear layer",)),
    "head_grid": (("means of", "quarters"), ("linear layer",)),
}
"""What happens from stage to stage of a network of Tiny: lines above the arrow, and below it."""

TIMES = {"1": "once", "2": "twice", "3": "three times"}

WIDTH = 720.0
"""Of a drawing of a whole network, in pixels."""
_BOX, _PITCH = 30.0, 62.0  # the height of a box, and from row to row
_LETTER = 6.9  # the mean width of a letter, in pixels

STYLE = """
.arch{--a-ink:#1c1d1f;--a-quiet:#5d6066;--a-line:#84888f;--a-paper:#fdfdfb;--a-panel:#f3f3ef;
--a-convolution:#dce7fb;--a-convolution-edge:#1f4fbf;--a-separable:#d8f0ea;--a-separable-edge:#12796a;
--a-pool:#fbebcd;--a-pool-edge:#a0630a;--a-attention:#eadff8;--a-attention-edge:#6b3fb0;
--a-skip:#f1f1ed;--a-skip-edge:#84888f;--a-other:#f1f1ed;--a-other-edge:#5d6066;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",sans-serif}
@media screen and (prefers-color-scheme:dark){
.arch{--a-ink:#e9e8e4;--a-quiet:#a3a6ab;--a-line:#7f848b;--a-paper:#141517;--a-panel:#1d1f22;
--a-convolution:#1c2d52;--a-convolution-edge:#8fb4ff;--a-separable:#123a35;--a-separable-edge:#6fd3c1;
--a-pool:#40300f;--a-pool-edge:#f0b95a;--a-attention:#33235a;--a-attention-edge:#c3a5ff;
--a-skip:#26292d;--a-skip-edge:#8e9299;--a-other:#26292d;--a-other-edge:#a3a6ab}}
.arch text{fill:var(--a-ink);font-size:12.5px}
.arch .a-small{fill:var(--a-quiet);font-size:11.5px}
.arch .a-strong{font-weight:650}
.arch .a-box{stroke-width:1.25}
.arch .a-line{fill:none;stroke:var(--a-line);stroke-width:1.4}
.arch .a-tip{fill:var(--a-line)}
.arch .a-zoom{fill:none;stroke:var(--a-line);stroke-width:1;stroke-dasharray:2 4}
.arch .a-panel{fill:var(--a-panel)}
.arch .a-end{fill:var(--a-paper);stroke:var(--a-ink)}
.arch .a-skip{fill:var(--a-skip);stroke:var(--a-skip-edge);stroke-dasharray:4 3}
""" + "\n".join(
    f".arch .a-{kind}{{fill:var(--a-{kind});stroke:var(--a-{kind}-edge)}}"
    for kind in ("convolution", "separable", "pool", "attention", "other")
)


def draw(graph: Graph, *, shape: tuple[int, ...] | None = None) -> str:
    """The graph as SVG, a string that is a file of its own and fits into a page as it is.

    Operations are boxes in layers, from the input at the top to the output at the bottom; where lines meet, values are
    added. Of a network of Tiny, which repeats one cell, the cell is drawn once, beneath a row of its stages. Colours
    follow the theme of the reader; what they tell is also written.

    Args:
        graph: Of any space, `space.graph(architecture)`.
        shape: Of one input, `space.shape`, which says whether inputs are series and how wide pictures are; square
            pictures where it is None.

    Example:
        >>> from quickstudy.nas.drawing import draw
        >>> from quickstudy.nas.architecture import Graph, Node
        >>> picture = draw(Graph((Node("input"), Node("conv3"), Node("output")), ((0, 1), (1, 2))))
        >>> picture.startswith("<svg"), "3×3 convolution" in picture
        (True, True)
    """
    if any(node.operation.startswith("stem_") for node in graph.nodes):
        return network(graph, shape)
    parts, width, height = cell(graph, series=False)
    return svg([moved(parts, 8, 8)], width + 16, height + 16, "The architecture", told(graph, series=False))


def network(graph: Graph, shape: tuple[int, ...] | None) -> str:
    """A network of Tiny: its stages in a row, and its cell."""
    series = shape is not None and len(shape) == 2
    words = [node.operation for node in graph.nodes]
    begins = [i for i, word in enumerate(words) if word.startswith(("stem_", "down_"))]
    last = next(i for i, word in enumerate(words) if word.startswith("repeat"))
    stages, n = [graph.nodes[i] for i in begins], words[last].removeprefix("repeat")
    first = begins[0]
    inner = Graph(
        (Node(INPUT), *graph.nodes[first + 1 : last], Node(OUTPUT)),
        tuple((a - first, b - first) for a, b in graph.edges if first <= a and b <= last),
    )
    between = [words[i] for i in begins] + [word for word in words if word.startswith("head_")]
    row, first_stage = stages_in_a_row(graph, stages, between, plural(int(n), "cell"), shape)
    parts, width, height = cell(inner, series)
    top, side = 186.0, 230.0
    left = side + max(0.0, (WIDTH - 24 - side - width) / 2)
    right = max(WIDTH, left + width + 24)
    zoom = [(first_stage[0], 10.0), (first_stage[1], right - 10)]
    row += [
        *(f'<path d="M{px(above)},154L{px(below)},{px(top)}" class="a-zoom"/>' for above, below in zoom),
        f'<rect x="0" y="{px(top)}" width="{px(right)}" height="{px(height + 48)}" rx="10" class="a-panel"/>',
        text(24, top + 38, "the cell", "a-strong", "start"),
        text(24, top + 59, f"{TIMES.get(n, n)} in {'every' if len(stages) > 1 else 'the'} stage;", "a-small", "start"),
        text(24, top + 76, "where lines meet, values are added", "a-small", "start"),
    ]
    drawn = moved(parts, left, top + 24)
    whole = f"{plural(len(stages), 'stage')} of {plural(int(n), 'cell')}; {told(inner, series)}"
    return svg([*row, drawn], right, top + height + 48, "The network", whole)


def stages_in_a_row(
    graph: Graph, stages: Sequence[Node], between: Sequence[str], cells: str, shape: tuple[int, ...] | None
) -> tuple[list[str], tuple[float, float]]:
    """Input, stages and answer with what happens between them, and where the first stage begins and ends."""
    series = shape is not None and len(shape) == 2
    sources, middle = [graph.nodes[0], *stages], 66.0
    columns = [WIDTH * (0.5 + i) / (len(sources) + 1) for i in range(len(sources) + 1)]
    largest = max(node.size for node in sources)
    parts: list[str] = []
    ends: list[tuple[float, float]] = []
    for x, node in zip(columns, sources):
        of = "channel" if node is graph.nodes[0] else "map"
        drawn, half = maps(x, middle, node, largest, series)
        parts += [*drawn, text(x, 18, "input" if node is graph.nodes[0] else cells, "a-strong")]
        parts += [text(x, 128, extent(node, shape)), text(x, 145, plural(node.width, of), "a-small")]
        ends.append((x - half, x + half))
    answer = plural(graph.nodes[-1].width, "class", "classes")
    parts += [*box(columns[-1], middle, answer, "end"), text(columns[-1], 18, "answer", "a-strong")]
    ends.append((columns[-1] - box_width(answer) / 2, columns[-1] + box_width(answer) / 2))
    for (_, start), (end, _), word in zip(ends, ends[1:], between):
        above, below = BETWEEN.get(word, ((word,), ()))
        lines = [(middle - 9 - 14 * i, line) for i, line in enumerate(reversed(above))]
        lines += [(middle + 18 + 14 * i, line) for i, line in enumerate(below)]
        parts += across(start + 7, end - 6, middle)
        for y, line in lines:
            parts.append(text((start + end) / 2, y, "halves" if series and line == "quarters" else line, "a-small"))
    return parts, ends[1]


def maps(x: float, y: float, node: Node, largest: int, series: bool) -> tuple[list[str], float]:
    """Feature maps as a stack of sheets, the larger the larger they are, the more the more; and half its width."""
    side = 14 + 36 * math.log2(1 + node.size) / math.log2(1 + largest)
    sheets = max(1, min(7, round(math.log2(max(1, node.width)))))
    high, kind = (12.0 if series else side), "end" if node.operation == INPUT else "convolution"
    lean = 3.5 * (sheets - 1) / 2
    parts = [
        f'<rect x="{px(x - side / 2 + lean - 3.5 * i)}" y="{px(y - high / 2 - lean + 3.5 * i)}" width="{px(side)}" '
        f'height="{px(high)}" rx="3" class="a-box a-{kind}"/>'
        for i in range(sheets)
    ]
    return parts, side / 2 + lean


def cell(graph: Graph, series: bool) -> tuple[list[str], float, float]:
    """The operations of a graph in layers and the lines between them, with the width and the height of it all."""
    named = [name(node, series) for node in graph.nodes]
    layers = list(graph.depth())
    layers[-1] = max(1, *layers)
    place = layered([box_width(label) for label, _ in named], layers, graph.edges)
    rows = [layer * _PITCH + _BOX / 2 for layer in layers]
    parts: list[str] = []
    for (start, _), route in zip(graph.edges, place.routes):
        points = [(x, (layers[start] + i) * _PITCH + _BOX / 2) for i, x in enumerate(route)]
        parts += down(points)
    for (label, kind), x, y in zip(named, place.x, rows):
        parts += box(x, y, label, kind)
    return parts, place.width, max(rows) + _BOX / 2


def name(node: Node, series: bool) -> tuple[str, str]:
    """What an operation is called, and its kind."""
    label, kind = WORDS.get(node.operation, (node.operation.replace("_", " "), "other"))
    return (SERIES_WORDS.get(node.operation, label) if series else label), kind


def told(graph: Graph, series: bool) -> str:
    """The graph in words, for those who cannot see it.

    Example:
        >>> from quickstudy.nas.architecture import Graph, Node
        >>> from quickstudy.nas.drawing import told
        >>> nodes = (Node("input"), Node("conv3"), Node("skip"), Node("output"))
        >>> told(Graph(nodes, ((0, 1), (0, 2), (1, 3), (2, 3))), series=False)
        'input to 3×3 convolution (1) and skip (2); 3×3 convolution (1) to output; skip (2) to output'
    """
    inner = range(1, len(graph.nodes) - 1)
    called = [name(node, series)[0] + (f" ({i})" if i in inner else "") for i, node in enumerate(graph.nodes)]
    following = {i: [called[b] for a, b in graph.edges if a == i] for i in range(len(called))}
    said = [f"{called[i]} to {' and '.join(ends)}" for i, ends in following.items() if ends]
    return "; ".join(said) or "nothing lies between input and output"


def extent(node: Node, shape: tuple[int, ...] | None) -> str:
    """The size of a node's maps in words: it halves, rounded up, until the longer side is the node's."""
    size = (node.size, node.size) if shape is None else tuple(shape[1:])
    while max(size) > node.size:
        size = halved(size)
    return plural(size[0], "step") if len(size) == 1 else f"{size[0]}×{size[1]}"


def box_width(label: str) -> float:
    """Of a box with these words in it."""
    return max(64.0, _LETTER * len(label) + 22)


def box(x: float, y: float, label: str, kind: str) -> list[str]:
    """Words in a box about a point."""
    width = box_width(label)
    return [
        f'<rect x="{px(x - width / 2)}" y="{px(y - _BOX / 2)}" width="{px(width)}" height="{px(_BOX)}" rx="8" '
        f'class="a-box a-{kind}"/>',
        text(x, y + 4.5, label),
    ]


def down(points: Sequence[tuple[float, float]]) -> list[str]:
    """A line from box to box that bends between layers and passes them straight."""
    (x, y), half = points[0], _BOX / 2
    path = f"M{px(x)},{px(y + half)}"
    for i, (end, level) in enumerate(points[1:], 1):
        tip = level - half - (5 if i == len(points) - 1 else 0)
        bend = (y + half + tip) / 2
        path += f"C{px(x)},{px(bend)} {px(end)},{px(bend)} {px(end)},{px(tip)}"
        if i < len(points) - 1:
            path += f"L{px(end)},{px(level + half)}"
        x, y = end, level
    tip = y - half
    return [
        f'<path d="{path}" class="a-line"/>',
        f'<path d="M{px(x)},{px(tip)}L{px(x - 4)},{px(tip - 7)}L{px(x + 4)},{px(tip - 7)}Z" class="a-tip"/>',
    ]


def across(start: float, end: float, y: float) -> list[str]:
    """An arrow from left to right."""
    return [
        f'<path d="M{px(start)},{px(y)}L{px(end - 5)},{px(y)}" class="a-line"/>',
        f'<path d="M{px(end)},{px(y)}L{px(end - 7)},{px(y - 4)}L{px(end - 7)},{px(y + 4)}Z" class="a-tip"/>',
    ]


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Words at a point."""
    return f'<text x="{px(x)}" y="{px(y)}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def moved(parts: Sequence[str], x: float, y: float) -> str:
    """The same elsewhere."""
    return f'<g transform="translate({px(x)} {px(y)})">{"".join(parts)}</g>'


def svg(parts: Sequence[str], width: float, height: float, title: str, description: str) -> str:
    """A file with what it shows in words."""
    size = f'width="{px(width)}" height="{px(height)}" viewBox="0 0 {px(width)} {px(height)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="arch" role="img" '
        f'aria-label="{escape(f"{title}: {description}")}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc><style>{STYLE}</style>{''.join(parts)}</svg>"
    )


def px(value: float) -> str:
    """Pixels."""
    return f"{value:.1f}".removesuffix(".0")
