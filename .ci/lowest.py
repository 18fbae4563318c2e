"""Prints the dependencies of pyproject.toml in the lowest versions that it allows."""

import pathlib
import re
import tomllib

project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
print(*(re.sub(">=", "==", line) for line in project["project"]["dependencies"]))
