"""The frame of an HTML page that needs no network and no file beside it: sections, tables, figures, data and script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Literal

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Nothing may be fetched: a browser that honours this could not even if a text tried to make it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"


@dataclass(slots=True)
class Page:
    """A page in the making."""

    sections: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Heading and content, as HTML, by id."""
    data: dict[str, str] = field(default_factory=dict)
    """What the page's script reads, as JSON, by id."""
    _figures: list[str] = field(default_factory=list)

    def add(self, key: str, heading: str, *content: str) -> None:
        """Add a section; the content is HTML."""
        self.sections[key] = (heading, "".join(content))

    def figure(self, heading: str, description: str, figure: go.Figure, numbers: str = "") -> str:
        """HTML of a figure, which the page's script draws; `numbers` is a table of what it shows."""
        key = f"figure-{len(self._figures)}"
        self._figures.append(figure.to_json())
        label = escape(f"{heading}: {description}")
        return (
            f"<div><h3>{escape(heading)}</h3><figure><figcaption>{escape(description)}</figcaption>"
            f'<div class="plot" id="{key}" role="img" aria-label="{label}" style="height:{figure.layout.height}px">'
            "</div></figure>"
            + (f"<details><summary>Numbers</summary>{numbers}</details>" if numbers else "")
            + "</div>"
        )

    def render(self, title: str, facts: Mapping[str, str], skip: tuple[str, str] = ("errors", "To the errors")) -> str:
        """The whole page; `facts` stand below its title, `skip` is the section that keyboards may jump to."""
        links = "".join(
            f'<li><a href="#{key}">{escape(heading)}</a></li>' for key, (heading, _) in self.sections.items()
        )
        about = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
        sections = "".join(
            f'<section id="{key}" aria-labelledby="{key}-heading"><h2 id="{key}-heading">{escape(heading)}</h2>'
            f"{content}</section>\n"
            for key, (heading, content) in self.sections.items()
        )
        blocks = {"figure-data": f"[{','.join(self._figures)}]", **self.data}
        parts = files("qa_ray.pages")
        css, script = (parts.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>\n{css}</style></head>\n<body>"
            f'<a class="skip" href="#{skip[0]}">{escape(skip[1])}</a>'
            f'<header><h1>{escape(title)}</h1><dl class="facts">{about}</dl>'
            f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>{sections}</main>\n'
            + "".join(_data_block(key, text) for key, text in blocks.items())
            + f"<script>{get_plotlyjs()}</script>\n<script>\n{script}</script></body></html>\n"
        )


TableKind = Literal["numbers", "texts", "outcomes"]
"""What the columns behind the first hold; outcomes are numbers and, in the last column, what came of them in words."""


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: TableKind = "numbers") -> str:
    """HTML of a table, whose first column names its rows; the others hold what `kind` says."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{kind}"><caption class="hidden">{escape(caption)}</caption>'
        f"<thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def grid(drawn: Sequence[str]) -> str:
    """HTML of figures side by side."""
    return f'<div class="figures">{"".join(drawn)}</div>'


def _data_block(key: str, text: str) -> str:
    """JSON for the page's script; no text in it can end the block."""
    return f'<script type="application/json" id="{key}">{text.replace("<", chr(92) + "u003c")}</script>\n'


FIRST, SECOND, THIRD = "var(--series-1)", "var(--series-2)", "var(--series-3)"
INK, MUTED, GRID, NOTHING = "var(--ink)", "var(--muted)", "var(--grid)", "rgba(0,0,0,0)"
HEIGHT = 320
"""Of a figure, in pixels."""


def styled(
    figure: go.Figure, *, x: str | None, y: str | None, height: int = HEIGHT, from_zero: bool = False
) -> go.Figure:
    """Dress a figure and name its axes: no boxes, faint grid lines, the legend above."""
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor=NOTHING,
        plot_bgcolor=NOTHING,
        font={"color": INK, "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 60, "r": 16, "t": 40, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"bgcolor": "var(--card)", "bordercolor": MUTED, "font_color": INK},
        hovermode="closest",
    )
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False}
    figure.update_xaxes(title_text=x, title_font_size=13, rangemode="tozero" if from_zero else "normal", **axis)
    return figure.update_yaxes(title_text=y, title_font_size=13, **axis)
