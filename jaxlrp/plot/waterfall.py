"""Relevance of one row of a table, adding up to the output."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike

from jaxlrp.explanation.ledger import Ledger
from jaxlrp.explanation.result import Explanation
from jaxlrp.plot.columns import number, one_sample, others, read, shown
from jaxlrp.plot.normalize import as_colormap, as_real
from jaxlrp.plot.rows import GRAY, label_rows, row_axes, widen

_INSIDE = 0.12  # of the width of the plot: a longer bar has its number inside


def waterfall(
    relevance: ArrayLike | Explanation,
    values: Any = None,
    *,
    output: ArrayLike | None = None,
    ledger: Ledger | None = None,
    names: Sequence[str] | None = None,
    sample: int | None = None,
    max_display: int = 10,
    from_zero: bool = True,
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance",
    title: str | None = None,
) -> Axes:
    """Draws how the relevance of one sample adds up to the output, from bottom to top.

    The lowest bar, in gray, is what is not relevance of any feature: the output minus the sum of relevance,
    absorbed by biases, stabilizers and rules. It begins at zero. Each bar above it begins where the
    one below ends, and the last one ends at the output. Of the features, the largest is on top.

    shap's plot of this name begins at the mean prediction of a background data set. LRP has no background:
    relevance is measured from zero.

    Args:
      relevance: (F,), (1, F), or (N, F) with `sample`, real, finite, or an `Explanation`. Not modified.
      values: the table that was explained, as in `beeswarm`, for names and the values beside them.
      output: the explained output of this sample. None: that of the `Explanation`, if it has one per
        sample.
      ledger: the ledger of this sample alone. The lowest bar then says how much biases, stabilizers and
        rules absorbed.
      names: of the F features. None: the columns of `values`, or numbers.
      sample: the position of the sample. May be left out if there is only one.
      max_display: the number of bars besides the lowest, >= 1. The last of them is the sum of others.
      from_zero: whether the axis begins at zero. False: near the end of the lowest bar, which is cut, so
        that relevance much smaller than the output stays visible.
      ax: the Axes to draw into. None creates a Figure, available as ``waterfall(...).figure``.
      cmap: as in `heatmap`.
      title: title of the panel.

    Returns:
      The Axes.

    Raises:
      TypeError: if relevance is traced or does not hold real numbers.
      ValueError: if `output` or `sample` is needed, if the ledger is of another sample, or a shape does not
        match; the message names the argument.

    Example:
      >>> axes = waterfall([2.0, -0.5], output=1.75, names=["age", "income"])
      >>> [label.get_text() for label in axes.get_yticklabels()]
      ['age', 'income', 'absorbed']
      >>> [float(bar.get_x()) for bar in axes.patches]  # where each begins
      [-0.25, 0.25, 0.0]
    """
    whole = read(relevance, values, names)
    table = one_sample(whole, sample, "waterfall")
    end = _output(relevance, output, len(whole.relevance), sample)
    r = table.relevance[0]
    start = end - float(r.sum())
    own, rest = shown(table, max_display)
    amounts = [r[i] for i in own] + ([r[rest].sum()] if rest else [])
    labels = [table.described(i) for i in own] + ([others(rest)] if rest else [])
    amounts.append(start)
    labels.append(_absorbed(ledger, end, start))
    ends = np.cumsum(amounts[::-1])[::-1]
    ends[0] = end  # but for rounding, it is
    begins = np.append(ends[1:], 0.0)

    ax = row_axes(ax, len(amounts) + 1, labels)
    colors = as_colormap(cmap)
    shades = [colors(0.9 if amount > 0 else 0.1) for amount in amounts[:-1]]
    ax.barh(
        range(len(amounts)), ends - begins, left=begins, height=0.7, color=[*shades, GRAY], zorder=2
    )
    for row in range(len(amounts) - 1):
        ax.plot([begins[row]] * 2, [row, row + 1], color="0.6", linewidth=0.5, zorder=1)
    ax.axvline(0.0, color="0.6", linewidth=0.5, zorder=0)
    ax.axvline(end, color="0.6", linewidth=0.5, linestyle=":", zorder=0)
    label_rows(ax, labels, "relevance, added up to the output", title)
    widen(ax, np.append(ends, 0.0) if from_zero else ends, 0.16)
    low, high = ax.get_xlim()
    _write(ax, np.clip(begins, low, high), ends, amounts)
    ax.annotate(
        f"output = {number(end)}",
        (end, 1.0),
        (0, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize="small",
    )
    if title is not None:
        ax.set_title(title, pad=18)
    return ax


def _output(relevance: Any, output: Any, samples: int, sample: int | None) -> float:
    """The output of the sample."""
    if output is None:
        if not isinstance(relevance, Explanation):
            raise ValueError("output must be given with an array of relevance, got None")
        given = relevance.output
        if not hasattr(given, "shape") or np.size(given) != samples:
            raise ValueError(
                f"output must be given if the explanation has several outputs per sample, here "
                f"{getattr(given, 'shape', type(given).__name__)} for {samples} samples; pass the "
                "explained one, such as found.output[sample, target]"
            )
        return float(as_real(given, "output").reshape(-1)[sample or 0])
    given = as_real(output, "output")
    if given.size != 1:
        raise ValueError(f"output must be one number, that of the sample, got shape {given.shape}")
    return float(given.reshape(()))


def _absorbed(ledger: Ledger | None, end: float, start: float) -> str:
    """What the lowest bar is."""
    if ledger is None:
        return "absorbed"
    gap = float(ledger.output) - float(ledger.input)
    scale = max(abs(end), abs(start), float(ledger.magnitude))
    if max(abs(float(ledger.output) - end), abs(gap - start)) > 1e-3 * scale:
        raise ValueError(
            f"ledger must be of this sample alone, with output {end:.4g} and {start:.4g} absorbed, got "
            f"{float(ledger.output):.4g} and {gap:.4g}; compute it with x[sample : sample + 1] and the "
            "same target"
        )
    rows = ledger.rows.values()
    parts = {
        "biases": sum(float(row.bias) for row in rows),
        "stabilizers": sum(float(row.stabilizer) for row in rows),
        "rules": sum(float(row.rule) for row in rows),
    }
    held = {name: part for name, part in parts.items() if abs(part) > 1e-3 * scale}
    told = ", ".join(f"{name} {number(part, sign=True)}" for name, part in held.items())
    return f"absorbed: {told}" if told else "absorbed"


def _write(ax: Axes, begins: np.ndarray, ends: np.ndarray, amounts: list[float]) -> None:
    """The amounts as numbers: inside of long bars, after short ones."""
    low, high = ax.get_xlim()
    for row, (begin, end, amount) in enumerate(zip(begins, ends, amounts, strict=True)):
        inside = abs(end - begin) > _INSIDE * (high - low)
        after = 1.0 if end >= begin else -1.0
        ax.annotate(
            number(amount, sign=True),
            ((begin + end) / 2 if inside else end, row),
            (0.0 if inside else 3 * after, 0.0),
            textcoords="offset points",
            ha="center" if inside else ("left" if after > 0 else "right"),
            va="center",
            fontsize="small",
            color="white" if inside else "black",
            zorder=3,
        )
