"""Ships KaTeX with the site, so that formulas render without a network.

The repository contains no third-party code: the first build fetches the archive from the npm registry,
checks its SHA-512 and keeps it in the cache folder of jaxlrp (`JAXLRP_CACHE`, or `~/.cache/jaxlrp`), so
that later builds need no network. A build without either warns, and its formulas show as TeX; with
`--strict` it fails. To prepare a machine without a network, copy the archive into its cache folder.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import pathlib
import tarfile
import tempfile
import urllib.request
from typing import Any

from mkdocs.structure.files import File

from jaxlrp import _cache

VERSION = "0.19.1"
SHA512 = "jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA=="
URL = f"https://registry.npmjs.org/katex/-/katex-{VERSION}.tgz"

SCRIPTS = ("katex.min.js", "contrib/auto-render.min.js")
STYLE = "katex.min.css"
IN_SITE = "assets/katex"  # folder of the site

log = logging.getLogger("mkdocs.hooks.formulas")


def archive() -> bytes:
    """The archive, from the cache folder or from the registry.

    Raises:
      OSError: if it is not in the cache and cannot be fetched.
      ValueError: if what was fetched, or cached, is not what was pinned.
    """
    path = _cache.folder() / f"katex-{VERSION}.tgz"
    if path.exists():
        return checked(path.read_bytes(), str(path))
    with urllib.request.urlopen(URL, timeout=60) as response:
        data = checked(response.read(), URL)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.replace(file.name, path)  # never half an archive
    return data


def checked(data: bytes, source: str) -> bytes:
    """`data`, if it has the pinned SHA-512."""
    found = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != SHA512:
        raise ValueError(f"{source} must have the SHA-512 {SHA512}, got {found}; delete the file")
    return data


def shipped(data: bytes) -> dict[str, bytes]:
    """The files of the archive that the site needs, by their path below `IN_SITE`."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            name: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar.getmembers()
            if (name := member.name.removeprefix("package/dist/")) in (*SCRIPTS, STYLE)
            or (name.startswith("fonts/") and name.endswith(".woff2"))
            or (name := member.name.removeprefix("package/")) == "LICENSE"
        }


def on_files(files: Any, config: Any) -> Any:
    """Adds KaTeX to the site, and to each page."""
    try:
        found = shipped(archive())
    except (OSError, ValueError) as error:
        log.warning(
            "formulas will show as TeX, because KaTeX is missing: %s. Build once with a network, "
            "or save %s as %s",
            error,
            URL,
            _cache.folder() / pathlib.PurePosixPath(URL).name,
        )
        return files
    for name, content in found.items():
        files.append(File.generated(config, f"{IN_SITE}/{name}", content=content))
    config.extra_css.insert(0, f"{IN_SITE}/{STYLE}")
    config.extra_javascript[:0] = [f"{IN_SITE}/{name}" for name in SCRIPTS]
    return files
