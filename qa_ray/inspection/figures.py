"""The pictures of the inspection's page."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from qa_ray.pages.page import FIRST, INK, SECOND, styled
from qa_ray.schema import Int64s

_MOST_BARS = 30
_COLOURS = (FIRST, SECOND)


def length_bars(lengths: Mapping[str, Int64s], limit: int | None = None) -> go.Figure:
    """Shares of lengths in tokens, by split; the last bar takes all that are longer. A line stands at `limit`."""
    every = np.concatenate(list(lengths.values()))
    # A few giants would leave all others in one bar.
    top = max(1, int(np.percentile(every, 99, method="inverted_cdf")), limit or 0)
    width = -(-(top + 1) // _MOST_BARS)
    begins = np.arange(0, top + 1, width)
    figure = go.Figure()
    for (name, values), colour in zip(lengths.items(), _COLOURS, strict=False):
        counts = np.bincount(np.minimum(values // width, len(begins) - 1), minlength=len(begins))
        figure.add_bar(
            name=name,
            x=(begins + (width - 1) / 2).tolist(),
            y=(100 * counts / max(1, len(values))).tolist(),
            marker_color=colour,
            customdata=[_range(begin, width, last=begin == begins[-1]) for begin in begins.tolist()],
            hovertemplate="%{customdata} tokens: %{y:.1f}%<extra>" + name + "</extra>",
        )
    styled(figure, x="tokens", y="percent")
    if limit is not None:
        line = {"color": INK, "width": 1.5, "dash": "dash"}
        figure.add_vline(x=limit + 0.5, line=line, name="longest that is predicted", showlegend=True)
    return figure.update_layout(barmode="group", bargap=0.1, showlegend=True)


def _range(begin: int, width: int, *, last: bool) -> str:
    if last:
        return f"{begin} or more"
    return str(begin) if width == 1 else f"{begin} to {begin + width - 1}"
