"""The viewer as its users meet it: address, keys, scale bar, layers, words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.browser.site import EVIL
from tests.browser.tab import api_json

NAME_OF_FOCUS = """() => {
  const focused = document.activeElement;
  return (focused.closest("label") ?? focused).textContent.trim() || focused.getAttribute("aria-label");
}"""


def scale_bar(tab) -> tuple[str, float]:
    """Label and width in CSS pixels between the outer edges of the bar's ends."""
    bar = tab.page.locator("#scalebar")
    return bar.inner_text(), bar.bounding_box()["width"]


@pytest.mark.parametrize(
    ("z", "label", "pixels"), [(0.1, "200 µm", 80), (0.5, "50 µm", 100), (1, "20 µm", 80), (4, "10 µm", 160)]
)
def test_scale_bar_is_right_at_every_zoom(tab, site, z, label, pixels):
    """The base plane has 0.25 µm per pixel, so a pixel of the screen is 0.25 / z µm."""
    text, width = scale_bar(tab.view(site.liver, f"#x=2200&y=1200&z={z}&l=none&s=stored"))
    assert text == label
    assert width == pytest.approx(pixels, abs=0.1)


def test_no_scale_bar_and_no_magnification_without_a_pixel_size(open_tab, site):
    tab = open_tab()

    def forget(card):
        card["objective_power"] = card["base"]["mpp"] = card["stored"]["mpp"] = None

    api_json(tab, forget)
    tab.view(site.liver, "#x=2200&y=1200&z=0.25&l=none")
    assert not tab.page.locator("#scalebar").is_visible()
    assert tab.magnification == "0.5 : 1 · stored"
    tab.press("i", settle=False)
    assert "µm/px unknown" in tab.page.locator("#facts").inner_text()


def test_the_address_brings_back_the_same_view(open_tab, site):
    tab = open_tab().view(site.liver)
    tab.press("4", "r", "x", "Shift+ArrowRight", "ArrowUp", "s", ".", "l")
    tab.page.get_by_role("checkbox", name="Nucleus").uncheck()
    tab.page.get_by_label("Opacity of Drawn by hand").fill("85")
    tab.page.keyboard.press("l")
    tab.settle()
    before = tab.state
    assert {"r": "85", "m": "1", "s": "stored", "o": "0.85"}.items() <= before.items()
    assert before["h"].endswith("+Nucleus")
    again = open_tab().view(site.liver, "#" + tab.page.url.partition("#")[2])
    assert again.state == before
    assert np.abs(again.pixels(300, 250).astype(int) - tab.pixels(300, 250)).max() <= 2
    again.press("l", settle=False)
    assert again.page.get_by_role("checkbox", name="Nucleus").is_checked() is False


def test_an_edited_address_is_followed(tab, site):
    tab.view(site.liver, "#x=2200&y=1200&z=0.5&l=none")
    tab.go("#x=1000&y=900&z=0.25&r=180&s=bicubic&l=none")
    assert (tab.magnification, tab.source) == ("×10 · stored", "bicubic")
    assert tab.state == {"x": "1000", "y": "900", "z": "0.25", "r": "180", "s": "bicubic", "l": ""}


@pytest.mark.parametrize(
    "nonsense", ["#x=1&y=2", "#x=a&y=b&z=c", "#z=-1&x=0&y=0", "#s=%3Cscript%3E&l=nope&h=x&o=7&r=NaN"]
)
def test_a_senseless_address_shows_the_whole_slide(tab, site, nonsense):
    tab.view(site.liver, nonsense)
    view = tab.state
    assert float(view["x"]) == pytest.approx(4611 / 2, abs=4)
    assert float(view["z"]) == pytest.approx(0.96 * tab.stage["height"] / 5001, rel=1e-3)


@pytest.mark.parametrize(("keys", "words"), [
    (["5"], "×20"), (["6"], "×40"), (["7"], "×80"), (["4"], "×10"), (["4", "+"], "×15"), (["4", "-"], "×6.67"),
])  # fmt: skip
def test_zoom_keys(tab, site, keys, words):
    tab.view(site.liver, "#l=none&s=stored").press(*keys)
    assert tab.magnification.split(" ")[0] == words


def test_zooming_out_ends_at_half_of_what_fits(tab, site):
    tab.view(site.liver, "#l=none&s=stored").press("1")
    assert float(tab.state["z"]) == pytest.approx(tab.stage["height"] / 5001 / 2, rel=1e-3)


@pytest.mark.parametrize(("turn", "key", "moved"), [
    ("", "ArrowRight", (160, 0)), ("", "ArrowUp", (0, -160)), ("&r=90", "ArrowRight", (0, -160)),
    ("&m=1", "ArrowRight", (-160, 0)),
    ("&r=90&m=1", "ArrowDown", (160, 0)),
])  # fmt: skip
def test_arrow_keys_pan_as_the_screen_sees_it(tab, site, turn, key, moved):
    """80 CSS pixels at ×20 are 160 pixels of the base plane."""
    tab.view(site.liver, f"#x=2200&y=1600&z=0.5&l=none{turn}").press(key)
    view = tab.state
    assert (float(view["x"]) - 2200, float(view["y"]) - 1600) == pytest.approx(moved, abs=2)


