"""One look for the figures of all pages. Colours are the pages' CSS variables, and follow their theme."""

import plotly.graph_objects as go

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
