"""A headless Chromium that a test drives over a pipe, in the DevTools protocol."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable():
    """The path of a Chromium on this machine, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A page in the browser, and the problems that its console has reported."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._numbers = itertools.count(1)
        self._session = None
        self.problems = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send(message)
        while True:
            answer = self._receive()
            self._note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _note(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(parameters["exceptionDetails"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(parameters["entry"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.problems.append(parameters["args"])

    def evaluate(self, expression):
        """The value of a JavaScript expression, which may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, expression, seconds=60.0):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.1)

    def open(self, path, width, height=900):
        """Open a file at a size of the window, and wait until all of its charts are drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.readyState === 'complete'")
        self.wait_for("document.documentElement.classList.contains('drawn')")


@contextlib.contextmanager
def opened(profile):
    """A tab of a new browser whose profile is in the folder ``profile``."""
    to_browser, from_test = os.pipe()
    from_browser, to_test = os.pipe()
    arguments = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
        *("--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={profile}"),
        *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
    )
    # The browser reads file 3 and writes file 4.
    command = f'exec "$0" "$@" 3<&{to_browser} 4>&{to_test}'
    browser = subprocess.Popen(
        ["bash", "-c", command, executable(), *arguments],
        pass_fds=(to_browser, to_test),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(to_test)
    with open(from_test, "wb", buffering=0) as writing, open(from_browser, "rb") as reading:
        waiting = []

        def send(message):
            writing.write(json.dumps(message).encode() + b"\0")

        def receive():
            while not waiting:
                content = reading.read1(2**20)
                assert content, "the browser has ended"
                *messages, rest = (waiting_bytes.pop() + content).split(b"\0")
                waiting_bytes.append(rest)
                waiting.extend(messages)
            return json.loads(waiting.pop(0))

        waiting_bytes = [b""]
        try:
            yield Tab(send, receive)
        finally:
            browser.kill()
            browser.wait()
