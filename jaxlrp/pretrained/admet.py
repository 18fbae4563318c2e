"""A graph network that tells of molecules what they do in a body, with trained weights.

Messages pass along the bonds of a molecule, each in both directions, and never straight back (D-MPNN).
31 logits say whether it is mutagenic (AMES), passes into the brain, blocks a channel of the heart and
the like. The weights are those of the package `admet-ai` 2 (MIT), of which nothing is run: neither
PyTorch nor chemprop is needed. That version has no descriptors of whole molecules beside the graph.

References:
  Swanson et al. (2024), https://doi.org/10.1093/bioinformatics/btae416; Yang et al. (2019), D-MPNN,
  https://doi.org/10.1021/acs.jcim.9b00237
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._molecules import Bonding, Molecules, molecules
from jaxlrp.pretrained._torch_checkpoint import read_torch_checkpoint

__all__ = [
    "TASKS",
    "Bonding",
    "DirectedMPNN",
    "Molecules",
    "PropertyPredictor",
    "admet",
    "molecules",
]

TASKS = (
    "AMES", "BBB_Martins", "Bioavailability_Ma", "CYP1A2_Veith", "CYP2C19_Veith",
    "CYP2C9_Substrate_CarbonMangels", "CYP2C9_Veith", "CYP2D6_Substrate_CarbonMangels",
    "CYP2D6_Veith", "CYP3A4_Substrate_CarbonMangels", "CYP3A4_Veith", "Carcinogens_Lagunin",
    "ClinTox", "DILI", "HIA_Hou", "NR-AR-LBD", "NR-AR", "NR-AhR", "NR-Aromatase", "NR-ER-LBD",
    "NR-ER", "NR-PPAR-gamma", "PAMPA_NCATS", "Pgp_Broccatelli", "SR-ARE", "SR-ATAD5", "SR-HSE",
    "SR-MMP", "SR-p53", "Skin_Reaction", "hERG",
)  # fmt: skip
"""What each logit says, by index: data sets of the Therapeutics Data Commons."""

MEMBERS = 5
"""How many networks were trained, on different parts of the data. The package averages them."""

_STEPS = 2
_PACKAGE = "admet_ai"
_INSTALL = "pip install --no-deps admet-ai==2.0.1"

# The checkpoint's module names and ours.
_SCOPES = {
    "message_passing.W_i": "bond_in",
    "message_passing.W_h": "update",
    "message_passing.W_o": "atom_out",
    "predictor.ffn.0.0": "hidden",
    "predictor.ffn.1.2": "classifier",
}


class DirectedMPNN(nn.Module):
    """A directed message passing network, as chemprop has it, without the dropout of its training.

        h0 = W_i [x_v, e_vw],   h = relu(h0)
        h = relu(h0 + W_h m),   m_vw = sum of h_uv over neighbors u of v other than w,   twice
        h_v = relu(W_o [x_v, sum of h_uv over neighbors u] + b)

    and two dense layers of the sum over the atoms of a molecule, divided by 100.

    Attributes:
      features: of bonds and atoms inside.
      tasks: number of logits.
    """

    features: int = 300
    tasks: int = len(TASKS)

    @nn.compact
    def __call__(self, atoms: jax.Array, bonds: jax.Array, bonding: Bonding) -> jax.Array:
        """Computes the logits.

        Args:
          atoms: features of atoms, (A, 72), floating.
          bonds: features of directed bonds, (B, 14), floating.
          bonding: which atoms they bind.

        Returns:
          Logits, (M, tasks). The tasks are not exclusive: a sigmoid makes each a probability.
        """
        total = jax.ops.segment_sum
        dense = functools.partial(nn.Dense, self.features)
        ends = jnp.concatenate([atoms[bonding.sources], bonds], axis=-1)
        first = dense(use_bias=False, name="bond_in")(ends)
        update = dense(use_bias=False, name="update")
        h = nn.relu(first)
        for _ in range(_STEPS):
            message = total(h[bonding.senders], bonding.receivers, len(bonds))
            h = nn.relu(first + update(message))
        message = total(h, bonding.targets, len(atoms))
        h = nn.relu(dense(name="atom_out")(jnp.concatenate([atoms, message], axis=-1)))
        h = total(h, bonding.molecule, len(bonding.sizes)) / 100
        h = nn.relu(dense(name="hidden")(h))
        return nn.Dense(self.tasks, name="classifier")(h)


@dataclasses.dataclass(frozen=True, eq=False)
class PropertyPredictor:
    """A trained network of molecules with all that is needed to feed it.

    Attributes:
      model: the Linen module; `model.apply(variables, *molecules(smiles))` gives the logits.
      variables: its parameters, float32.
      molecules: SMILES to a graph, see `molecules`.
      tasks: what each logit says, by index.
    """

    model: DirectedMPNN
    variables: Mapping[str, Any] = dataclasses.field(repr=False)
    molecules: Callable[..., Molecules] = dataclasses.field(repr=False)
    tasks: tuple[str, ...] = dataclasses.field(default=TASKS, repr=False)


def admet(member: int = 0) -> PropertyPredictor:
    """Loads one of the five classifiers of ADMET-AI with its trained weights.

    Args:
      member: which of them, 0 to 4. They have the same shapes, so that one compiled function takes
        the variables of each.

    Returns:
      The network. Its module paths are `bond_in`, `update` (called twice), `atom_out`, `hidden` and
      `classifier`.

    Raises:
      ImportError: if the package with the weights is not installed.
      ValueError: if there is no such member.

    Example:
      >>> from jaxlrp.pretrained import admet
      >>> net = admet()  # doctest: +SKIP
      >>> graph = net.molecules(["c1ccccc1", "c1ccccc1N=[N+]=[N-]"])  # doctest: +SKIP
      >>> logits = net.model.apply(net.variables, *graph)  # doctest: +SKIP
      >>> logits[:, net.tasks.index("AMES")] > 0  # doctest: +SKIP
      Array([False,  True], dtype=bool)
    """
    if member not in range(MEMBERS):
        raise ValueError(f"member must be from 0 to {MEMBERS - 1}, got {member!r}")
    model = DirectedMPNN()
    flat = _weights.to_linen(_tensors(member), _SCOPES.__getitem__)
    if not _weights.matches(flat, _weights.signature(model, *_shapes())):
        raise ValueError(f"model_{member}.pt of {_PACKAGE} does not hold the weights of ADMET-AI")
    return PropertyPredictor(model, _weights.nested(flat), molecules)


def _shapes() -> Molecules:
    """Of a graph of two atoms."""
    index = jax.ShapeDtypeStruct((2,), np.int32)
    atoms, bonds = (jax.ShapeDtypeStruct((2, n), np.float32) for n in (72, 14))
    return Molecules(atoms, bonds, Bonding(*[index] * 6))  # pyright: ignore[reportArgumentType]


def _tensors(member: int) -> dict[str, np.ndarray]:
    folder = (
        _weights.package_folder(_PACKAGE, "admet", _INSTALL)
        / "resources/models/admet_classification"
    )
    checkpoint = read_torch_checkpoint(folder / f"model_{member}.pt", part="state_dict")
    # Beside the network's there are weights of its loss and metrics.
    return {
        name: value
        for name, value in checkpoint.items()
        if name.startswith(("message_passing.", "predictor.ffn."))
    }
