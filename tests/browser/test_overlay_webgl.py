"""The overlay drawn by WebGL, here in software: the same picture as without, and none lost when the card is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser.drawn import FIELD, Drawn, make_field
from tests.browser.tab import CHROMIUM_FLAGS, Tab
from tests.browser.test_webgl import FLAGS, PRETEND_GRAPHICS_CARD

MIDDLE = FIELD.width / 2
SIZE = (560, 400)


@pytest.fixture(scope="module")
def field(running_site):
    return make_field(running_site, "field for the card")[0]


@pytest.fixture(scope="module")
def tabs(chromium, chromium_path, running_site):
    """Two tabs of one size: one that draws with WebGL, one with the processor."""
    flags = [flag for flag in CHROMIUM_FLAGS if flag != "--disable-gpu"] + FLAGS
    browser = chromium.browser_type.launch(executable_path=chromium_path, args=flags)
    card, plain = Tab(browser, running_site, size=SIZE), Tab(chromium, running_site, size=SIZE)
    card.page.set_default_timeout(90_000)
    card.page.add_init_script(PRETEND_GRAPHICS_CARD)
    yield card, plain
    plain.page.context.close()
    browser.close()
    card.overlook("GPU stall", "CONTEXT_LOST")
    card.check()
    plain.check()


def both(tabs, slide: str, **options) -> list[Drawn]:
    drawn = [Drawn(tab, slide, **options) for tab in tabs]
    kinds = [each.page.evaluate("overlay.sheet.constructor.name") for each in drawn]
    assert kinds == ["GlSheet", "Sheet"]
    return drawn


def alike(one: np.ndarray, other: np.ndarray, mean: float = 2.5) -> None:
    """Two drawings are one picture: edges and the slide below may be smoothed otherwise, the mean colour not."""
    difference = np.abs(one - other).max(-1)
    assert np.abs(other).mean() > 0.1, "something is drawn"
    assert difference.mean() < mean
    assert (difference > 40).mean() < 0.01
    assert np.abs((one - other).mean((0, 1))).max() < 0.8


@pytest.mark.parametrize(("z", "r", "m"), [(0.2, 0, 0), (0.12, 35, 1), (0.6, 90, 0)])
def test_polygons_with_holes_are_the_same_picture(tabs, site, z, r, m):
    """A gland whose lumen stays clear is wound in the stencil buffer; a nucleus is a fan."""
    card, plain = both(tabs, site.liver)
    pictures = [each.look(2250, 1500, z, r, m).paint(130, 130) for each in (card, plain)]
    alike(*pictures)
    if z == 0.2:
        inside, lumen = pictures[0][110:125, 70:85], pictures[0][160:190, 100:130]
        assert np.abs(inside).max(-1).min() > 5 and np.abs(lumen).max() <= 3


def test_crowds_thresholds_classes_and_styles_are_the_same_picture(tabs, field):
    drawn = both(tabs, field)
    steps = [
        (0.5, ""), (0.08, ""), (0.03, ""), (0.02, ""),
        (0.5, "overlay.setThreshold(id, 0.5)"), (0.08, "overlay.setStyle(id, 'outline')"),
        (0.5, "overlay.showClass(id, 'A', false)"), (0.08, "overlay.setClassColor(id, 'B', '#00a000')"),
        (0.5, "overlay.setStyle(id, 'fill'); overlay.setOpacity(0.9)"),
    ]  # fmt: skip
    for z, change in steps:
        for each in drawn:
            each.call("const id = [...overlay.layers.keys()][0]; " + change)
        alike(*[each.look(MIDDLE, MIDDLE, z).paint(130, 130) for each in drawn])


def test_the_map_is_the_same_picture(tabs, field):
    drawn = both(tabs, field, exactCount=200, fewCount=50)
    alike(*[each.look(MIDDLE, MIDDLE, 0.05).paint(130, 130) for each in drawn])


def test_comparison_is_the_same_picture(tabs, field):
    drawn = both(tabs, field)
    script = """const layer = [...overlay.layers.values()][0];
      const states = new Uint8Array(layer.layer.count);
      for (let number = 0; number < states.length; number++) states[number] = 1 + ((number + (number >> 5)) % 3);
      overlay.comparison = { states: () => states, compared: { truth: "", prediction: layer.layer.id } };
      overlay.changed();"""
    for each in drawn:
        each.call(script)
    for z in (0.5, 0.08):
        pictures = [each.look(MIDDLE, MIDDLE, z).paint(130, 130) for each in drawn]
        alike(*pictures)


def test_without_its_card_the_overlay_draws_on(tabs, field):
    card, plain = both(tabs, field)
    card.look(MIDDLE, MIDDLE, 0.5)
    card.call("overlay.sheet.painter.gl.getExtension('WEBGL_lose_context').loseContext()")
    card.tab.until(lambda: card.page.evaluate("overlay.sheet.constructor.name") == "Sheet", "the other painter")
    alike(card.settle().paint(130, 130), plain.look(MIDDLE, MIDDLE, 0.5).paint(130, 130))


def test_blocks_that_were_let_go_leave_the_card(tabs, field):
    card, _ = both(tabs, field)
    card.look(MIDDLE, MIDDLE, 0.5)
    held = "return overlay.sheet.painter.blocks.held.size"
    assert card.call(held) > 0
    card.call("for (const id of [...overlay.layers.keys()]) overlay.removeLayer(id)")
    assert card.call(held) == 0
    assert np.abs(card.paint(100, 100)).max() == 0
