"""Which atoms make a molecule mutagenic? Tested on pairs of molecules with and without a toxicophore.

    pip install --no-deps admet-ai==2.0.1
    python examples/molecules.py [--output DIR] [--quick]

The network of the package `admet-ai` passes messages along the bonds of a molecule and has 31 logits. The
first predicts mutations in bacteria (the Ames test). Some groups of atoms are known to cause mutations:
nitro on an aromatic ring, azide, nitrosamine and others. Each group replaces a hydrogen on several
scaffolds. The logit should rise, and its relevance should be on the atoms of the group. The example
measures how often one of them is the most relevant atom, and their share of the positive relevance.

The relevance of a bond is split between its two atoms. The network is the mean of the package's five.

Then the example finds walks: the chains of atoms that carried relevance to the readout. The network sends
messages along at most three bonds, never directly back, and each bond reads its own features at every step,
so a walk may begin at any of them. A molecule has few walks here, so the search for the most relevant ones
can be compared with all of them.

Exits with code 1 if the logit does not rise, the relevance is elsewhere, or the search fails.

References:
  Kazius et al. (2005), toxicophores, https://doi.org/10.1021/jm040835a
"""

from __future__ import annotations

import argparse
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from rdkit import Chem
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, higher_order
from jaxlrp.pretrained import admet
from jaxlrp.pretrained.admet import MEMBERS, TASKS, Bonding, Molecules
from molecule_drawing import draw_molecule

AROMATIC = [
    "c1ccc({})cc1", "Cc1ccc({})cc1", "COc1ccc({})cc1", "OC(=O)c1ccc({})cc1", "c1ccc(-c2ccc({})cc2)cc1",
    "c1ccc2cc({})ccc2c1", "c1cnc2ccc({})cc2c1", "Clc1ccc({})cc1", "CC(=O)Nc1ccc({})cc1", "c1cc({})sc1",
    "Cc1cccc({})c1C", "CCOC(=O)c1cccc({})c1", "O=C1CCc2cc({})ccc2N1", "Fc1ccc({})cc1Cl",
]  # fmt: skip
ALIPHATIC = ["CCC{}", "C1CCC({})CC1", "c1ccc(C{})cc1", "OCC{}", "CCOC(=O)C{}", "O=C(O)CCC{}"]
AMINES = [
    "CN({})C", "CCN({})CC", "C1CCN({})CC1", "O1CCN({})CC1", "C1CCN({})C1", "CN({})c1ccccc1",
    "CN({})Cc1ccccc1", "OCCN({})CCO", "CCCCN({})CCCC", "CC1CCCCN1{}", "OC(=O)C1CCCN1{}", "CN({})CC(=O)O",
]  # fmt: skip


class Toxicophore(NamedTuple):
    """A group of atoms that causes mutations.

    Attributes:
      substituent: the group that replaces a hydrogen, SMILES.
      atoms: the atoms of the group, SMARTS; may include an atom of the scaffold.
      scaffolds: SMILES with a hydrogen left out.
    """

    substituent: str
    atoms: str
    scaffolds: list[str]


TOXICOPHORES = {
    "nitro": Toxicophore("[N+](=O)[O-]", "[N+](=O)[O-]", AROMATIC),
    "azide": Toxicophore("N=[N+]=[N-]", "N=[N+]=[N-]", AROMATIC + ALIPHATIC),
    "nitrosamine": Toxicophore("N=O", "NN=O", AMINES),
    "nitroso": Toxicophore("N=O", "N=O", AROMATIC),
    "aromatic amine": Toxicophore("N", "[NH2]c", AROMATIC),
    "hydrazine": Toxicophore("NN", "[NH2]N", AROMATIC + ALIPHATIC),
    "epoxide": Toxicophore("C9CO9", "C1OC1", AROMATIC + ALIPHATIC),
    "mustard": Toxicophore("N(CCCl)CCCl", "N(CCCl)CCCl", AROMATIC + ALIPHATIC),
}
SHOWN = ("c1ccc2cc([N+](=O)[O-])ccc2c1", "Clc1ccc(N=[N+]=[N-])cc1", "CN(N=O)Cc1ccccc1")

