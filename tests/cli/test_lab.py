"""`course lab` starts the real JupyterLab, prints its address, and serves the lesson there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


@pytest.fixture
def jupyterlab(tmp_path):
    """The address, with its token, that a started `course lab 02` prints."""
    env = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "BROWSER")}
    env |= {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    server = subprocess.Popen(
        [sys.executable, "-m", "course_utils.cli", "lab", "02", "--", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,
    )
    assert server.stdout is not None
    said = []
    try:
        for line in server.stdout:  # ends with the process: a server that dies cannot hang this
            said.append(line)
            found = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\S*token=\w+", line)
            if found:
                yield found.group()
                return
        pytest.fail("JupyterLab stopped without printing an address:\n" + "".join(said))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def get(address: str, tries: int = 200) -> bytes:
    """What the server answers; it prints its address a moment before it listens there."""
    # No proxy: the server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for left in reversed(range(tries)):
        try:
            with opener.open(address, timeout=60) as answer:
                return answer.read()
        except urllib.error.URLError as error:
            if not left or not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise AssertionError


@pytest.mark.slow
def test_lab_prints_an_address_that_serves_the_lesson(jupyterlab):
    assert "/lab/tree/lessons/02_mnist_cnn.ipynb" in jupyterlab
    assert b"JupyterLab" in get(jupyterlab)
    base, token = re.match(r"(http://[^/]+)/.*token=(\w+)", jupyterlab).groups()
    lesson = json.loads(get(f"{base}/api/contents/lessons/02_mnist_cnn.ipynb?token={token}"))
    assert lesson["content"]["metadata"]["course"]["lesson"] == "02"
    kernels = json.loads(get(f"{base}/api/kernelspecs?token={token}"))
    assert kernels["default"] == "python3"
    asked = f"{base}/lab/api/settings/@jupyterlab/apputils-extension:notification?token={token}"
    news = json.loads(get(asked))["schema"]["properties"]["fetchNews"]["default"]
    assert news == "false"  # otherwise a pop-up asks about it before the first lesson
