"""A browser tab with the few things that tests of the viewer do and look at."""

from __future__ import annotations

import json
import math
import re
import time

import numpy as np

from tests.browser.site import Site, decode_png

CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-gpu", "--force-color-profile=srgb",
]  # fmt: skip
WATCH_POLICY = "addEventListener('securitypolicyviolation', (event) => console.error('CSP ' + event.violatedDirective))"


class Tab:
    """One page in a context of its own; `size` is that of the stage's window."""

    def __init__(self, browser, site: Site, size=(1000, 700), density=1, motion="reduce"):
        self.site = site
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=density, reduced_motion=motion
        )
        context.set_default_timeout(30_000)
        self.page = context.new_page()
        self.page.add_init_script(WATCH_POLICY)
        self.density = density
        self.complaints: list[str] = []
        """Console errors and warnings and uncaught exceptions; a test that provokes some says so by `provoked`."""
        self.overlooked: set[str] = set()
        self.strays: list[str] = []
        """Requests to other servers."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: None if self._is_ours(request.url) else self.strays.append(request.url))

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location.get('url', '')}")

    def _is_ours(self, url: str) -> bool:
        return url.startswith((self.site.url + "/", "data:", f"blob:{self.site.url}/"))

    def check(self):
        """Nothing was complained about, nothing left the server; both start anew."""
        complaints = [line for line in self.complaints if not any(word in line for word in self.overlooked)]
        strays = self.strays[:]
        self.complaints.clear()
        self.overlooked.clear()
        self.strays.clear()
        assert complaints == []
        assert strays == []

    def overlook(self, *words: str):
        """Up to the next `check`, complaints that hold one of the words do not count."""
        self.overlooked.update(words)

    def provoked(self, *words: str):
        """Wait for a complaint with each of the words, then `overlook` them.

        The console's word of an answer comes by another way than the page's own; it may come after it, and again.
        """
        for word in words:
            self.until(lambda word=word: any(word in line for line in self.complaints), f"a complaint of “{word}”")
        self.overlook(*words)

    # -- doing -----------------------------------------------------------------------------------------------------

    def view(self, slide_id: str, fragment: str = "", ready: bool = True) -> Tab:
        """Open a slide's viewer at a fragment, by default until everything is loaded."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.site.url}/slides/{slide_id}{fragment}")
        return self.settle() if ready else self

    def go(self, fragment: str) -> Tab:
        """Change the fragment of the open viewer, as by hand."""
        self.page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
        return self.settle()

    def press(self, *keys: str, settle: bool = True) -> Tab:
        for key in keys:
            self.page.keyboard.press(key)
        return self.settle() if settle else self

    def settle(self) -> Tab:
        """Wait until the view rests and every tile and feature it needs is drawn."""
        self.page.locator("#opening").wait_for(state="hidden")
        self.frames()
        self.page.locator("#stage[aria-busy=false]").wait_for()
        self.page.locator(".marks[data-drawn=true]").wait_for(state="attached")
        self.frames()
        return self

    def frames(self, count: int = 6):
        """Let the page draw some frames and its short timers run."""
        self.page.evaluate(
            """(count) => new Promise((resolve) => {
                 const next = () => (count-- > 0 ? requestAnimationFrame(next) : setTimeout(resolve, 30));
                 next();
               })""",
            count,
        )

    def until(self, question, what: str, seconds: float = 20):
        """Wait for `question()` to be true."""
        end = time.monotonic() + seconds
        while not question():
            assert time.monotonic() < end, f"waited in vain: {what}"
            self.page.wait_for_timeout(50)

    def module(self, name: str, body: str, *arguments):
        """Value of a function body in which `m` is one of our modules and `a` the arguments."""
        return self.page.evaluate(
            f"async (a) => {{ const m = await import('/static/js/{name}.js'); {body} }}", list(arguments)
        )

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def badge(self) -> str | None:
        """Text of the badge, None when it is not shown."""
        badge = self.page.locator("#badge")
        return badge.inner_text() if badge.is_visible() else None

    @property
    def magnification(self) -> str:
        return self.page.locator("#magnification").inner_text()

    @property
    def source(self) -> str:
        return self.page.locator("#sources input:checked").get_attribute("value")

    @property
    def state(self) -> dict[str, str]:
        """The fragment's values, once it is written."""
        self.page.wait_for_timeout(400)
        return dict(re.findall(r"(\w)=([^&]*)", self.page.url.partition("#")[2]))

    @property
    def stage(self) -> dict[str, float]:
        return self.page.locator("#stage").bounding_box()

    def pixels(self, half_width: int = 150, half_height: int = 150) -> np.ndarray:
        """RGB pixels around the middle of the stage, where nothing lies over the slide; sizes in CSS pixels."""
        box = self.stage
        middle_x, middle_y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        clip = {
            "x": middle_x - half_width,
            "y": middle_y - half_height,
            "width": 2 * half_width,
            "height": 2 * half_height,
        }
        return decode_png(self.page.screenshot(clip=clip))

    def to_screen(self, points, view: dict[str, str]) -> np.ndarray:
        """Base-plane points as pixels of a screenshot `pixels()` gives, by arithmetic of the test's own."""
        turn = math.radians(float(view.get("r", 0)))
        x, y = (np.array(points, float) - [float(view["x"]), float(view["y"])]).T * float(view["z"])
        turned = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], -1)
        if view.get("m") == "1":
            turned[:, 0] *= -1
        return turned * self.density


def api_json(tab: Tab, change):
    """Serve every slide card as `change` makes it of the real one."""

    def answer(route):
        card = route.fetch().json()
        change(card)
        route.fulfill(body=json.dumps(card), content_type="application/json")

    tab.page.route("**/api/slides/*", answer)
