"""A headless Chromium over its debugging socket: what a page logs, how wide it is."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
_LIMIT_S = 60


def find_chromium():
    """Return the path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page of a running Chromium; `logged` collects what its console and loader complain of."""

    def __init__(self, socket):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers, self._events, self.logged = {}, set(), []

    async def call(self, method, **parameters):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while number not in self._answers:
            await self._receive()
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url, width, height, dark):
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        await self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            await self._receive()

    async def evaluate(self, expression):
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press_tab(self):
        key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, **key)

    async def _receive(self):
        message = await self._socket.receive_json(timeout=_LIMIT_S)
        if "id" in message:
            self._answers[message["id"]] = message
            return
        self._events.add(message["method"])
        if message["method"] == "Log.entryAdded":
            self.logged.append(message["params"]["entry"]["text"])
        if message["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.logged.append(str(message["params"]))


@contextlib.asynccontextmanager
async def open_tab(binary, profile):
    """Start a Chromium with a profile of its own, yield a tab, and end what was started."""
    process = await asyncio.create_subprocess_exec(
        binary, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        address = await asyncio.wait_for(_read_address(process.stderr), _LIMIT_S)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json/list") as answer:
                pages = await answer.json()
            (page,) = [each for each in pages if each["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for part in ("Page", "Runtime", "Log"):
                    await tab.call(f"{part}.enable")
                yield tab
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read_address(stream):
    said = []
    while line := (await stream.readline()).decode("utf-8", "replace"):
        said.append(line)
        if "DevTools listening on ws://" in line:
            return line.split("ws://")[1].split("/")[0]
    raise AssertionError("Chromium ended before it listened:\n" + "".join(said))
