"""Freezes exact Shapley values of small networks by shap 0.54.1, in `shap.npz`.

    pip install shap==0.54.1 && python tests/parity/make_shap.py

made with JAX 0.12.0, NumPy 2.5.5 and scikit-learn 1.9.1, without PyTorch or TensorFlow. The networks are
those of `shap_models.py`, in float64, on scikit-learn's diabetes data. `ExactExplainer` evaluates all
1024 subsets of the ten columns; an absent column is zero, its mean. shap is used as a program: nothing of
its code is here.

Keys: "x" (12, 10); "weights/..."; "NAME/values" (12, 10) and "NAME/base" (12,) of each network.
"""

import pathlib

import jax
import numpy as np
import shap
import sklearn.datasets

import shap_models

OUTPUT = pathlib.Path(__file__).with_name("shap.npz")
SAMPLES = 12


def table() -> np.ndarray:
    """Samples (12, 10), standardized: zero is the mean of a column."""
    x = sklearn.datasets.load_diabetes(scaled=False).data
    return ((x - x.mean(axis=0)) / x.std(axis=0))[:: len(x) // SAMPLES][:SAMPLES]


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    x, w = table(), shap_models.weights()
    found = {"x": x, **{f"weights/{name}": np.asarray(value) for name, value in w.items()}}
    for name, model in shap_models.MODELS.items():
        jitted = jax.jit(lambda x, model=model: model(w, x))
        masker = shap.maskers.Independent(np.zeros((1, x.shape[1])))
        explained = shap.explainers.Exact(lambda x, f=jitted: np.asarray(f(x)), masker)(x)
        found[f"{name}/values"] = explained.values
        found[f"{name}/base"] = explained.base_values
    np.savez_compressed(OUTPUT, **found)


if __name__ == "__main__":
    main()
