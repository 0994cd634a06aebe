"""
A headless Chromium, driven over its DevTools protocol through two pipes, with Python's standard library alone.

    with Browser("/usr/bin/chromium") as browser:
        page = browser.page("http://127.0.0.1:8010", width=1280, dark=True)
        page.js("document.title")
"""
import base64
import json
import os
import select
import subprocess
import tempfile
import time

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe"]


class Browser:
    def __init__(self, path):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read, self.out = os.pipe()
        self.inn, write = os.pipe()
        # Chromium reads commands from file 3 and answers in file 4
        command = f'exec 3<&{read} 4>&{write}; exec "$0" "$@"'
        self.process = subprocess.Popen(["bash", "-c", command, path, *FLAGS, f"--user-data-dir={self.folder.name}", "about:blank"],
                                        pass_fds=(read, write), stderr=subprocess.DEVNULL)
        os.close(read), os.close(write)
        self.number, self.buffer, self.events = 0, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.inn), os.close(self.out)
        self.folder.cleanup()

    def send(self, method, session=None, timeout=60, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            answer = self.receive(end - time.monotonic())
            if answer and answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer:
                self.events.append(answer)
        raise TimeoutError(method)

    def receive(self, timeout):
        while b"\0" not in self.buffer:
            if not select.select([self.inn], [], [], max(0, timeout))[0]:
                return None
            part = os.read(self.inn, 1 << 20)
            assert part, "the browser ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def page(self, url, width=1280, height=900, dark=False):
        return Page(self, url, width, height, dark)


class Page:
    def __init__(self, browser, url, width, height, dark):
        self.browser = browser
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.look(width, height, dark)
        self.send("Page.navigate", url=url)
        self.wait("location.protocol === 'http:' && document.readyState === 'complete'")

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def look(self, width, height=900, dark=False):
        self.send("Emulation.setScrollbarsHidden", hidden=True)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def js(self, code):
        found = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code, seconds=60):
        """until the expression is true"""
        end = time.monotonic() + seconds
        while not self.js(f"!!({code})"):
            assert time.monotonic() < end, f"never true: {code}; {self.js('document.body?.innerText') or ''}"
            time.sleep(.05)

    def mouse(self, kind, x, y, buttons=1):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if buttons else "none", buttons=buttons, clickCount=1)

    def middle(self, css):
        return self.js(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({css!r}).getBoundingClientRect())")

    def click(self, css):
        self.js(f"document.querySelector({css!r}).scrollIntoView({{block: 'center'}})")
        x, y = self.middle(css)
        self.mouse("mousePressed", x, y), self.mouse("mouseReleased", x, y)

    def drag(self, x0, y0, x1, y1):
        self.mouse("mouseMoved", x0, y0, 0), self.mouse("mousePressed", x0, y0)
        for k in range(1, 6):
            self.mouse("mouseMoved", x0 + (x1 - x0) * k / 5, y0 + (y1 - y0) * k / 5)
        self.mouse("mouseReleased", x1, y1)

    def key(self, key, text=""):
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, css, text):
        self.js(f"(e => {{ e.focus(); e.select() }})(document.querySelector({css!r}))")
        self.send("Input.insertText", text=text)

    def picture(self, path=None, whole=True, clip=None):
        """a PNG, as a file or as bytes; clip: x, y, width, height of a part, and scale"""
        self.js("Promise.all([...document.images].filter(i => i.src).map(i => i.decode())).then(() => "
                "new Promise(requestAnimationFrame))")
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **({"clip": clip} if clip else {}))["data"]
        return path.write_bytes(base64.b64decode(data)) if path else base64.b64decode(data)

    def complaints(self):
        """errors in the console and exceptions of scripts, of all pages"""
        self.js("1")
        found = []
        for e in self.browser.events:
            p = e.get("params", {})
            if e["method"] == "Runtime.exceptionThrown":
                found.append(str(p["exceptionDetails"])[:500])
            elif e["method"] == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert", "warning"):
                found.append(str(p["args"])[:500])
            elif e["method"] == "Log.entryAdded" and p["entry"]["level"] == "error":
                found.append(p["entry"]["text"])
        return found
