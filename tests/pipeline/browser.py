"""A real browser without a window and without a network, told what to do over a pipe by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS = 60.0
# Only tests look at pages, so builds do not ask for it (requirements/host.txt).
PACKAGE = "chromium"


def program() -> str:
    """The path of Debian's Chromium, installed where it is missing."""
    if not shutil.which(PACKAGE):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        words = ["apt-get", "-q", "-y", "--no-install-recommends"]
        # The second one decides: lists that could not be renewed may be new enough.
        subprocess.run([*words, "update"], env=environment, capture_output=True, timeout=300, check=False)
        done = subprocess.run(
            [*words, "install", PACKAGE], env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"apt-get install {PACKAGE}:\n{done.stdout}\n{done.stderr}"
    found = shutil.which(PACKAGE)
    assert found
    return found


class Browser:
    """One page of a browser under way. events: all that it told of its own, method and parameters."""

    def __init__(self, to: int, answers: int, log: Path) -> None:
        self._to, self._from, self._log = to, answers, log
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"the browser does not answer:\n{self._said()}"
            data = os.read(self._from, 1 << 20)
            assert data, f"the browser has ended:\n{self._said()}"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def open(self, url: str, width: int, height: int, *, scheme: str = "light", media: str = "") -> None:
        """Show a page in a window of that size (CSS pixels), and wait until it is loaded.

        scheme: the colours that the user prefers. media: "print" to see it as a printer would.
        """
        self.events.clear()
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """The URLs that were asked for since the page was opened; those of data in the page itself left out."""
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What it wrote to its console since the page was opened: errors and warnings of any kind."""
        told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.events if e["method"] in told]

    def picture(self, target: Path, *, whole: bool = True) -> Path:
        """Write a PNG of the page, whole: beyond the window too; returns target."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(base64.b64decode(data))
        return target


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile folder of its own, which cannot reach anything but files; gone after the block."""
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    words = [program(), "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    words += ["--disable-dev-shm-usage", "--disable-extensions", "--disable-component-update", "--hide-scrollbars"]
    words += [f"--user-data-dir={profile}", "about:blank"]
    # DevTools reads from descriptor 3 and writes to 4 (and dash knows none above 9); --kill-child ends what is left in
    # the namespace.
    inner = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--", "bash", "-c", inner, "bash", *words]
    log = profile.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, pass_fds=(their_in, their_out)
        )
    os.close(their_in)
    os.close(their_out)
    try:
        yield Browser(our_out, our_in, log)
    finally:
        process.kill()
        process.wait()
        for end in (our_out, our_in):
            with suppress(OSError):
                os.close(end)
