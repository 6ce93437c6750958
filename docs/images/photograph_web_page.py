# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Make web-page.png: the page with a synthetic image, in headless Chromium.

    clarity-hf demo --port 7871 &
    python docs/images/photograph_web_page.py

Expected output: wrote docs/images/web-page.png
"""

from pathlib import Path

from playwright.sync_api import sync_playwright

ADDRESS = "http://127.0.0.1:7871"
CHROMIUM = "/usr/bin/chromium"
SAMPLE = 2
PICTURE = Path(__file__).with_name("web-page.png")

if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1010})
        page.goto(ADDRESS)
        page.click(f"[data-sample='{SAMPLE}']")
        page.wait_for_selector("table.ch-findings")
        page.mouse.move(5, 5)
        page.wait_for_timeout(1000)
        page.screenshot(path=PICTURE)
        browser.close()
    print(f"wrote {PICTURE.relative_to(Path.cwd())}")
