"""What stands in several files of the project says the same in each; a user's file is whole and runs."""

import ast
import collections
import pathlib
import re
import tomllib

import jaxlrp as lrp

import user_file

ROOT = pathlib.Path(__file__).parents[1]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_version_stands_once() -> None:
    """In `jaxlrp/__init__.py`, which the build reads; a citation file can read nothing."""
    project = tomllib.loads(read("pyproject.toml"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"] == {"path": "jaxlrp/__init__.py"}
    assert re.findall("^version: (.+)$", read("CITATION.cff"), re.M) == [lrp.__version__]


def test_one_ruff() -> None:
    (installed,) = re.findall(r'"ruff==([\d.]+)"', read("pyproject.toml"))
    (hooked,) = re.findall(r"ruff-pre-commit\n +rev: v([\d.]+)", read(".pre-commit-config.yaml"))
    assert hooked == installed


def test_github_runs_every_part() -> None:
    (parts,) = re.findall(r"^every=\((.+)\)$", read(".ci/run"), re.M)
    assert re.findall(r"\{part: (\w+),", read(".github/workflows/ci.yml")) == parts.split()


def test_a_users_file_has_every_public_name_and_runs() -> None:
    """Its types are checked by pyright in `.ci/run lint`."""
    tree = ast.parse(read("tests/user_file.py"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "lrp"
    }
    assert set(lrp.__all__) - used == set()
    assert len({type(rule) for rule in user_file.rules()}) == 11
    assert all(isinstance(made, lrp.Composite) for made in user_file.composites())
    user_file.main()


def test_no_two_test_files_have_one_name():
    """pytest imports them by name, since their folders are no packages, and refuses the second."""
    names = collections.Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
