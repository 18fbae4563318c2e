"""What wheel and sdist contain, and what an extra makes importable: see `.ci/release`.

python .ci/contents.py dist            checks the files of both
python .ci/contents.py --extras dist   prints the extras of the wheel
python .ci/contents.py --import plot   imports what the extra is for
"""

from __future__ import annotations

import email
import importlib
import pathlib
import sys
import tarfile
import zipfile

WINGS = {
    "plot": ["jaxlrp.plot"],
    "pandas": ["pandas"],
    "xarray": ["xarray"],
    "cli": ["jaxlrp.cli", "jaxlrp.plot", "rich"],
    "pretrained": ["jaxlrp.pretrained", "safetensors", "tokenizers", "PIL"],
    "wavelets": ["jaxlrp.inspection", "pywt"],
    "molecules": ["rdkit"],
    "dataset": ["jaxlrp.dataset", "zarr", "tensorstore", "grain", "h5py"],
    "virelay": ["jaxlrp.virelay", "h5py", "yaml"],
    "spray": ["jaxlrp.spray", "sklearn"],
    "concepts": ["jaxlrp.concepts.figures", "networkx", "skimage"],
    "metrics": ["jaxlrp.metrics", "scipy"],
    "umap": ["umap"],
    "onnx": ["jaxlrp.onnx", "onnx"],
    "quantus": ["quantus"],
    "examples": ["mlxtend", "sleepecg", "pyts"],
    "test": ["pytest", "hypothesis", "virelay"],
    "lint": ["pyright"],
    "docs": ["mkdocs", "material", "mkdocstrings"],
}
IN_SDIST = (
    "tests/conftest.py",
    "tests/oracle.py",
    "docs/index.md",
    "examples/vit.py",
    "LICENSE",
    "NOTICE",
)


def only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    """The one file of this kind."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder} must have one {pattern}, it has {[f.name for f in found]}")
    return found[0]


def extras(folder: pathlib.Path) -> list[str]:
    """Those of the wheel."""
    with zipfile.ZipFile(only(folder, "*.whl")) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(wheel.read(name)).get_all("Provides-Extra", [])


def check(folder: pathlib.Path) -> None:
    """Both have every file of the package; the sdist also tests, docs and examples.

    Raises:
      SystemExit: if a file is missing, or the wheel has more than the package.
    """
    package = {str(p) for p in pathlib.Path("jaxlrp").rglob("*") if p.is_file()}
    package = {p for p in package if "__pycache__" not in p}
    with zipfile.ZipFile(only(folder, "*.whl")) as wheel:
        in_wheel = {name for name in wheel.namelist() if ".dist-info/" not in name}
    with tarfile.open(only(folder, "*.tar.gz")) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    if in_wheel != package:
        raise SystemExit(f"the wheel differs from jaxlrp/ in {sorted(in_wheel ^ package)}")
    tests = {str(p) for p in pathlib.Path("tests").rglob("*.py")}
    missing = (package | tests | set(IN_SDIST)) - set(names)
    if missing:
        raise SystemExit(f"the sdist has no {sorted(missing)}")
    print(f"{len(in_wheel)} files in the wheel, {len(names)} in the sdist")


def main(arguments: list[str]) -> None:
    if arguments[0] == "--import":
        for name in WINGS[arguments[1]]:
            importlib.import_module(name)
    elif arguments[0] == "--extras":
        print(*extras(pathlib.Path(arguments[1])))
    else:
        check(pathlib.Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
