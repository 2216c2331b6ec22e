"""A few lines of the Chrome DevTools protocol over pipes: no driver and no package needed."""

import base64
import fcntl
import json
import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


def find():
    """Path of a Chromium on this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A headless Chromium with one page; a context manager.

    `problems` collects console errors, uncaught exceptions, and requests beyond file: and data:.
    """

    def __init__(self, profile):
        self.problems, self._serial, self._pending, self._seen = [], 0, b"", set()
        to_browser, from_browser = os.pipe(), os.pipe()

        def wire():
            # the browser reads commands from descriptor 3 and answers on 4; copies beyond all
            # numbers in use first, because one of the two may itself be number 3 or 4
            spare = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (to_browser[0], from_browser[1])]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self._process = subprocess.Popen(
            [find(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=wire,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        self._out, self._in = to_browser[1], from_browser[0]
        self._session = None
        pages = []
        while not pages:  # a slow machine answers before the page is there
            targets = self.call("Target.getTargets")["targetInfos"]
            pages = [target["targetId"] for target in targets if target["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=pages[0], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(200)
        os.close(self._out)
        os.close(self._in)

    def call(self, method, **params):
        """Send a command and return its result."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._serial:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def wait_for(self, event):
        """Read until `event` arrives, if it has not since `_seen` was emptied."""
        while event not in self._seen:
            self._read()

    def _read(self):
        while b"\0" not in self._pending:
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError("Chromium closed the connection")
            self._pending += chunk
        raw, _, self._pending = self._pending.partition(b"\0")
        message = json.loads(raw)
        self._seen.add(message.get("method"))
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(str(params["args"]))
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.problems.append(f"request to {url}")

    def open(self, path, width=1280, height=900, scheme="light"):
        """Load a file at a viewport of CSS pixels in a colour scheme and wait until it is there."""
        phone = width < 500
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._seen.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        while self.evaluate("document.readyState") != "complete":  # the event was the page's before
            pass

    def evaluate(self, script):
        """Value of a JavaScript expression (JSON types; promises are awaited)."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, path, top=0, height=None, left=0, width=None):
        """PNG of a part of the page in CSS pixels (no height: the window; no width: all of it)."""
        options = {}
        if height is not None:
            width = width or self.evaluate("innerWidth")
            options = {"clip": {"x": left, "y": top, "width": width, "height": height, "scale": 1}}
            options["captureBeyondViewport"] = True
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def pdf(self, path):
        """Print to A4."""
        data = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)[
            "data"
        ]
        path.write_bytes(base64.b64decode(data))