def reached_by_tab(page, last: str) -> list[str]:
    """Names of what the Tab key comes to, up to `last`."""
    reached: list[str] = []
    while len(reached) < 40 and last not in reached:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(NAME_OF_FOCUS))
    return reached


def test_everything_is_reached_by_keyboard_alone(tab, site):
    page = tab.page
    page.goto(site.url)
    page.get_by_role("link", name="liver").wait_for()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "liver":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/slides/*")
    tab.settle()
    tab.press("?", settle=False)
    assert "next source of ×40 pixels" in page.locator("#help").inner_text()
    tab.press("Escape", settle=False)
    assert not page.locator("#help").is_visible()
    reached = reached_by_tab(page, "Full screen")
    assert {"All slides", "Layers", "Predict", "Compare", "Zoom in", "Full screen"} <= set(reached)
    tab.press("l", settle=False)
    reached = reached_by_tab(page, "Nucleus")
    assert {"Hide all", "Drawn by hand", "Export", "Gland", "Nucleus"} <= set(reached)
    page.keyboard.press("Space")
    assert page.get_by_role("checkbox", name="Nucleus").is_checked() is False
    tab.press("g", settle=False)
    page.wait_for_url(f"{site.url}/")


def test_every_tool_has_a_name_and_a_visible_focus(tab, site):
    tab.view(site.liver).press("l")
    nameless = "[...document.querySelectorAll('button')].filter((each) => !each.ariaLabel && !each.textContent.trim())"
    assert tab.page.evaluate(f"{nameless}.length") == 0
    tab.press("Escape", settle=False)
    tab.press("Tab", settle=False)
    assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_feature_says_its_class_and_area(tab, site):
    tab.view(site.liver, "#x=2700&y=1400&z=0.5&s=stored")
    tab.press("e", settle=False)
    reading = tab.page.locator("#reading")
    area = shoelace_um2()
    text = reading.inner_text()
    assert text.startswith("Gland")
    assert float(re.search(r"([\d.]+) mm²", text)[1]) == pytest.approx(area / 1e6, rel=0.01)
    tab.go("#x=2100&y=1700&z=0.5&s=stored").press("e", settle=False)
    assert reading.inner_text() == "No feature in the middle of the view", "the lumen is a hole"
    tab.go("#x=3360&y=860&z=1&s=stored")
    tab.until(lambda: tab.press("e").page.locator("#reading strong").count(), "the features of this view")
    assert reading.inner_text().startswith("Nucleus · 900 µm²\n")
    assert "Drawn by hand · " in reading.inner_text()
    tab.press("Escape", settle=False)
    assert not reading.is_visible()


def shoelace_um2() -> float:
    """Area of the gland less its lumen; 0.25 µm per pixel."""
    from tests.browser.site import GLAND

    x, y = np.array(GLAND).T
    return (abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2 - 400 * 400) * 0.25**2


def test_a_pointer_reads_the_feature_under_it(tab, site):
    tab.view(site.liver, "#x=3360&y=860&z=1&s=stored")
    box = tab.stage
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    reading = tab.page.locator("#reading")
    tab.page.mouse.move(*middle)
    reading.wait_for()
    assert reading.inner_text().startswith("Nucleus")
    tab.page.mouse.move(middle[0] + 75, middle[1])
    reading.wait_for(state="hidden")
    tab.page.mouse.click(*middle)
    tab.page.mouse.move(middle[0] + 200, middle[1])
    tab.frames()
    assert reading.is_visible(), "a click keeps it"


def test_classes_and_opacity_change_the_drawing(tab, site):
    tab.view(site.liver, "#x=3360&y=860&z=1&s=stored&o=1")
    drawn = tab.pixels(30, 30)
    tab.press("l", settle=False)
    tab.page.get_by_label("Opacity of Drawn by hand").fill("50")
    tab.settle()
    fainter = tab.pixels(30, 30)
    tab.page.get_by_role("checkbox", name="Nucleus").uncheck()
    bare = tab.settle().pixels(30, 30)
    tab.press("l", settle=False)
    strength = [np.abs(each.astype(int) - bare).mean() for each in (drawn, fainter, bare)]
    assert strength[0] > 1.7 * strength[1] > 0 == strength[2]


def test_names_with_markup_are_shown_as_text(tab, site):
    tab.view(site.evil).press("l", "i", settle=False)
    page = tab.page
    assert page.locator("#slide-name").inner_text() == EVIL
    assert page.title() == f"{EVIL} · Ocular"
    assert EVIL in page.locator("#facts").inner_text()
    assert page.locator(".layer-name").inner_text() == EVIL
    assert page.locator("#layers .class-name").inner_text() == EVIL
    page.keyboard.press("Escape")
    tab.press("e", settle=False)
    assert EVIL in page.locator("#reading").inner_text()
    page.goto(site.url)
    page.locator(".card").first.wait_for()
    assert EVIL in page.locator(".card-name").all_inner_texts()
    assert page.locator("img[src='nowhere']").count() == 0


def test_the_overview_shows_and_moves_the_view(tab, site):
    tab.view(site.liver, "#x=2200&y=1200&z=0.5&l=none")
    box = tab.page.locator("#navigator-canvas").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
    tab.settle()
    view = tab.state
    assert (float(view["x"]), float(view["y"])) == pytest.approx((4611 * 0.25, 5001 * 0.75), abs=30)
    tab.press("n", settle=False)
    assert not tab.page.locator("#navigator").is_visible()
    tab.press("n", settle=False)


def test_no_layout_moves_while_a_slide_is_used(tab, site):
    tab.view(site.liver)
    places = [tab.page.locator(name).bounding_box() for name in ("#stage", "#sources", ".toolbar", "#navigator")]
    tab.press("6", "l", "t", "s", "2", "e", "l", "t")
    assert [
        tab.page.locator(name).bounding_box() for name in ("#stage", "#sources", ".toolbar", "#navigator")
    ] == places


@pytest.mark.parametrize("size", [(360, 640), (640, 400), (1280, 800)])
def test_nothing_overflows_or_overlaps_at_any_width(open_tab, site, size):
    tab = open_tab(size=size).view(site.liver, "#x=2200&y=1200&z=1&s=sr-fake")
    page = tab.page
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == list(size)
    boxes = [
        page.locator(name).bounding_box()
        for name in (".toolbar", "#badge", ".readout", "#navigator")
        if page.locator(name).is_visible()
    ]
    for box in boxes:
        assert box["x"] >= 0 and box["x"] + box["width"] <= size[0] and box["y"] + box["height"] <= size[1]
    for at, one in enumerate(boxes):
        for other in boxes[at + 1 :]:
            apart = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            assert apart or one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]


COUNT_CLEARS = """
  window.clears = 0;
  const clearRect = CanvasRenderingContext2D.prototype.clearRect;
  CanvasRenderingContext2D.prototype.clearRect = function (...box) { window.clears += 1; clearRect.apply(this, box); };
"""


@pytest.mark.parametrize("z", [0.1, 0.5, 1])
def test_at_rest_nothing_is_drawn(open_tab, site, z):
    tab = open_tab()
    tab.page.add_init_script(COUNT_CLEARS)
    tab.view(site.liver, f"#x=2200&y=1200&z={z}")
    tab.page.wait_for_timeout(600)
    before = tab.page.evaluate("window.clears")
    tab.page.wait_for_timeout(500)
    assert before > 0
    assert tab.page.evaluate("window.clears") == before


def test_mouse_pans_and_zooms_about_the_pointer(open_tab, site):
    tab = open_tab(motion="no-preference").view(site.liver, "#x=2200&y=1600&z=0.5&s=stored")
    mouse, box = tab.page.mouse, tab.stage
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x - 50, y + 30, steps=4)
    tab.page.wait_for_timeout(300)
    mouse.up()
    tab.page.wait_for_timeout(900)
    view = tab.state
    assert (float(view["x"]), float(view["y"])) == pytest.approx((2300, 1540), abs=4)
    mouse.move(x + 100, y)
    mouse.wheel(0, -100)
    tab.page.wait_for_timeout(900)
    zoomed = tab.state
    scale = float(zoomed["z"])
    assert scale > 0.55
    under_pointer = float(view["x"]) + 100 / 0.5
    assert float(zoomed["x"]) + 100 / scale == pytest.approx(under_pointer, abs=2)


LUMINANCE = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((each) => {
    const part = Number(each) / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const light = (color) => { const [r, g, b] = parse(color); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
    return "rgb(23, 25, 28)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((each) =>
    each.checkVisibility() && [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return texts.map((each) => {
    const [one, other] = [light(getComputedStyle(each).color), light(ground(each))];
    return [each.textContent.trim().slice(0, 30), (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
  });
}"""


@pytest.mark.parametrize("key", ["l", "j", "m", "i", "?"])
def test_text_stands_out_from_its_ground(tab, site, key):
    """Contrast of at least 4.5 : 1, as WCAG AA asks of text."""
    tab.view(site.liver, "#x=2200&y=1200&z=1").press(key, settle=False)
    found = tab.page.evaluate(LUMINANCE)
    assert len(found) > 10
    assert [each for each in found if each[1] < 4.5] == []
    tab.press("Escape", settle=False)


def test_an_address_that_was_edited_is_read_and_not_written_over(tab, site):
    tab.view(site.liver, "#x=2700&y=1400&z=0.5&s=stored")
    edited = "#x=3360&y=860&z=1&s=stored"
    # As an edited address stands for a moment: changed, and its event not yet delivered.
    tab.page.evaluate("(edited) => history.pushState(null, '', edited)", edited)
    tab.press("ArrowRight")
    tab.page.wait_for_timeout(500)
    assert tab.page.url.endswith(edited)
    tab.page.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    tab.settle()
    assert (float(tab.state["x"]), float(tab.state["y"])) == (3360, 860)