# Nothing is chosen on these molecules, except that half of the samples of defaults.py, one of several
# networks there, are 32 of them.
METHODS = {
    "LRP": composites.recommended("dense"),
    "LRP, gamma .25": composites.by_kind("dense", lrp.Gamma(0.25)) + composites.default(),
    "LRP, epsilon 1e-6": composites.default(),
}
OURS = "LRP"
AMES = TASKS.index("AMES")
STEPS = ("relu", "relu:1", "relu:2", "relu:3")  # bonds, bonds, bonds, atoms


class Pair(NamedTuple):
    """A molecule with a toxicophore, and the same with a hydrogen in its place, as SMILES."""

    toxicophore: str
    molecule: str
    without: str


def make_pairs(scaffolds: int | None) -> list[Pair]:
    """Every toxicophore on this many of its scaffolds."""
    found = []
    for name, group in TOXICOPHORES.items():
        for scaffold in group.scaffolds[:scaffolds]:
            with_group = scaffold.replace("({})", f"({group.substituent})")
            without = scaffold.replace("({})", "([H])")
            found.append(Pair(name, with_group.format(group.substituent), without.format("[H]")))
    return found


def ensemble():
    """(variables, atoms, bonds, bonding) -> the mean AMES logit of five networks, (molecules,)."""
    nets = [admet(i) for i in range(MEMBERS)]
    variables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(net.variables for net in nets))
    of_all = jax.vmap(nets[0].model.apply, in_axes=(0, 0, 0, None))

    def logit(variables, atoms: Array, bonds: Array, bonding: Bonding) -> Array:
        # as many copies as networks, so that this axis comes first in every layer
        copies = (jnp.broadcast_to(x, (MEMBERS, *x.shape)) for x in (atoms, bonds))
        return of_all(variables, *copies, bonding)[..., AMES].mean(axis=0)

    return nets[0].preprocess, logit, variables


def per_atom(atoms: np.ndarray, bonds: np.ndarray, bonding: Bonding) -> np.ndarray:
    """Converts relevance of features to relevance of atoms; that of a bond is split between its two."""
    found = np.asarray(atoms).sum(axis=-1)
    half = np.asarray(bonds).sum(axis=-1) / 2
    np.add.at(found, bonding.sources, half)
    np.add.at(found, bonding.targets, half)
    return found


def occlusion(logit, variables, graph: Molecules) -> np.ndarray:
    """The drop of the logit when the features of an atom and of its bonds are set to zero."""
    atoms, bonds, bonding = graph
    first = np.cumsum(bonding.sizes) - bonding.sizes
    place = np.arange(len(atoms)) - first[bonding.molecule]

    @jax.jit
    def without(j: Array) -> Array:
        off = place == j
        touched = off[bonding.sources] | off[bonding.targets]
        fewer = jnp.where(off[:, None], 0, atoms), jnp.where(touched[:, None], 0, bonds)
        return logit(variables, *fewer, bonding)

    drops = logit(variables, *graph) - jnp.stack([without(j) for j in range(place.max() + 1)])
    return np.asarray(drops)[place, bonding.molecule]


def in_groups(pairs: list[Pair], sizes: np.ndarray) -> list[np.ndarray]:
    """The atoms of each molecule that belong to its toxicophore, as booleans."""
    found = []
    for pair, size in zip(pairs, sizes, strict=True):
        pattern = Chem.MolFromSmarts(TOXICOPHORES[pair.toxicophore].atoms)
        inside = np.zeros(size, bool)
        for match in Chem.MolFromSmiles(pair.molecule).GetSubstructMatches(pattern):
            inside[list(match)] = True
        found.append(inside)
    return found


def all_walks(bonding: Bonding) -> np.ndarray:
    """All walks of one molecule: up to three consecutive bonds, and an atom."""
    before: dict[int, list[int]] = {bond: [] for bond in range(len(bonding.sources))}
    for first, second in zip(bonding.senders.tolist(), bonding.receivers.tolist(), strict=True):
        before[second].append(first)
    found = [(-1, -1, -1, atom) for atom in range(bonding.sizes.sum())]
    for last, atom in enumerate(bonding.targets.tolist()):
        found.append((-1, -1, last, atom))
        for middle in before[last]:
            found.append((-1, middle, last, atom))
            found += [(first, middle, last, atom) for first in before[middle]]
    return np.array(found)


