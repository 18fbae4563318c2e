"""An exported project in ViRelAy's own page, in Chromium: pytest -m browser.

Needs ``apt-get install chromium chromium-driver`` and ``pip install selenium``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import jax
import numpy as np
import pytest

from jaxlrp import spray
from jaxlrp.virelay import export_virelay

import virelay_projects as projects
from virelay_projects import analysis, arguments, attribution

pytest.importorskip("virelay", reason="ViRelAy is not installed (extra: test)")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="chromium and chromedriver are not installed",
    ),
    # Selenium's own, of connections that it closes late.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1600,1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in [*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.implicitly_wait(15)
    yield driver
    driver.quit()


@pytest.fixture
def serve():
    """Starts ViRelAy on a free port."""
    started = []

    def start(files) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "virelay",
            "-H",
            "127.0.0.1",
            "-p",
            str(port),
            *map(str, files),
        ]
        environment = {**os.environ, "BROWSER": "true"}  # it opens a browser of its own
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        address = f"http://127.0.0.1:{port}"
        for _ in range(150):
            try:
                urllib.request.urlopen(f"{address}/api/projects").close()
                return address
            except OSError:
                time.sleep(0.2)
        raise TimeoutError("ViRelAy did not start in 30 s")

    yield start
    for process in started:
        process.terminate()
        process.wait()


def texts(browser, css: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", css)]


def button(browser, text: str):
    return browser.find_element(
        "xpath", f"//button[contains(., '{text}')] | //label[contains(., '{text}')]"
    )


def severe(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def wait_for(condition) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("not so after 10 s")


def test_a_person_sees_clusters_and_pictures(tmp_path, browser, serve):
    part = [
        attribution(method="z+"),
        attribution(method="gradient", analyses={"other": [analysis(1)]}),
    ]
    files = export_virelay(tmp_path / "p", **arguments(attributions=part, name="Shop"))
    address = serve(files)
    browser.get(f"{address}/projects/0?embedding=spectral")
    wait_for(lambda: "Eigenvalues" in browser.page_source)
    page = browser.find_element("css selector", "body").text
    for shown in ("Shop (z+)", "Shop (gradient)", "CLUSTER 1 (3)", "CLUSTER 2 (2)"):
        assert shown in page
    choices = " ".join(texts(browser, "select"))
    for shown in (
        "spray-abs",
        "other",
        "Bag",
        "T-shirt/top (T-shirt_top)",
        "kmeans-2",
        "dbscan",
        "tsne",
    ):
        assert shown in choices

    # The smallest eigenvalue is drawn first.
    bars = browser.execute_script("return document.querySelector('.js-plotly-plot').data[0]")
    assert dict(zip(bars["x"], bars["y"], strict=True)) == {0: 0.0, 1: 0.125, 2: 0.5, 3: 0.75}

    button(browser, "Cluster 1").click()
    for mode in ("Overlay", "Attribution", "Input"):
        button(browser, mode).click()
        time.sleep(0.5)
        wait_for(lambda: browser.find_elements("css selector", "img[src*='/api/projects/0/']"))
        loaded = browser.execute_script(
            "return [...document.querySelectorAll(\"img[src*='/api/projects/0/']\")]"
            ".map(i => [i.complete, i.naturalWidth, i.naturalHeight])"
        )
        assert loaded == [[True, projects.W, projects.H]] * 3
    browser.save_screenshot(str(tmp_path / "screen.png"))
    canvas = browser.find_element("css selector", "canvas").screenshot_as_png
    assert len(canvas) > 1000
    assert severe(browser) == []


def test_the_page_needs_an_analysis(tmp_path, browser, serve):
    """Why `export_virelay` refuses attributions without one."""
    (file,) = export_virelay(tmp_path / "p", **arguments())
    text = file.read_text()
    file.write_text(text[: text.index("  analyses:")])
    browser.get(f"{serve([file])}/projects/0")
    wait_for(lambda: "Loading the Project Failed" in browser.page_source)


def test_numbers_of_clusters(tmp_path, browser, serve):
    """The page counts clusters from 1, so that noise, -1, is its cluster 0."""
    files = export_virelay(tmp_path / "p", **arguments())
    browser.get(f"{serve(files)}/projects/0?clustering=dbscan")
    wait_for(lambda: "CLUSTER 0" in browser.find_element("css selector", "body").text)
    labels = analysis(1).clusterings["dbscan"].labels
    expected = [
        f"CLUSTER {k + 1} ({n})"
        for k, n in zip(*np.unique(labels, return_counts=True), strict=True)
    ]
    page = browser.find_element("css selector", "body").text
    assert [shown for shown in expected if shown not in page] == []


def test_a_class_of_one_sample_is_shown(tmp_path, browser, serve):
    labels = np.array([0] + [1] * (projects.N - 1))
    found = spray.analyze(
        projects.relevance(1)[..., 0], labels, key=jax.random.key(0),
        settings=spray.Settings(views={"pca": spray.PCA()}),
    )  # fmt: skip
    part = attribution(relevance=projects.relevance(1), analyses={"spray": found})
    files = export_virelay(tmp_path / "p", **arguments(labels=labels, attributions=part))
    address = serve(files)
    for embedding in ("spectral", "pca"):
        browser.get(f"{address}/projects/0?embedding={embedding}")
        wait_for(lambda: "CLUSTER 1 (1)" in browser.find_element("css selector", "body").text)
        button(browser, "Cluster 1").click()
        wait_for(lambda: browser.find_elements("css selector", "img[src*='/api/projects/0/']"))
        browser.save_screenshot(str(tmp_path / f"{embedding}.png"))
    assert severe(browser) == []
