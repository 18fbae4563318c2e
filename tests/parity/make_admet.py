"""Freezes logits and features of ADMET-AI by chemprop and PyTorch: writes admet.npz beside itself.

Needs torch, rdkit and chemprop 2.3.1, and without its dependencies the package of the weights:
pip install --no-deps admet-ai==2.0.1

It imports nothing of jaxlrp. The molecules have rings, charges, stereo centers and double bonds of
either kind, elements that the features know and one that they do not; one is a lone atom and one a
salt, two graphs in one.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch

# A featurizer in C++, which is no part of what is frozen and for which there is no wheel everywhere.
sys.modules.setdefault("cuik_molmaker", types.ModuleType("cuik_molmaker"))

from chemprop.data import BatchMolGraph  # noqa: E402
from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer  # noqa: E402
from chemprop.models import load_model  # noqa: E402
from chemprop.models.utils import load_output_columns  # noqa: E402
from chemprop.utils import make_mol  # noqa: E402

FOLDER = Path(importlib.util.find_spec("admet_ai").submodule_search_locations[0])
MODELS = FOLDER / "resources" / "models" / "admet_classification"

SMILES = (
    "c1ccccc1[N+](=O)[O-]",
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C[C@H](N)C(=O)N[C@@H](CS)C(=O)O",
    "F/C=C/Cl",
    "F/C=C\\I",
    "CCN=[N+]=[N-]",
    "CN(C)N=O",
    "C#CCOP(=O)(O)O",
    "O",
    "[Na+].[O-]C(=O)c1ccccc1",
    "C[Se]C[Si](C)(C)B(O)O",
    "Cl[Pt]Cl",
    "O=S(=O)(Nc1ccc(Br)cc1)c1cccc2ccccc12",
)


def main() -> None:
    """Writes the molecules, their features in float32 and the logits of five models in float64."""
    featurize = SimpleMoleculeMolGraphFeaturizer()
    graphs = [featurize(make_mol(smiles)) for smiles in SMILES]
    batch = BatchMolGraph(graphs)
    features = {"atoms": batch.V.numpy(), "bonds": batch.E.numpy()}
    batch.V, batch.E = batch.V.double(), batch.E.double()
    logits = []
    for path in sorted(MODELS.glob("*.pt")):
        model = load_model(path, multicomponent=False).double().eval()
        with torch.no_grad():
            logits.append(model.predictor.train_step(model.fingerprint(batch)).numpy())
    np.savez_compressed(
        Path(__file__).with_name("admet.npz"),
        smiles=np.array(SMILES),
        tasks=np.array(load_output_columns(path)),
        logits=np.stack(logits),
        sources=batch.edge_index[0].numpy(),
        **features,
    )


if __name__ == "__main__":
    main()