def as_atoms(walk: np.ndarray, bonding: Bonding) -> list[int]:
    """The atoms that a walk passes, in order."""
    bonds = [bond for bond in walk[:-1].tolist() if bond >= 0]
    return [int(bonding.sources[bond]) for bond in bonds] + [int(walk[-1])]


def relevances(logit, variables, graph: Molecules) -> dict[str, np.ndarray]:
    """Relevance of each atom by method, (atoms,)."""
    explainers = {n: lrp.explain(logit, c, argnums=(1, 2)) for n, c in METHODS.items()}
    explainers["gradient x input"] = baselines.input_x_gradient(logit, argnums=(1, 2))
    found = {}
    for name, explain in explainers.items():
        of_atoms, of_bonds = jax.jit(explain)(variables, *graph).relevance
        found[name] = per_atom(of_atoms, of_bonds, graph.bonding)
    found["occlusion"] = occlusion(logit, variables, graph)
    return found


def marks(relevance: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """(whether the most relevant atom is in the group, the group's share of positive relevance)."""
    positive = np.maximum(relevance, 0)
    share = positive[inside].sum() / max(positive.sum(), 1e-30)
    return float(inside[relevance.argmax()]), float(share)


def atoms_table(
    pairs: list[Pair], logits: np.ndarray, found: dict[str, np.ndarray], groups: list[np.ndarray]
) -> tuple[Table, dict[str, tuple[float, float]]]:
    """(the table, the scores of each method for all pairs)."""
    table = Table(title="Most relevant atom in the group / share of positive relevance there")
    for column in ("toxicophore", "pairs", "logit", "by chance", *found):
        table.add_column(column, justify="left" if column == "toxicophore" else "right")
    starts = np.cumsum([len(inside) for inside in groups])[:-1]
    marked = {
        name: np.array(
            [marks(r, inside) for r, inside in zip(np.split(all_of, starts), groups, strict=True)]
        )
        for name, all_of in found.items()
    }
    chance = np.array([inside.mean() for inside in groups])
    for group in (*TOXICOPHORES, "all"):
        rows = np.array([group in (pair.toxicophore, "all") for pair in pairs])
        before, after = logits[:, rows].mean(axis=1)
        cells = ["{:.2f} / {:.2f}".format(*m[rows].mean(axis=0)) for m in marked.values()]
        table.add_row(
            group, str(rows.sum()), f"{before:.1f} to {after:.1f}", f"{chance[rows].mean():.2f}", *cells
        )  # fmt: skip
    return table, {name: tuple(m.mean(axis=0)) for name, m in marked.items()}


def walks_of(logit, variables, molecules, smiles: list[str], k: int, beam: int):
    """(graph, walks, relevance, all walks, their relevance) of each molecule."""
    options = {"argnums": (1, 2), "from_input": False, "node_axis": 1}
    composite = METHODS[OURS]
    sizes = [
        [len(graph.atoms), len(graph.bonds), len(graph.bonding.senders)]
        for graph in (molecules([one]) for one in smiles)
    ]
    padded = tuple(np.max(sizes, axis=0).tolist())  # one shape, so only one compilation
    find = jax.jit(higher_order.top_walks(logit, STEPS, composite, k=k, beam=beam, **options))
    exact = higher_order.walks(logit, STEPS, composite, **options)
    for one in smiles:
        graph = molecules([one], padded)
        found = find(variables, *graph)
        every = all_walks(molecules([one]).bonding)
        relevance = jax.jit(lambda v, *g, every=every: exact(v, *g, walks=every))(variables, *graph)
        yield graph, np.asarray(found.walks), np.asarray(found.relevance), every, relevance


def alone(logit, variables, graph: Molecules, inside: np.ndarray) -> float:
    """Relevance of all walks that never leave a set of atoms."""
    bonding = graph.bonding
    bonds = inside[bonding.sources] & inside[bonding.targets]
    of_set = higher_order.subgraph(
        logit, STEPS, METHODS[OURS], argnums=(1, 2), from_input=False, node_axis=1
    )
    sets = (bonds, bonds, bonds, inside)
    return float(jax.jit(lambda v, *g: of_set(v, *g, nodes=sets))(variables, *graph))


def explain_walks(console, logit, variables, molecules, shown, path, k=10, beam=32) -> bool:
    """Prints and draws the walks of some molecules; returns whether the search found the right ones."""
    rows = [Pair(_toxicophore(smiles), smiles, "") for smiles in shown]
    figure = Figure(figsize=(4.2 * len(shown), 6.4), layout="constrained")
    panels = figure.subplots(2, len(shown), squeeze=False)
    right = True
    explain = jax.jit(lrp.explain(logit, METHODS[OURS], argnums=(1, 2)))
    results = walks_of(logit, variables, molecules, shown, k, beam)
    for (graph, walks, of_walks, every, of_every), row, axes in zip(
        results, rows, panels.T, strict=True
    ):
        unpadded = molecules([row.molecule])
        (inside,) = in_groups([row], unpadded.bonding.sizes)
        result = explain(variables, *unpadded)
        of_atoms = per_atom(*result.relevance, unpadded.bonding)
        best = np.sort(np.abs(np.asarray(of_every)))[::-1][:k]
        hits = int((np.abs(of_walks) >= best[-1] * (1 - 1e-4)).sum())
        total = float(sum(r.sum() for r in result.relevance))
        chains = [as_atoms(walk, graph.bonding) for walk in walks]
        touching = sum(bool(inside[chain].any()) for chain in chains)
        console.print(
            f"{row.molecule} ({row.toxicophore}): relevance {total:.2f}; all {len(every)} walks sum to "
            f"{of_every.sum():.2f}, those that never leave the group to "
            f"{alone(logit, variables, unpadded, inside):.2f}; a beam of {beam} finds {hits} of the "
            f"{k} most relevant walks, and {touching} of these touch the group:"
        )
        for chain, relevance in list(zip(chains, of_walks, strict=True))[:3]:
            symbols = [
                Chem.MolFromSmiles(row.molecule).GetAtomWithIdx(i).GetSymbol() for i in chain
            ]
            names = "-".join(f"{s}{i}" for s, i in zip(symbols, chain, strict=True))
            console.print(f"  {relevance:+.2f}  {names}")
        right &= hits == k and bool(np.isclose(of_every.sum(), total, rtol=1e-3))
        draw_molecule(axes[0], row.molecule, atoms=of_atoms, title=f"{row.toxicophore}: atoms")
        draw_molecule(axes[1], row.molecule, walks=(chains, of_walks), title=f"{k} walks")
    figure.savefig(path, dpi=110)
    console.print(f"figure: {path} (red: evidence for mutagenicity; arrows end at the readout)")
    return right


def _toxicophore(smiles: str) -> str:
    """The first toxicophore in the table that a molecule has."""
    mol = Chem.MolFromSmiles(smiles)
    has = (n for n, t in TOXICOPHORES.items() if mol.HasSubstructMatch(Chem.MolFromSmarts(t.atoms)))
    return next(has)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="use fewer scaffolds, draw less")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=160)

    pairs = make_pairs(4 if arguments.quick else None)
    molecules, logit, variables = ensemble()
    graph = molecules([pair.molecule for pair in pairs])
    compiled = jax.jit(logit)
    logits = np.stack(
        [
            compiled(variables, *molecules([pair.without for pair in pairs])),
            compiled(variables, *graph),
        ]
    )
    rises = float((logits[1] > logits[0]).mean())
    console.print(f"the AMES logit rises in {rises:.3f} of {len(pairs)} pairs")
    groups = in_groups(pairs, graph.bonding.sizes)
    table, marked = atoms_table(pairs, logits, relevances(logit, variables, graph), groups)
    console.print(table)

    shown = list(SHOWN[: 1 if arguments.quick else None])
    path = arguments.output / "molecules.png"
    right = explain_walks(console, logit, variables, molecules, shown, path)
    top, share = marked[OURS]
    if rises < 0.95 or top < 0.9 or share < 0.75 or not right:
        console.print(
            "FAILED: the logit must rise in .95, the most relevant atom must be in the group in .9, the "
            "group must have .75 of positive relevance, and the search must find the walks"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
