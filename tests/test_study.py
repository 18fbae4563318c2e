"""Studies with people: what is shown, the server over HTTP, and the file of answers."""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import urllib.parse

import numpy as np
import pytest
from matplotlib.image import imread

from jaxlrp import plot, study
from jaxlrp.dataset import DifferentRunError, StoreError

OPTIONS = ["dog", "<b>cat</b>"]


def picture(value, side=6):
    rng = np.random.default_rng(value)
    return rng.integers(0, 256, (side, side + 1, 3)).astype(np.uint8)


@pytest.fixture
def held():
    """Two photos under two conditions each, and one that everyone sees."""
    stimuli = [
        study.Stimulus(picture(photo), OPTIONS, OPTIONS[photo], condition, group=f"photo {photo}")
        for photo in (0, 1)
        for condition in ("SECRET one", "SECRET two")
    ]
    return study.Study([*stimuli, study.Stimulus(picture(7), OPTIONS)], title="A & B", seed=3)


def ask(server, path, body=None, **headers):
    """(status, content) of a request."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc, timeout=10)
    if body is None:
        connection.request("GET", path, headers=headers)
    else:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, sent, {"Content-Type": "application/json", **headers})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    is_json = reply.headers.get_content_type() == "application/json"
    return reply.status, json.loads(content) if is_json else content


def answer_all(server, who, pick=0):
    """Answers all that a participant is asked; the indices, in order."""
    seen = []
    while (found := ask(server, "/next", {"participant": who})[1])["stimulus"] is not None:
        assert found["done"] == len(seen)
        seen.append(found["stimulus"])
        sent = {
            "participant": who,
            "stimulus": seen[-1],
            "answer": found["options"][pick],
            "seconds": 1.5,
        }
        assert ask(server, "/answer", sent) == (200, {"recorded": True})
    return seen


# What is revealed


def test_reveal_shows_exactly_the_most_relevant_fraction():
    rng = np.random.default_rng(0)
    relevance, photo = rng.normal(size=(9, 7)), rng.integers(0, 100, (9, 7, 3)).astype(np.uint8)
    shown = {}
    for fraction in (0.0, 0.25, 0.5, 1.0):
        pixels = plot.reveal(relevance, photo, fraction=fraction, dim=0.0)
        shown[fraction] = (pixels == photo).all(axis=-1)
        assert shown[fraction].sum() == round(fraction * 63)
        assert (pixels[~shown[fraction]] == 128).all()
    assert relevance[shown[0.25]].min() > relevance[~shown[0.25]].max()
    assert (shown[0.5] >= shown[0.25]).all()
    by_size = plot.reveal(relevance, photo, fraction=0.25, dim=0.0, by="magnitude")
    held = (by_size == photo).all(axis=-1)
    assert np.abs(relevance[held]).min() > np.abs(relevance[~held]).max()


def test_reveal_dims_towards_the_background_and_draws_ties():
    photo = np.full((20, 20, 3), 250, np.uint8)
    pixels = plot.reveal(np.zeros((20, 20)), photo, fraction=0.5, dim=0.25, background=0.2)
    dimmed = round(51 + 0.25 * (250 - 51))
    assert set(np.unique(pixels)) == {dimmed, 250}
    # equal relevance: not the first rows. Of 200 fair draws, 70 to 130 are within 4 deviations.
    assert 70 < (pixels[:10, :, 0] == 250).sum() < 130
    patches = plot.reveal(np.eye(20), photo, fraction=0.2, dim=0.0, pool=4)[..., 0] == 250
    assert (patches[:4, :4] == patches[0, 0]).all()
    assert patches.sum() == 80


@pytest.mark.parametrize(
    ("given", "message"),
    [({"fraction": 1.5}, "fraction"), ({"dim": -1}, "dim"), ({"background": "gray"}, "background"),
     ({"by": "size"}, "by must be one of"), ({"image": np.zeros((5, 4, 3))}, "height and width")],
)  # fmt: skip
def test_reveal_refuses(given, message):
    arguments = {"relevance": np.zeros((4, 4)), "image": np.zeros((4, 4, 3)), **given}
    with pytest.raises(ValueError, match=message):
        plot.reveal(**arguments)


# What is shown to whom


def test_conditions_take_turns_and_orders_differ(held):
    orders = [held.order(number) for number in range(20)]
    for photo in (0, 1):
        pair = [2 * photo, 2 * photo + 1]
        seen = [[i for i in order if i in pair] for order in orders]
        assert all(len(each) == 1 for each in seen)
        counts = np.bincount([each[0] - pair[0] for each in seen])
        assert counts.tolist() == [10, 10]
    # both photos under one condition would confound participants with conditions
    assert all({i % 2 for i in order if i < 4} == {0, 1} for order in orders)
    assert all(4 in order for order in orders)
    assert len({tuple(order) for order in orders}) > 4
    assert orders == [held.order(number) for number in range(20)]


@pytest.mark.parametrize("shape", [(5, 3), (4, 9, 3)])
def test_pictures_are_sent_without_loss(shape):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    found = imread(io.BytesIO(study.Study([study.Stimulus(image, OPTIONS)]).png(0)))
    np.testing.assert_array_equal(np.round(255 * found).astype(np.uint8), image)


def test_a_missing_package_is_named_before_anybody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    held = study.Study([study.Stimulus(np.zeros((4, 4), np.uint8), OPTIONS)])
    with pytest.raises(ImportError, match=r'a study requires PIL.*pip install "jaxlrp\[plot\]"'):
        study.serve(held, tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [({"image": np.zeros((4, 4))}, ValueError, "uint8"),
     ({"image": np.zeros((0, 4), np.uint8)}, ValueError, "pixel"),
     ({"options": ["dog"]}, ValueError, "two different"), ({"options": "dog"}, TypeError, "options"),
     ({"options": ["dog", 1]}, TypeError, "options"), ({"correct": "cow"}, ValueError, "correct"),
     ({"condition": None}, TypeError, "condition"), ({"group": ""}, ValueError, "group")],
)  # fmt: skip
def test_stimulus_refuses(given, error, message):
    with pytest.raises(error, match=message):
        study.Stimulus(**{"image": picture(0), "options": OPTIONS, **given})


def test_study_refuses():
    with pytest.raises(ValueError, match="stimuli is empty"):
        study.Study([])
    with pytest.raises(TypeError, match=r"study\.Stimulus"):
        study.Study([picture(0)])
    with pytest.raises(ValueError, match="seed"):
        study.Study([study.Stimulus(picture(0), OPTIONS)], seed=-1)


# Over HTTP


def test_a_participant_answers_all_once(held, tmp_path):
    path = tmp_path / "answers.jsonl"
    with study.serve(held, path) as server:
        assert ask(server, "/study")[1]["title"] == "A & B"
        assert answer_all(server, "p1") == held.order(0)
        assert answer_all(server, " p2 ", pick=1) == held.order(1)
        again = {"participant": "p1", "stimulus": 4, "answer": OPTIONS[1], "seconds": 9.0}
        assert ask(server, "/answer", again)[0] == 200  # confirmed, not written twice
        status, image = ask(server, "/stimulus/4.png")
        assert (status, image) == (200, held.png(4))
        told = [
            ask(server, "/")[1],
            json.dumps(ask(server, "/next", {"participant": "p3"})[1]).encode(),
        ]
        assert not any(b"SECRET" in each for each in told)
    found = study.read(path)
    assert [(a.participant, a.stimulus) for a in found] == [
        (who, i) for number, who in enumerate(("p1", "p2")) for i in held.order(number)
    ]
    of_one = [a for a in found if a.participant == "p1"]
    assert {a.stimulus: a.correct for a in of_one} == {
        i: None if i == 4 else i < 2 for i in held.order(0)
    }
    assert all(a.answer == OPTIONS[0] and a.seconds == 1.5 for a in of_one)


def test_requests_of_other_sites_and_nonsense_are_refused(held, tmp_path):
    right = {"participant": "p", "stimulus": held.order(0)[0], "answer": "dog", "seconds": 1.0}
    with study.serve(held, tmp_path / "a.jsonl") as server:
        assert ask(server, "/", Host="evil.example")[0] == 403
        assert ask(server, "/answer", right, **{"Content-Type": "text/plain"})[0] == 415
        assert ask(server, "/answer", right)[0] == 400  # before the stimulus was asked for
        ask(server, "/next", {"participant": "p"})
        hidden = next(i for i in range(5) if i not in held.order(0))
        for change in (
            {"answer": "cow"}, {"stimulus": hidden}, {"stimulus": 99}, {"stimulus": True}, {"seconds": "1"},
            {"seconds": -1}, {"seconds": float("nan")}, {"seconds": 10**400}, {"participant": ""},
            {"participant": "a" * 65}, {"participant": "a\nb"},
        ):  # fmt: skip
            assert ask(server, "/answer", {**right, **change})[0] == 400, change
        assert ask(server, "/answer", b"{")[0] == 400
        assert ask(server, "/answer", [1])[0] == 400
        assert ask(server, "/answer", b" " * 70000)[0] == 413
        for path in ("/stimulus/5.png", "/stimulus/../a.jsonl", "/a.jsonl", "/stimulus/x.png"):
            assert ask(server, path)[0] == 404
        assert ask(server, "/answer", right)[0] == 200
    assert len(study.read(tmp_path / "a.jsonl")) == 1


def test_many_at_once(held, tmp_path):
    with (
        study.serve(held, tmp_path / "a.jsonl") as server,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda i: answer_all(server, f"p{i}"), range(12)))
    found = study.read(tmp_path / "a.jsonl")
    assert len(found) == 36
    of_groups = [[a.condition for a in found if a.group == f"photo {i}"] for i in (0, 1)]
    assert [each.count("SECRET one") for each in of_groups] == [6, 6]


# The file


def test_nothing_confirmed_is_lost_when_killed(held, tmp_path):
    path = tmp_path / "a.jsonl"
    script = textwrap.dedent("""
        import sys, numpy as np
        sys.path.insert(0, sys.argv[2])
        from test_study import OPTIONS, picture
        from jaxlrp import study
        held = study.Study([study.Stimulus(picture(i), OPTIONS) for i in range(40)])
        server = study.serve(held, sys.argv[1])
        print(server.url, flush=True)
        server.wait()
    """)
    command = [sys.executable, "-c", script, str(path), os.path.dirname(__file__)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        class At:
            pass

        server = At()
        server.url = url
        for done in range(5):
            found = ask(server, "/next", {"participant": "p"})[1]
            sent = {
                "participant": "p",
                "stimulus": found["stimulus"],
                "answer": "dog",
                "seconds": done,
            }
            assert ask(server, "/answer", sent)[0] == 200
        process.send_signal(signal.SIGKILL)
    assert [a.seconds for a in study.read(path)] == [0, 1, 2, 3, 4]
    with path.open("ab") as file:
        file.write(b'{"kind": "answer", "particip')  # a line that the kill cut off
    assert len(study.read(path)) == 5
    same = study.Study([study.Stimulus(picture(i), OPTIONS) for i in range(40)])
    with study.serve(same, path, resume=True) as server:
        assert ask(server, "/next", {"participant": "p"})[1]["done"] == 5
        rest = answer_all_from(server, "p", 5)
    assert len(study.read(path)) == 40
    assert sorted(a.stimulus for a in study.read(path)) == list(range(40))
    assert len(rest) == 35


def answer_all_from(server, who, done):
    seen = []
    while (found := ask(server, "/next", {"participant": who})[1])["stimulus"] is not None:
        assert found["done"] == done + len(seen)
        seen.append(found["stimulus"])
        ask(
            server,
            "/answer",
            {"participant": who, "stimulus": seen[-1], "answer": "dog", "seconds": 1},
        )
    return seen


def test_files_are_not_overwritten_and_not_mixed(held, tmp_path):
    path = tmp_path / "a.jsonl"
    with study.serve(held, path) as server:
        answer_all(server, "p")
        with pytest.raises(StoreError, match="another server"):
            study.serve(held, path, resume=True)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="resume=True"):
        study.serve(held, path)
    other = study.Study(held.stimuli[:1])
    with pytest.raises(DifferentRunError, match="another study, 'A & B'"):
        study.serve(other, path, resume=True)
    assert path.read_bytes() == before
    lines = before.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"nonsense\n", *lines[2:]]))
    with pytest.raises(StoreError, match="line 3"):
        study.serve(held, path, resume=True)
    with pytest.raises(StoreError, match="line 3"):
        study.read(path)
    path.write_bytes(lines[0][:10])  # killed while the first line was written
    with study.serve(held, path, resume=True) as server:
        answer_all(server, "q")
    assert len(study.read(path)) == 3


def test_serve_refuses(held, tmp_path):
    with pytest.raises(TypeError, match=r"study must be a study\.Study"):
        study.serve(held.stimuli, tmp_path / "a")
    with pytest.raises(ValueError, match="port"):
        study.serve(held, tmp_path / "a", port=-1)
    assert not (tmp_path / "a").exists()


def test_summary_averages_over_participants():
    def said(who, condition, right, seconds=1.0):
        return study.Answer(who, 0, condition, None, "dog", right, seconds, 0.0)

    found = study.summary(
        [said("a", "x", True, 1.0), said("a", "x", True, 2.0), said("a", "x", False, 30.0),
         said("b", "x", False, 4.0), said("b", "y", True), said("b", "z", None)]
    )  # fmt: skip
    assert found.conditions == ("x", "y", "z")
    assert found.participants == (2, 1, 1)
    assert found.answers == (4, 1, 1)
    np.testing.assert_allclose(found.correct, [1 / 3, 1.0, np.nan])
    # shares 2/3 and 0: deviation sqrt(2)/3, over sqrt(2)
    np.testing.assert_allclose(found.interval, [1.96 / 3, np.nan, np.nan])
    assert found.seconds == (3.0, 1.0, 1.0)
    assert "| x | 2 | 4 | 0.333 ± 0.653 | 3.0 |" in str(found)
    with pytest.raises(ValueError, match="nobody"):
        study.summary([])


# In a browser


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="chromium and chromedriver are not installed",
)
def test_in_chromium(held, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/c"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    path, server = tmp_path / "a.jsonl", study.serve(held, tmp_path / "a.jsonl")

    def shown(name):
        return driver.find_element(By.ID, name).is_displayed()

    def wait(condition):
        WebDriverWait(driver, 20, 0.05).until(lambda _: condition())

    def pick(place):
        wait(lambda: shown("trial"))
        question = driver.find_element(By.ID, "progress").text
        buttons = driver.find_elements(By.CSS_SELECTOR, "#options button")
        assert [b.text for b in buttons] == OPTIONS  # as text, not as HTML
        size = driver.execute_script(
            "let i = document.getElementById('image'); return i.naturalWidth"
        )
        assert size == 7
        buttons[place].click()
        return question

    try:
        driver.get(server.url)
        wait(lambda: shown("start"))
        assert driver.title == "A & B"
        driver.find_element(By.ID, "participant").send_keys("p1")
        driver.find_element(By.CSS_SELECTOR, "#start button").click()
        assert pick(0) == "1 of 3"
        wait(lambda: len(study.read(path)) == 1)
        wait(lambda: shown("trial") and driver.find_element(By.ID, "progress").text == "2 of 3")
        # The server stops while the page is open: the answer is sent until it is back.
        port = urllib.parse.urlsplit(server.url).port
        server.close()
        assert pick(1) == "2 of 3"
        wait(lambda: "sent again" in driver.find_element(By.ID, "problem").text)
        server = study.serve(held, path, port=port, resume=True)
        wait(lambda: len(study.read(path)) == 2)
        wait(lambda: shown("trial") and driver.find_element(By.ID, "progress").text == "3 of 3")
        driver.refresh()  # whoever enters the code again continues
        wait(lambda: shown("start"))
        driver.find_element(By.ID, "participant").send_keys("p1")
        driver.find_element(By.CSS_SELECTOR, "#start button").click()
        assert pick(0) == "3 of 3"
        wait(lambda: shown("end"))
    finally:
        driver.quit()
        server.close()
    found = study.read(path)
    assert [a.stimulus for a in found] == held.order(0)
    assert [a.answer for a in found] == [OPTIONS[0], OPTIONS[1], OPTIONS[0]]
    assert all(0 < a.seconds < 30 for a in found)
    assert list(itertools.pairwise(a.time for a in found))
