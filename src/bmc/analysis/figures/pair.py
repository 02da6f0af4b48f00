"""Figure 6: the reward of each token of a pair, by two runs."""

from __future__ import annotations

from typing import Any

from ...data.schema import digest
from ..token_scores import Scored, Side
from .drawing import Drawing, Missing, Row

NAME, TITLE = "figure6", "Figure 6: the reward of each token of a held-out pair"
CAPTION = (
    "r(x, y^t) = β log π_θ/π_ref of each token of a held-out pair; {runs}. Tokens in which the responses differ are "
    "underlined. Both runs have one scale of colours; it ends at the largest |r| of the pair. Prompt: “{prompt}” (pair "
    "{id}, {why})."
)
WIDTH, LINES = 62, 7  # characters a line, and lines a response may have
FONT = 11.5
INCHES_A_LINE = 0.24


def figure6(runs: list[Scored], prompts: dict[str, str], wanted: str | None, command: str) -> Drawing | Missing:
    """Of two runs.

    Args:
        runs: Plain DPO's first.
        prompts: Id → prompt.
        wanted: Id of the pair; by default the one with the smallest hash among those that fit the picture.
        command: The analysis' own, to which another pair can be added.
    """
    pairs = [one.bridged for one in runs]
    fitting = [id for id in pairs[0] if all(_fits(side) for side in pairs[0][id])]
    chosen = wanted if wanted is not None else min(fitting, key=lambda id: digest(f"figure6 {id}"), default=None)
    if chosen is None or chosen not in pairs[0]:
        why = (
            f"there is no held-out pair {wanted}"
            if wanted
            else f"no pair has {LINES} lines of {WIDTH} characters or less"
        )
        return Missing(NAME, why, f"{command} --pair {next(iter(pairs[0]), 'ID')}")
    rows: list[Row] = []
    for one in runs:
        for name, side in zip(("ỹ_w", "y_l"), one.bridged[chosen], strict=True):
            cells = zip(side.tokens, side.rewards(one.beta), side.differs, strict=True)
            rows += [(one.run.name, name, place, *cell) for place, cell in enumerate(cells, start=1)]
    why = "named in the recipe" if wanted else "chosen by its id's hash among those that fit"
    named = " and ".join(f"{one.run.method}, β = {one.beta:g}" for one in runs)
    caption = CAPTION.format(runs=named, prompt=" ".join(prompts[chosen].split()), id=chosen, why=why)
    header = ("run", "response", "place", "token", "reward", "differs")
    names = (r"$\tilde{y}_w$", r"$y_l$")
    blocks = [
        (f"{one.run.method}, {name}", side, side.rewards(one.beta))
        for one in runs
        for name, side in zip(names, one.bridged[chosen], strict=True)
    ]
    height = 1.0 + INCHES_A_LINE * sum(len(_lines(side.tokens)) + 1.5 for _, side, _ in blocks)
    return Drawing(NAME, TITLE, caption, header, rows, lambda figure: _draw(figure, blocks, height), (6.5, height))


def _fits(side: Side) -> bool:
    return len(_lines(side.tokens)) <= LINES


def _shown(token: str) -> str:
    """A token in one line: a line break by its sign."""
    return token.replace("\n", "⏎").replace("\t", " ")


def _lines(tokens: list[str]) -> list[list[int]]:
    """Places of the tokens of each line: a line ends after a line break, and where the next token has no room."""
    lines: list[list[int]] = [[]]
    used = 0
    for place, token in enumerate(tokens):
        size = len(_shown(token))
        if lines[-1] and (used + size > WIDTH or "\n" in tokens[place - 1]):
            lines.append([])
            used = 0
        lines[-1].append(place)
        used += size
    return lines


def _draw(figure: Any, blocks: list[tuple[str, Side, list[float]]], height: float) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    largest = max((abs(reward) for *_, rewards in blocks for reward in rewards), default=0.0) or 1.0
    colors = colormaps["PuOr_r"]
    panel = figure.subplots()
    panel.set_axis_off()
    panel.set_xlim(0, WIDTH)
    y = 0.0
    for title, side, rewards in blocks:
        panel.text(0, y + 0.75, title, fontweight="bold")
        y += 1.1
        for line in _lines(side.tokens):
            x = 0
            for place in line:
                color = colors((rewards[place] / largest + 1) / 2)
                x += _draw_token(panel, x, y, side.tokens[place], color, side.differs[place])
            y += 1
        y += 0.4
    panel.set_ylim(y, 0)
    scale = ScalarMappable(Normalize(-largest, largest), colors)
    bar = figure.colorbar(scale, ax=panel, orientation="horizontal", fraction=0.25 / height, aspect=40, pad=0.02)
    bar.set_label("token reward r")


def _draw_token(panel: Any, x: int, y: float, token: str, color: Any, differs: bool) -> int:
    """A token on its colour, in black or white, whichever can be read; returns its width in characters."""
    from matplotlib.patches import Rectangle

    text = _shown(token)
    ink = "white" if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.5 else "black"
    panel.add_patch(Rectangle((x, y), len(text), 0.84, facecolor=color, edgecolor="white", linewidth=0.5))
    fixed = text.replace(" ", "\u00a0")  # a browser leaves out a space at the beginning of an SVG's text
    panel.text(x, y + 0.62, fixed, fontsize=FONT, family="monospace", color=ink, parse_math=False)
    if differs:
        panel.plot([x + 0.1, x + len(text) - 0.1], [y + 0.9] * 2, color="black", linewidth=1.8, solid_capstyle="butt")
    return len(text)
