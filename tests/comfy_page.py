"""ComfyUI's page in a headless Chromium: opening it, asking it, and waiting for it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAGE_LIMIT = 120.0  # seconds
SCREENSHOTS = Path(os.environ.get("FLOW3D_SCREENSHOTS", Path(__file__).resolve().parents[1] / "output" / "screenshots"))
ARGUMENTS = (
    "--headless=new --no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist "
    "--disable-gpu-compositing --disable-gpu-rasterization --disable-accelerated-2d-canvas "  # or a frame takes two seconds
    "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
)


class NoBrowserError(Exception):
    """Why there is no browser to be had here."""


@contextmanager
def browser(profile: Path, width: int = 2000, height: int = 1100) -> Iterator[Any]:
    """A Chromium of that many pixels, with WebGL; `profile` is a new folder for what it keeps. Raises NoBrowserError."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError as error:
        raise NoBrowserError("selenium is not installed: use `python run.py test`") from error
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        raise NoBrowserError("no Chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_script_timeout(PAGE_LIMIT)
    try:
        yield opened
    finally:
        opened.quit()


def open_page(page: Any, url: str) -> None:
    """Load ComfyUI's page and wait until it knows the nodes, ours included."""
    page.get(url)
    known = """
        const known = window.LiteGraph?.registered_node_types
        return !!(window.app?.graph && window.app.canvas && known?.Flow3DFLAMEEdit && known.SaveVideo)
    """
    until("the page", PAGE_LIMIT, lambda: page.execute_script(known))


def until(what: str, limit: float, ask: Callable[[], Any]) -> Any:
    """Ask until the answer is true, and give it."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.25)
    raise AssertionError(f"waited {limit} s for {what}")


def clicked(page: Any, xpath: str) -> bool:
    """Scroll to the first element of that kind that can be seen, and click it, if there is one and nothing lies over it."""
    from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException

    try:
        for element in page.find_elements("xpath", xpath):
            page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            if element.is_displayed():
                element.click()
                return True
    except (ElementClickInterceptedException, StaleElementReferenceException):  # it is about to change: ask again
        pass
    return False


def press(page: Any, what: str, xpath: str) -> None:
    """Click an element once it can be clicked."""
    until(what, PAGE_LIMIT, lambda: clicked(page, xpath))


def asked(page: Any, script: str, *values: object) -> Any:
    """What the body of an async function gives, whose argument `given` is the list of `values`; it may await."""
    told = page.execute_async_script(
        "const give = arguments[arguments.length - 1]; const given = [...arguments].slice(0, -1);"
        f"(async (given) => {{ {script} }})(given).then((x) => give([x ?? null]), (e) => give(String(e.stack ?? e)))", *values,
    )  # fmt: skip
    assert isinstance(told, list), told
    return told[0]


def screenshot(page: Any, name: str) -> Path:
    """The picture of the page as it is, written to SCREENSHOTS."""
    from selenium.common.exceptions import TimeoutException

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    file = SCREENSHOTS / f"{name}.png"

    def saved() -> bool:
        try:
            return page.save_screenshot(str(file))
        except TimeoutException:  # the driver gives the page ten seconds to draw itself, which a busy machine may exceed
            return False

    until(f"the picture {name}", PAGE_LIMIT, saved)
    return file
