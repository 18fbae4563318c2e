"""Draws a molecule with relevance of its atoms, or of walks along its bonds; used by `molecules.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.path import Path
from rdkit import Chem
from rdkit.Chem import rdDepictor

BOND = "0.45"
POSITIVE, NEGATIVE = "tab:red", "tab:blue"
LUMINANCE = np.array([0.299, 0.587, 0.114])
# Lines of a bond: the distance of each from the center, in bond lengths, and its style.
LINES = {
    "SINGLE": [(0.0, "-")],
    "DOUBLE": [(-0.05, "-"), (0.05, "-")],
    "TRIPLE": [(-0.08, "-"), (0.0, "-"), (0.08, "-")],
    "AROMATIC": [(-0.05, "-"), (0.05, ":")],
}


def draw_molecule(
    ax: Axes,
    smiles: str,
    *,
    atoms: np.ndarray | None = None,
    walks: tuple[Sequence[Sequence[int]], np.ndarray] | None = None,
    title: str = "",
) -> None:
    """Draws one molecule.

    Args:
      ax: the Axes to draw into.
      smiles: the molecule.
      atoms: relevance of its atoms, shown as discs.
      walks: chains of atoms with their relevance, shown as arrows from the first atom to the last. The
        width of an arrow is its relevance; a walk of one atom is a ring.
      title: title of the panel.
    """
    mol = Chem.MolFromSmiles(smiles)
    rdDepictor.Compute2DCoords(mol)
    places = mol.GetConformer().GetPositions()[:, :2] / 1.5  # a bond has length 1.5 there
    for bond in mol.GetBonds():
        ends = places[[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]]
        for shift, style in LINES[str(bond.GetBondType())]:
            ax.plot(*(ends + shift * _across(ends)).T, style, color=BOND, linewidth=1.3, zorder=1)
    colors = np.ones((len(places), 4))
    if atoms is not None:
        colors = matplotlib.colormaps["bwr"](0.5 + 0.5 * atoms / np.abs(atoms).max())
        for place, color in zip(places, colors, strict=True):
            ax.add_patch(Circle(tuple(place), 0.33, facecolor=color, edgecolor=BOND, zorder=2))
    dark = colors[:, :3] @ LUMINANCE < 0.5
    for i, (atom, place) in enumerate(zip(mol.GetAtoms(), places, strict=True)):
        if atom.GetSymbol() != "C":
            box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            ax.text(
                *place, _name(atom), ha="center", va="center", fontsize=10, zorder=4,
                color="white" if dark[i] else "black",
                bbox=box if atoms is None else None,
            )  # fmt: skip
    if walks is not None:
        _draw_walks(ax, places, *walks)
    ax.set(title=title, aspect="equal")
    ax.margins(0.12)
    ax.axis("off")


def _draw_walks(
    ax: Axes, places: np.ndarray, chains: Sequence[Sequence[int]], relevance: np.ndarray
) -> None:
    widths = 1.0 + 4.0 * np.abs(relevance) / np.abs(relevance).max()
    for rank, (chain, r, width) in enumerate(zip(chains, relevance, widths, strict=True)):
        style: dict[str, Any] = {
            "color": POSITIVE if r > 0 else NEGATIVE,
            "linewidth": width,
            "alpha": 0.55,
            "zorder": 3,
        }
        if len(chain) == 1:
            ring = 0.24 + 0.05 * (rank % 3)
            ax.add_patch(Circle(tuple(places[chain[0]]), ring, fill=False, **style))
            continue
        # Walks that share bonds are drawn side by side, on the left of their direction.
        corners = places[list(chain)]
        across = np.array([_across(corners[i : i + 2]) for i in range(len(chain) - 1)])
        shifts = np.concatenate([across[:1], (across[:-1] + across[1:]) / 2, across[-1:]])
        path = Path(corners + (0.07 + 0.05 * (rank % 4)) * shifts)
        ax.add_patch(
            FancyArrowPatch(
                path=path, arrowstyle="-|>", mutation_scale=8 + 2 * width, fill=False,
                joinstyle="round", capstyle="round", **style,
            )
        )  # fmt: skip


def _across(ends: np.ndarray) -> np.ndarray:
    """The perpendicular direction of length 1, to the left."""
    dx, dy = ends[1] - ends[0]
    return np.array([-dy, dx]) / max(np.hypot(dx, dy), 1e-9)


def _name(atom: Chem.Atom) -> str:
    charge = {0: "", 1: "⁺", -1: "⁻"}.get(atom.GetFormalCharge(), f"{atom.GetFormalCharge():+d}")
    return atom.GetSymbol() + charge
