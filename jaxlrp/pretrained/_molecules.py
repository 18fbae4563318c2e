"""Molecules as graphs of atoms and directed bonds, with the features that chemprop uses."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

_INSTALL = 'pip install "jaxlrp[molecules]"'

# The known values of each property, in the order of the features; one more feature stands for all others.
_ELEMENTS = (*range(1, 37), 53)
_DEGREES = tuple(range(6))
_CHARGES = (-1, -2, 1, 2, 0)
_CHIRALITIES = tuple(range(4))
_HYDROGENS = tuple(range(5))
_HYBRIDIZATIONS = ("S", "SP", "SP2", "SP2D", "SP3", "SP3D", "SP3D2")
_BOND_TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
_STEREO = tuple(range(6))


class Bonding(NamedTuple):
    """Connectivity of the atoms: indices, int32.

    Each chemical bond is represented by two consecutive directed bonds.

    Attributes:
      sources: the atom where each bond starts, (B,).
      targets: the atom where each bond ends, (B,).
      senders: the first bond of each pair of consecutive bonds, (P,). The first ends where the second
        starts; the two directions of one bond are not a pair.
      receivers: the second bond of each pair, (P,).
      molecule: the molecule of each atom, (A,).
      sizes: the number of atoms of each molecule, (M,).
    """

    sources: np.ndarray
    targets: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    molecule: np.ndarray
    sizes: np.ndarray


class Molecules(NamedTuple):
    """Molecules as inputs of the network: one graph with one component per molecule.

    Attributes:
      atoms: atom features, (A, 72), float32: element, degree, charge, chirality, number of hydrogens and
        hybridization, all one-hot; then whether the atom is aromatic, and its mass in 100 Da.
      bonds: features of directed bonds, (B, 14), float32: type, conjugation, ring, stereo.
      bonding: connectivity.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    bonding: Bonding


def molecules(smiles: Sequence[str], padded: tuple[int, int, int] | None = None) -> Molecules:
    """Converts SMILES strings to a graph.

    Args:
      smiles: at least one SMILES string. Hydrogens are not separate atoms.
      padded: numbers of atoms, directed bonds and pairs of bonds, so that molecules of different sizes give
        arrays of the same shape. Padding has no effect on the result. None: no padding.

    Returns:
      The graph. Atoms have the order of the SMILES strings, molecule after molecule.

    Raises:
      TypeError: if `smiles` is a single string.
      ValueError: if there are none, one is invalid, or they are larger than `padded`.
      ImportError: if rdkit is not installed.
    """
    if isinstance(smiles, str):
        raise TypeError(
            f"smiles must be a sequence of strings, got a single one: write [{smiles!r}]"
        )
    if not smiles:
        raise ValueError("smiles must have at least one molecule, got none")
    parsed = [_parse(one) for one in smiles]
    sizes = np.array([mol.GetNumAtoms() for mol in parsed])
    first = np.cumsum(sizes) - sizes
    atoms = [_atom(atom) for mol in parsed for atom in mol.GetAtoms()]
    bonds = [_bond(bond) for mol in parsed for bond in mol.GetBonds() for _ in range(2)]
    ends = [
        (start + pair[0], start + pair[1])
        for start, mol in zip(first, parsed, strict=True)
        for bond in mol.GetBonds()
        for pair in (_ends(bond), _ends(bond)[::-1])
    ]
    sources, targets = np.array(ends, int).reshape(-1, 2).T
    follows = targets[:, None] == sources
    reverse = np.arange(len(ends)) ^ 1
    follows[np.arange(len(ends)), reverse] = False
    senders, receivers = np.nonzero(follows)
    bonding = Bonding(
        sources, targets, senders, receivers, np.repeat(np.arange(len(sizes)), sizes), sizes
    )
    found = Molecules(
        np.array(atoms, np.float32),
        np.array(bonds, np.float32).reshape(-1, 14),
        Bonding(*(array.astype(np.int32) for array in bonding)),
    )
    return found if padded is None else _pad(found, padded)


def _pad(found: Molecules, sizes: tuple[int, int, int]) -> Molecules:
    """Adds atoms of no molecule, bonds to no atom and pairs of no bond; segment sums ignore them."""
    atoms, bonds, bonding = found
    have = (len(atoms), len(bonds), len(bonding.senders))
    if any(size < n for size, n in zip(sizes, have, strict=True)):
        raise ValueError(
            f"padded must be at least {have}, the numbers of atoms, directed bonds and pairs of bonds, got "
            f"{sizes}"
        )

    def pad(array: np.ndarray, kind: int, value: int = 0) -> np.ndarray:
        width = [(0, sizes[kind] - have[kind])] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, width, constant_values=value)

    return Molecules(
        pad(atoms, 0),
        pad(bonds, 1),
        Bonding(
            sources=pad(bonding.sources, 1),
            targets=pad(bonding.targets, 1, sizes[0]),
            senders=pad(bonding.senders, 2),
            receivers=pad(bonding.receivers, 2, sizes[1]),
            molecule=pad(bonding.molecule, 0, len(bonding.sizes)),
            sizes=bonding.sizes,
        ),
    )


def _parse(smiles: str) -> Any:
    if importlib.util.find_spec("rdkit") is None:
        raise ImportError(f"reading molecules needs rdkit, which is not installed: {_INSTALL}")
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():  # the error below reports it
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise ValueError(f"smiles must be valid, got {smiles!r}")
    return mol


def _atom(atom: Any) -> list[float]:
    return [
        *_one_hot(atom.GetAtomicNum(), _ELEMENTS),
        *_one_hot(atom.GetTotalDegree(), _DEGREES),
        *_one_hot(atom.GetFormalCharge(), _CHARGES),
        *_one_hot(int(atom.GetChiralTag()), _CHIRALITIES),
        *_one_hot(atom.GetTotalNumHs(), _HYDROGENS),
        *_one_hot(str(atom.GetHybridization()), _HYBRIDIZATIONS),
        atom.GetIsAromatic(),
        0.01 * atom.GetMass(),
    ]


def _bond(bond: Any) -> list[float]:
    # The first feature means "no bond" and is never set. Other bond types set none.
    return [
        0,
        *_one_hot(str(bond.GetBondType()), _BOND_TYPES)[:-1],
        bond.GetIsConjugated(),
        bond.IsInRing(),
        *_one_hot(int(bond.GetStereo()), _STEREO),
    ]


def _ends(bond: Any) -> tuple[int, int]:
    return bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()


def _one_hot(value: Any, known: Iterable[Any]) -> list[float]:
    found = [value == k for k in known]
    return [*found, not any(found)]
