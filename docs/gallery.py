"""The gallery: one tile for each example, with the picture that the example has written.

The repository contains no pictures. The build takes them from the folder `JAXLRP_GALLERY` or, if it is not
set, from `examples/output`, where examples write by default; `--quick` is enough. A tile without a picture
is text only.
"""

from __future__ import annotations

import ast
import io
import os
import pathlib
from collections.abc import Iterator

from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
IN_SITE = "_gallery"  # folder of the site
TILES = "<!-- tiles of the gallery -->"
WIDTH = 720  # pixels, twice that of a tile

# The picture of an example that writes several, or one of another name; of the rest it is NAME.png.
PICTURES = {
    "concepts_images": "concepts_images_maps",
    "concepts_text": "concepts_text_heads",
    "image_classification": "photographs",
    "train_and_explain": "digits",
}


def folder() -> pathlib.Path:
    """Where the examples have written."""
    return pathlib.Path(os.environ.get("JAXLRP_GALLERY") or EXAMPLES / "output")


def examples() -> Iterator[tuple[str, str]]:
    """(name, first paragraph of its docstring) of each example that is a script."""
    for path in sorted(EXAMPLES.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in text:
            about = ast.get_docstring(ast.parse(text)) or ""
            yield path.stem, " ".join(about.split("\n\n")[0].split())


def picture(name: str) -> pathlib.Path | None:
    """The picture of an example, if it has been run."""
    path = folder() / f"{PICTURES.get(name, name)}.png"
    return path if path.exists() else None


def thumbnail(path: pathlib.Path) -> bytes:
    """A picture of at most `WIDTH` pixels across, as PNG."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((WIDTH, 2 * WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def thumbnails() -> dict[str, bytes]:
    """The files of the site, by path."""
    found = {name: picture(name) for name, _ in examples()}
    return {f"{IN_SITE}/{n}.png": thumbnail(path) for n, path in found.items() if path}


def tiles(repository: str | None) -> str:
    """All tiles, as Markdown."""
    shown = sorted(examples(), key=lambda example: picture(example[0]) is None)  # pictures first
    made = (tile(name, about, repository) for name, about in shown)
    return '<div class="tiles" markdown>\n\n' + "\n\n".join(made) + "\n\n</div>"


def tile(name: str, about: str, repository: str | None) -> str:
    """A picture, a sentence, and the source."""
    source = f"`examples/{name}.py`"
    if repository:
        source = f"[{source}]({repository}/blob/main/examples/{name}.py)"
    shown = f"![{about}]({IN_SITE}/{name}.png)\n\n" if picture(name) else ""
    return f"<div markdown>\n\n{shown}{about}\n\n{source}\n{{: .source }}\n\n</div>"
