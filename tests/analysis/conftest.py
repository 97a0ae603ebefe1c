"""Rows whose best magnitude is known, and a browser that opens pages."""

import base64
import fcntl
import itertools
import json
import os
import random
import select
import shutil
import subprocess
import time

import pandas as pd
import pytest

from analysis import checks, columns

MAGNITUDES = ("none", 0.2, 0.5, 0.8)


def planted_frame(curves=None, seeds=3, spread=0.01, seed=0, magnitudes=MAGNITUDES, **constant):
    """`curves[width]` is the mean accuracy at each magnitude; `spread` is that of both splits."""
    chance = random.Random(seed)
    curves = curves or {0.5: (0.80, 0.82, 0.78, 0.70), 2.0: (0.85, 0.87, 0.90, 0.88)}
    made = [
        {
            "grid": "planted",
            "trial": f"{width}-{magnitude}-{s}",
            "state": "done",
            "family": "cifar_resnet",
            "width": width,
            "sparsity": 0.0,
            "magnitude": magnitude,
            "seed": s,
            "params_nonzero": 1000 * width,
            "val_top1": round(mean + chance.gauss(0, spread), 4),
            "test_top1": round(mean - 0.01 + chance.gauss(0, spread), 4),
            "engine": "deepspeed",
            "code": "abc",
            **constant,
        }
        for width, means in curves.items()
        for magnitude, mean in zip(magnitudes, means, strict=True)
        for s in range(seeds)
    ]
    return checks.check(pd.DataFrame(made), "planted")


@pytest.fixture(scope="session")
def every_column():
    """A value for each column of a sweep's rows, of a kind that it has."""
    numbers = (*columns.RANGES, "depth", "batch_size", "lr", "weight_decay", "label_smoothing",
               "train_size", "zero_stage", "world_size", "micro_batch_size", "threads")  # fmt: skip
    planted = set(planted_frame({1.0: (0.8,)}, magnitudes=(0.2,), seeds=1).columns)
    words = {name: 0.5 if name in numbers else "word" for name in columns.COLUMNS}
    return {name: value for name, value in words.items() if name not in planted} | {
        "flags": "", "why": None, "dense_long": None, "calibrated": False, "schedule": "constant",
        "surplus": "none",
    }  # fmt: skip


@pytest.fixture(scope="session")
def planted():
    return planted_frame


@pytest.fixture(scope="session")
def with_noise():
    """(rows, NumPy generator, spread) -> the rows with more noise, checked once and for all."""

    def add(frame, chance, spread=0.01):
        scores = ("val_top1", "test_top1")
        return frame.assign(**{n: frame[n] + chance.normal(0, spread, len(frame)) for n in scores})

    return add


class Browser:
    """Headless Chromium, driven through a pipe by its DevTools protocol."""

    def __init__(self, profile):
        (read, there_out), (there_in, write) = os.pipe(), os.pipe()
        # the browser reads from 3 and writes to 4, so these descriptors must have other numbers
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (there_in, there_out)]
        os.close(there_in)
        os.close(there_out)
        chromium = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
            "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "bash", *chromium],
            pass_fds=high, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in high:
            os.close(fd)
        self.read, self.write, self.buffer = read, write, b""
        self.numbers, self.events, self.session = itertools.count(1), [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Return the answer to a command of the protocol; events that come before it are kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (message := self._message()).get("id") != number:
            self.events.append(message)
        assert "error" not in message, message["error"]
        return message["result"]

    def _message(self):
        deadline = time.monotonic() + 60
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser did not answer within 60 s"
            received = os.read(self.read, 1 << 20)
            assert received, "the browser has ended"
            self.buffer += received
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def open(self, path, scheme="light", width=1200):
        """Load a file and forget earlier events."""
        self.events.clear()
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def run(self, script):
        """Return the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code=0, text=""):
        """Press a key as a keyboard does."""
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def move(self, x, y):
        """Move the pointer to a place in pixels of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self):
        """Return the whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=300)
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    assert shutil.which("chromium"), "chromium is missing: make test-system installs it"
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.end()
