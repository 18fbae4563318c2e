"""ADMET-AI, graph networks that predict properties of molecules, with trained weights.

Messages pass along the bonds of a molecule in both directions, but never directly back (D-MPNN). The 31
logits of the classifiers predict, for example, whether a molecule is mutagenic (AMES), enters the brain, or
blocks a heart channel (hERG); the regressions predict ten quantities, such as solubility. The weights come
from the package `admet-ai` 2 (MIT). None of its code is run: neither PyTorch nor chemprop is needed. This
version uses no whole-molecule descriptors besides the graph.

References:
  Swanson et al. (2024), https://doi.org/10.1093/bioinformatics/btae416; Yang et al. (2019), D-MPNN,
  https://doi.org/10.1021/acs.jcim.9b00237
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained
from jaxlrp.pretrained._molecules import Bonding, Molecules, molecules
from jaxlrp.pretrained._torch_checkpoint import read_torch_checkpoint

__all__ = [
    "PROPERTIES",
    "TASKS",
    "Bonding",
    "DirectedMPNN",
    "Molecules",
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
"""The name of each logit, by index: data sets of the Therapeutics Data Commons."""

PROPERTIES = {
    "Caco2_Wang": "log(10^-6 cm/s)",
    "Clearance_Hepatocyte_AZ": "uL/min/10^6 cells",
    "Clearance_Microsome_AZ": "uL/min/mg",
    "Half_Life_Obach": "hr",
    "HydrationFreeEnergy_FreeSolv": "kcal/mol",
    "LD50_Zhu": "log(1/(mol/kg))",
    "Lipophilicity_AstraZeneca": "log-ratio",
    "PPBR_AZ": "%",
    "Solubility_AqSolDB": "log(mol/L)",
    "VDss_Lombardo": "L/kg",
}
"""The name of each output of the regressions, in order, and its unit."""

MEMBERS = 5
"""Number of networks, trained on different parts of the data. The package averages them."""

_LABELS = {"classification": TASKS, "regression": tuple(PROPERTIES)}
_STEPS = 2
_PACKAGE = "admet_ai"
_INSTALL = "pip install --no-deps admet-ai==2.0.1"

# Module names in the checkpoint, and ours.
_SCOPES = {
    "message_passing.W_i": "bond_in",
    "message_passing.W_h": "update",
    "message_passing.W_o": "atom_out",
    "predictor.ffn.0.0": "hidden",
    "predictor.ffn.1.2": "classifier",
}
_LAST = "predictor.ffn.1.2"


class DirectedMPNN(nn.Module):
    """A directed message passing network as in chemprop, without training-time dropout.

        h0 = W_i [x_v, e_vw],   h = relu(h0)
        h = relu(h0 + W_h m),   m_vw = sum of h_uv over neighbors u of v other than w,   twice
        h_v = relu(W_o [x_v, sum of h_uv over neighbors u] + b)

    followed by two dense layers on the sum over the atoms of a molecule, divided by 100.

    Attributes:
      features: number of hidden features of bonds and atoms.
      tasks: number of logits.
    """

    features: int = 300
    tasks: int = len(TASKS)

    @nn.compact
    def __call__(self, atoms: jax.Array, bonds: jax.Array, bonding: Bonding) -> jax.Array:
        """Computes the logits.

          atoms: atom features, (A, 72), floating.
          bonds: features of directed bonds, (B, 14), floating.
          bonding: connectivity.

        Returns:
          Logits, (M, tasks). Tasks are not exclusive: apply a sigmoid to get the probability of each.
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


def admet(member: int = 0, kind: str = "classification") -> Pretrained:
    """Loads one of the five classifiers, or of the five regressions, of ADMET-AI with its trained weights.

    Args:
      member: index of the network, 0 to 4. All of a kind have the same shapes, so one compiled function
        works with the variables of each.
      kind: "classification": 31 logits; or "regression": ten quantities, each in its unit.

    Returns:
      The network. Its `preprocess` is `molecules`: it converts SMILES strings to the three inputs of the
      model. Its `labels` are `TASKS`, or the names in `PROPERTIES`. Its module paths are `bond_in`,
      `update` (called twice), `atom_out`, `hidden` and `classifier`; the last also scales a regression to
      its unit.

    Raises:
      ImportError: if the package with the weights is not installed.
      ValueError: if `member` is out of range, or `kind` unknown.

    Example:
      >>> from jaxlrp.pretrained import admet
      >>> net = admet()  # doctest: +SKIP
      >>> graph = net.preprocess(["c1ccccc1", "c1ccccc1N=[N+]=[N-]"])  # doctest: +SKIP
      >>> logits = net.model.apply(net.variables, *graph)  # doctest: +SKIP
      >>> logits[:, net.labels.index("AMES")] > 0  # doctest: +SKIP
      Array([False,  True], dtype=bool)
    """
    if member not in range(MEMBERS):
        raise ValueError(f"member must be from 0 to {MEMBERS - 1}, got {member!r}")
    if kind not in _LABELS:
        raise ValueError(f"kind must be one of {', '.join(_LABELS)}, got {kind!r}")
    labels = _LABELS[kind]
    model = DirectedMPNN(tasks=len(labels))
    flat = _weights.to_linen(_tensors(member, kind), _SCOPES.__getitem__)
    if not _weights.matches(flat, _weights.signature(model, *_shapes())):
        raise ValueError(
            f"model_{member}.pt of {_PACKAGE} does not contain the weights of ADMET-AI"
        )
    return Pretrained(model, _weights.nested(flat), molecules, labels)


def _shapes() -> Molecules:
    """The shapes of a graph of two atoms."""
    index = jax.ShapeDtypeStruct((2,), np.int32)
    atoms, bonds = (jax.ShapeDtypeStruct((2, n), np.float32) for n in (72, 14))
    return Molecules(atoms, bonds, Bonding(*[index] * 6))  # pyright: ignore[reportArgumentType]


def _tensors(member: int, kind: str) -> dict[str, np.ndarray]:
    folder = _weights.package_folder(_PACKAGE, "admet", _INSTALL) / f"resources/models/admet_{kind}"
    checkpoint = read_torch_checkpoint(folder / f"model_{member}.pt", part="state_dict")
    # The checkpoint also has weights of the loss and the metrics.
    kept = {
        name: value
        for name, value in checkpoint.items()
        if name.startswith(("message_passing.", "predictor.ffn."))
    }
    scale = checkpoint.get("predictor.output_transform.scale")
    if scale is not None:  # outputs are standardized: the last layer takes them back to their units
        mean = checkpoint["predictor.output_transform.mean"]
        kept[f"{_LAST}.weight"] = kept[f"{_LAST}.weight"] * scale.T
        kept[f"{_LAST}.bias"] = kept[f"{_LAST}.bias"] * scale[0] + mean[0]
    return kept
