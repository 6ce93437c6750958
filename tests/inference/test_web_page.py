# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The web page: what it says of an image, what it refuses, that nothing stays, and a person's steps in a browser."""

import base64
import gc
import html as markup
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarity_hf.inference import web_page, web_page_html, web_server
from clarity_hf.phantoms import draw_phantom
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def pipeline(tiny_checkpoint):
    from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor

    model = ClarityForMultiLabelLocalization.from_pretrained(tiny_checkpoint).eval()
    model.config.score_thresholds = [0.0] * 7 + [1.0] * 7  # half of the findings are present
    return ChestXrayLocalizationPipeline(
        model=model, image_processor=ClarityImageProcessor.from_pretrained(tiny_checkpoint), device="cpu"
    )


@pytest.fixture
def listeners(pipeline, image):
    return web_page._Listeners(pipeline, "tiny", [image])


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def tab(session="a"):
    return types.SimpleNamespace(session_hash=session)


def click(index, value):
    return types.SimpleNamespace(index=index, value=value)


CONTROLS = (0.45, "wash", False)


# One image


def test_an_image_has_the_findings_of_the_pipeline(pipeline, image):
    localized = web_page.localize_image(pipeline, image)
    assert localized.size == (120, 90)
    assert localized.findings == pipeline(image)


def test_a_large_image_is_shown_reduced_and_its_boxes_with_it(pipeline, image, monkeypatch):
    large = np.asarray(Image.fromarray(image).resize((1500, 2000)))
    localized = web_page.localize_image(pipeline, large)
    assert localized.view.shape == (1024, 768)
    present = next(finding for finding in localized.findings if finding["boxes"])
    assert present["boxes"] == next(
        finding["boxes"] for finding in pipeline(large) if finding["label"] == present["label"]
    )
    picture = web_page.draw_view(pipeline, localized, present["label"])
    assert picture.width == 768
    assert picture.height > 1024  # the scale is below
    present["boxes"] = [{"xmin": 150, "ymin": 200, "xmax": 1500, "ymax": 2000}]
    drawn = []
    monkeypatch.setattr(web_page, "draw_findings", lambda view, findings, *_, **__: drawn.extend(findings))
    web_page.draw_view(pipeline, localized, present["label"])
    scaled = {"xmin": pytest.approx(76.8), "ymin": pytest.approx(102.4), "xmax": 768, "ymax": 1024}
    assert drawn[0]["boxes"] == [scaled]


def test_the_record_names_no_file_and_is_json(pipeline, image):
    record = web_page.image_record(pipeline, web_page.localize_image(pipeline, image), "tiny")
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"notice", "model", "calibrated", "image", "warning", "findings"}
    assert record["calibrated"] is False
    assert record["image"] == {"height": 120, "width": 90}


def test_an_image_that_looks_wrong_is_shown_with_a_warning_above_it(pipeline):
    phantom = draw_phantom(0, size=128).image
    noise = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    page = web_page._Listeners(pipeline, "tiny", [phantom, noise, 255 - phantom])
    pictures = [page.sample(*CONTROLS, click(index, ""), tab())[0] for index in range(3)]
    assert ["ch-doubt" in picture for picture in pictures] == [False, True, True]
    assert "This looks like something other than a radiograph" in pictures[1]
    assert "This looks like a radiograph with dark bones" in pictures[2]
    for picture in pictures[1:]:
        assert picture.index("ch-doubt") < picture.index("Image with the map of")
    assert "ch-doubt" in page.choose(*CONTROLS, click(1, "Mass"), tab())[0]  # and with every finding of the image


def test_the_record_repeats_the_warning(pipeline):
    phantom = draw_phantom(0, size=128).image
    records = [
        web_page.image_record(pipeline, web_page.localize_image(pipeline, pixels), "tiny")
        for pixels in (phantom, np.rot90(phantom))
    ]
    assert records[0]["warning"] is None
    assert "is rotated, upside down" in records[1]["warning"]


def test_calibration_is_read_from_the_config(pipeline, image):
    localized = web_page.localize_image(pipeline, image)
    assert not web_page.image_record(pipeline, localized, "tiny")["calibrated"]
    pipeline.model.config.score_slopes = [1.0] * 13 + [0.9]
    assert web_page.image_record(pipeline, localized, "tiny")["calibrated"]


def test_held_images_make_room_and_are_forgotten(pipeline, image):
    localized = web_page.localize_image(pipeline, image)
    held = web_page.HeldImages(capacity=2, seconds=60)
    for session in "abc":
        held.put(session, localized)
    assert held.get("a") is None
    assert held.get("c") is localized
    held.drop("c")
    assert held.get("c") is None
    assert len(held) == 1
    past = web_page.HeldImages(seconds=-1)
    past.put("a", localized)
    assert past.get("a") is None


def test_an_upload_is_deleted_once_read(tmp_path):
    path = tmp_path / "hash" / "image.png"
    path.parent.mkdir()
    path.write_bytes(b"image")
    assert web_page.taken_upload(path) == b"image"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="Upload it again"):
        web_page.taken_upload(path)


# The listeners


def test_uploads_that_nobody_read_are_deleted_when_they_are_old(tmp_path):
    (tmp_path / "upload").mkdir()
    old, new = tmp_path / "upload" / "old.png", tmp_path / "upload" / "new.png"
    for path in (old, new):
        path.write_bytes(b"image")
    os.utime(old, (0, 0))
    web_server.delete_old_files(tmp_path, 120)
    assert not old.exists()
    assert new.exists()


def test_a_folder_of_uploads_that_disappears_during_cleaning_is_ignored(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(b"image")
        os.utime(tmp_path / name / "image.png", (0, 0))
    unlink = Path.unlink

    def unlink_and_take_the_other(path, **options):
        unlink(path, **options)
        shutil.rmtree(tmp_path / {"first": "second", "second": "first"}[path.parent.name])

    monkeypatch.setattr(Path, "unlink", unlink_and_take_the_other)
    web_server.delete_old_files(tmp_path, 120)
    assert len(list(tmp_path.iterdir())) == 1


def test_uploads_that_wait_in_the_queue_stay_however_old(tmp_path):
    (tmp_path / "upload").mkdir()
    waiting, running, left = (tmp_path / "upload" / f"{name}.png" for name in ("waiting", "running", "left"))
    for path in (waiting, running, left):
        path.write_bytes(b"image")
        os.utime(path, (0, 0))

    def event(path):
        return types.SimpleNamespace(data=types.SimpleNamespace(data=[{"path": str(path), "meta": {}}, 0.45, None]))

    queue = types.SimpleNamespace(
        event_queue_per_concurrency_id={"model": types.SimpleNamespace(queue=[event(waiting)])},
        active_jobs=[None, [event(running), types.SimpleNamespace(data=None)]],
    )
    kept = web_server._waiting_files(types.SimpleNamespace(_queue=queue))
    web_server.delete_old_files(tmp_path, 120, kept)
    assert sorted(path.name for path in (tmp_path / "upload").iterdir()) == ["running.png", "waiting.png"]


def guarded(host="127.0.0.1", allowed=()):
    any_address = host not in web_server.LOOPBACK
    return web_server._Guarded(None, 100, web_server._hosts(host, allowed), any_address, "'none'")


def refused(guard, host, **headers):
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return guard.refusal([(name.encode(), value.encode()) for name, value in given.items() if value is not None])


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_requests_that_name_this_machine_are_served(host):
    assert not refused(guarded(), host)
    assert not refused(guarded(), host, origin=f"http://{host.casefold()}", sec_fetch_site="same-origin")
    assert not refused(guarded(), host, sec_fetch_site="cross-site", sec_fetch_mode="navigate")  # a link to the page
    assert not refused(guarded(), host, sec_fetch_site="none", sec_fetch_mode="navigate")


@pytest.mark.parametrize(
    "host",
    ["evil.example:7860", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.5:7860", "", "[", None, "localhost:x"],
)
def test_requests_that_name_another_host_are_refused(host):
    assert "not served under that name" in refused(guarded(), host)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:8888",
        "http://127.0.0.1",
        "null",
        "",
        "file://",
        "http://127.0.0.2:7860",
    ],
)
def test_requests_of_other_websites_are_refused(origin):
    assert "other websites" in refused(guarded(), "127.0.0.1:7860", origin=origin)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", ""])
def test_what_the_browser_says_is_of_another_website_is_refused(site, mode):
    assert "other websites" in refused(guarded(), "localhost:7860", sec_fetch_site=site, sec_fetch_mode=mode)


def test_a_request_with_two_hosts_is_refused():
    assert guarded().refusal([(b"host", b"localhost"), (b"host", b"evil.example")])


def test_beyond_the_loopback_addresses_and_allowed_names_are_served_and_no_others():
    guard = guarded("0.0.0.0", ["images.example.org"])
    own = web_server.socket.gethostname()
    for host in ("10.0.0.5:7860", "[fe80::1]:7860", "images.example.org", "localhost:7860", own):
        assert not refused(guard, host)
    for host in ("evil.example", "images.example.org.evil.example"):
        assert refused(guard, host)


def test_too_little_memory_is_not_reported_as_a_broken_image():
    assert web_page.plain_refusal(MemoryError()).startswith("There is too little memory for this image now.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_page_starts_is_not_lost_though_its_error_would_be(pipeline, monkeypatch, number):
    gradio = pytest.importorskip("gradio")

    def launch(*_, **__):
        try:  # as a callback of a library does
            signal.raise_signal(number)
        except BaseException:
            pytest.fail("an error that a library may lose")
        return None, "http://127.0.0.1:1/", None

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    monkeypatch.setattr(gradio.Blocks, "close", lambda *_, **__: None)
    before = signal.getsignal(number)
    web_server.serve_page(pipeline, "tiny", ready=lambda _: pytest.fail("served after its end"))
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_a_step_that_does_not_return(pipeline, monkeypatch):
    def build(*_, **__):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the second signal did not end it")

    pytest.importorskip("gradio")
    monkeypatch.setattr(web_server, "build_page", build)
    web_server.serve_page(pipeline, "tiny")


def test_tracebacks_stay_out_of_the_log(caplog):
    pytest.importorskip("gradio")
    import gradio.queueing

    before = gradio.queueing.traceback
    with web_server._errors_without_paths():
        try:
            raise RuntimeError("/data/Doe^Jane")
        except RuntimeError:
            gradio.queueing.traceback.print_exc()
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application /data")
    assert [record.getMessage() for record in caplog.records] == ["a request failed with RuntimeError"] * 2
    assert "/data" not in caplog.text
    assert gradio.queueing.traceback is before


def test_the_model_runs_once_an_image_whatever_is_chosen(listeners, pipeline, monkeypatch):
    runs = []
    forward = pipeline.forward
    monkeypatch.setattr(pipeline, "forward", lambda inputs: runs.append(1) or forward(inputs))
    listeners.sample(*CONTROLS, click(0, ""), tab())
    for label in ("Mass", "Hernia"):
        picture, table, chosen = listeners.choose(*CONTROLS, click(1, label), tab())
        assert chosen == label
        assert f'alt="Image with the map of {label}"' in picture
        assert re.search(rf'ch-chosen" data-finding="{label}"', table)
    assert listeners.redraw("Hernia", 0.9, "wash", False, tab()) != picture
    assert "Image with the map" in listeners.redraw("Hernia", 0.45, "contours", True, tab())
    assert runs == [1]


def test_the_table_is_sorted_with_thresholds_and_marks(listeners):
    _, table, _ = listeners.sample(*CONTROLS, click(0, ""), tab())
    rows = re.findall(r"<tr class=.*?</tr>", table)
    scores = [float(re.findall(r'ch-number">([\d.]+)', row)[0]) for row in rows]
    assert len(rows) == 14
    assert scores == sorted(scores, reverse=True)
    for row in rows:
        reaches = float(re.findall(r'ch-number">([\d.]+)', row)[1]) == 0
        assert ("● yes" in row) == reaches == ("ch-present" in row)
    assert "7 of 14 findings reach their threshold" in table
    assert web_page_html.UNCALIBRATED in table
    href = re.search(r'href="data:application/json;base64,([^"]+)"', table)
    assert len(json.loads(base64.b64decode(href[1]))["findings"]) == 14


@pytest.mark.parametrize(("content", "words"), [(b"junk", "DICOM image"), (None, "show something")])
def test_a_refused_upload_says_why_without_a_path_and_shows_no_earlier_image(
    listeners, image, tmp_path, content, words
):
    listeners.sample(*CONTROLS, click(0, ""), tab())
    path = tmp_path / "Doe^Jane.png"
    path.write_bytes(png(np.full((64, 64), 7, np.uint8)) if content is None else content)
    picture, table, chosen, field = listeners.upload({"path": str(path)}, *CONTROLS, tab())
    assert words in picture
    assert 'role="alert"' in picture
    assert "Doe" not in picture
    assert str(tmp_path) not in picture
    assert "`" not in picture
    assert (table, chosen, field) == ("", "", None)
    assert not path.exists()
    assert "no longer held" in listeners.choose(*CONTROLS, click(0, "Mass"), tab())[0]


def test_words_of_strangers_are_not_shown():
    assert "Jane" not in web_page.plain_refusal(RuntimeError("/data/Jane"))
    assert "Jane" not in web_page.plain_refusal(FileNotFoundError("/data/Jane"))


def test_tabs_do_not_see_each_other_and_closing_forgets(listeners):
    listeners.sample(*CONTROLS, click(0, ""), tab("a"))
    assert "no longer held" in listeners.choose(*CONTROLS, click(0, "Mass"), tab("b"))[0]
    listeners.close(tab("a"))
    assert "no longer held" in listeners.choose(*CONTROLS, click(0, "Mass"), tab("a"))[0]


def test_what_comes_from_outside_is_escaped(listeners):
    finding = {"label": '"><script>', "score": 0.5, "threshold": 0.4, "present": True, "boxes": []}
    for made in (
        web_page_html.header("<script>"),
        web_page_html.refusal("<script>"),
        web_page_html.image(Image.new("RGB", (8, 8)), finding, "Probability"),
        web_page_html.image(Image.new("RGB", (8, 8)), {**finding, "label": "Mass"}, "Probability", "<script>"),
        web_page_html.findings_table([finding], "", "Probability", {}),
    ):
        assert "<script>" not in made
        assert "<script>" in markup.unescape(made)


def test_an_absent_finding_is_said_to_be_absent():
    finding = {"label": "Mass", "score": 0.1, "threshold": 0.4, "present": False, "boxes": []}
    assert "below its threshold of 0.400. Not called present" in web_page_html.image(
        Image.new("RGB", (8, 8)), finding, "Probability"
    )


@pytest.mark.parametrize("values", [[{"path": "https://a/b"}], [0, {"x": [{"path": " HTTP://a"}]}]])
def test_addresses_are_seen_wherever_they_stand(values):
    assert web_page._names_url(values)
    assert not web_page._names_url([{"path": "/tmp/image.png", "url": None}, 0.45, "https://a/b"])


# The page, served


@pytest.mark.parametrize(("argument", "value"), [("max_queue", 0), ("max_upload_mb", 0)])
def test_bounds_are_checked(pipeline, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be"):
        web_page.build_page(pipeline, "tiny", **{argument: value})


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[demo\]'"):
        web_page.import_gradio()


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Responses that no test closed end here, and not as warnings of later tests that turn warnings into errors."""
    yield
    gc.collect()


class Served:
    """A page of the tiny model in a process of its own."""

    def __init__(self, words, folder, **environment):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "TMPDIR": str(folder), **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        first = self.process.stdout.readline()
        self.address = re.search(r"http://[\w.:\[\]]+:\d+", first)[0]

    def files(self):
        """Files below the folder of temporary files."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def post(self, path, body):
        request = urllib.request.Request(
            f"{self.address}/gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        with self.process:  # closes its pipe
            return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def served(tiny_checkpoint, tmp_path_factory):
    pytest.importorskip("gradio")
    options = ["--port", "0", "--max-upload-mb", "0.5", "--max-queue", "1", "--device", "cpu"]
    words = ["-m", "clarity_hf", "demo", "--model", str(tiny_checkpoint), *options]
    page = Served(words, tmp_path_factory.mktemp("temporary"))
    yield page
    assert page.end() == 0
    assert list(page.folder.glob("clarity-hf-page-*")) == []


@pytest.fixture
def browser_page(served):
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no Chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, accept_downloads=True)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(served.address)
        page.wait_for_selector("[data-sample]")
        yield page
        browser.close()


def test_a_person_uploads_chooses_a_finding_sees_its_box_and_downloads(served, browser_page, image, tmp_path):
    page = browser_page
    assert web_page_html.NOTICE in page.inner_text(".ch-notice")
    assert "independent reconstruction" in page.inner_text(".ch-header")
    Image.fromarray(image).resize((450, 600)).save(tmp_path / "Doe_Jane.png")
    page.set_input_files("#upload input[type=file]", tmp_path / "Doe_Jane.png")
    page.wait_for_selector("table.ch-findings")
    assert served.files() == []
    assert page.locator("table.ch-findings tbody tr").count() == 14

    row = page.locator("table.ch-findings tbody tr.ch-present").last
    label = row.get_attribute("data-finding")
    row.locator("button").press("Enter")  # by keyboard
    page.wait_for_selector(f'tr.ch-chosen[data-finding="{label}"]')
    words = page.inner_text(".ch-image figcaption")
    assert label.replace("_", " ") in words
    count = len(re.findall(r"x \d+ to \d+, y \d+ to \d+", words))
    assert f"{'Box' if count == 1 else 'Boxes'} in pixels of the image: x " in words
    seen = page.get_attribute(".ch-image img", "src")
    picture = Image.open(io.BytesIO(base64.b64decode(seen.split(",")[1]))).convert("RGB")
    orange = (np.asarray(picture) == (230, 159, 0)).all(axis=-1)  # the first colour of boxes
    assert orange.sum() > 200

    page.fill("#opacity input[type=number]", "0.9")
    page.press("#opacity input[type=number]", "Tab")
    page.wait_for_function("before => document.querySelector('.ch-image img').src !== before", arg=seen)

    with page.expect_download() as download:
        page.click("a[download$='.json']")
    record = json.loads(download.value.path().read_text())
    assert download.value.suggested_filename == "clarity-hf-findings.json"
    assert record["image"] == {"height": 600, "width": 450}
    assert record["notice"] == web_page_html.NOTICE
    assert "Doe" not in json.dumps(record)
    with page.expect_download() as download:
        page.click("a[data-picture]")
    assert download.value.suggested_filename == f"clarity-hf-{label}.png"
    with Image.open(download.value.path()) as saved:
        assert saved.width == 512  # enlarged to the least side

    assert page.evaluate("async () => (await indexedDB.databases()).length") == 0  # the browser keeps no image
    assert [url for url in page.asked if not url.startswith((served.address, "data:", "blob:"))] == []
    assert served.files() == []


def test_a_broken_or_too_large_upload_is_refused_in_words(served, browser_page, tmp_path):
    page = browser_page
    (tmp_path / "image.dcm").write_bytes(b"junk" * 100)
    page.set_input_files("#upload input[type=file]", tmp_path / "image.dcm")
    page.wait_for_selector("[role=alert]:has-text('The image must be')")
    assert served.files() == []
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 600_000)
    page.set_input_files("#upload input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("text=/exceeds the maximum|maximum allowed size/i")
    assert served.files() == []


def test_a_sample_is_one_click(browser_page):
    browser_page.click("[data-sample='0']")
    browser_page.wait_for_selector("table.ch-findings")
    assert browser_page.locator(".ch-image img").count() == 1


def upload_event(served, path, session):
    """Body of the event that follows an upload."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{served.address}/config") as answer:
        config = json.load(answer)
    event = next(fn for fn in config["dependencies"] if any(target[1] == "upload" for target in fn["targets"]))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return {"data": [file, 0.45, "wash", False], "fn_index": event["id"], "session_hash": session}


def test_the_same_image_of_two_tabs_is_two_files(served, image):
    """The first to be answered deletes its upload."""
    part = b'Content-Disposition: form-data; name="files"; filename="image.png"\r\n\r\n'
    body = b"--x\r\n" + part + png(image) + b"\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{served.address}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    paths = []
    for _ in range(2):
        with opener.open(request, timeout=20) as answer:
            paths += json.load(answer)
    assert len(set(paths)) == 2


def test_an_image_of_an_address_is_not_fetched(served):
    body = upload_event(served, "http://127.0.0.1:9/image.png", "url")
    event = json.load(served.post("queue/join", body))["event_id"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{served.address}/gradio_api/queue/data?session_hash=url", timeout=20) as stream:
        lines = (line.decode() for line in stream)
        done = next(line for line in lines if "process_completed" in line and event in line)
    assert "not fetched from an address" in done


def test_a_full_queue_rejects_uploads_and_keeps_working(served):
    body = upload_event(served, "http://127.0.0.1:9/image.png", "flood")
    refused = None
    deadline = time.monotonic() + 20
    while refused is None and time.monotonic() < deadline:
        try:
            served.post("queue/join", body)
        except urllib.error.HTTPError as error:
            refused = error
    assert refused is not None
    assert refused.code == 503
    assert "Queue is full" in refused.read().decode()


def test_a_rejected_user_sees_a_message(browser_page):
    browser_page.route(
        "**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full. Max size is 1."})
    )
    browser_page.click("[data-sample='0']")
    browser_page.wait_for_selector("text=/queue is full|busy/i")


def test_answers_carry_the_policy_and_large_bodies_are_cut(served):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(served.address) as answer:
        assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]
    with pytest.raises((urllib.error.HTTPError, OSError)):
        served.post("queue/join", {"data": ["0" * 3_000_000], "fn_index": 0, "session_hash": "x"})


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/gradio_api/upload", "/gradio_api/queue/join", "/config"])
def test_requests_of_other_websites_get_no_answer(served, headers, path):
    before = served.files()
    request = urllib.request.Request(served.address + path, b"{}" if "gradio_api" in path else None, headers)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20)
    assert error.value.code == 403
    assert set(served.files()) <= set(before)


def test_no_other_page_may_frame_the_page(served):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(served.address) as answer:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_a_page_of_ipv6_is_served(tiny_checkpoint, tmp_path):
    pytest.importorskip("gradio")
    try:
        web_server._free_port("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    options = ["--port", "0", "--host", "::1", "--device", "cpu"]
    page = Served(["-m", "clarity_hf", "demo", "--model", str(tiny_checkpoint), *options], tmp_path)
    assert page.address.startswith("http://[::1]:")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(page.address) as answer:
        assert web_page_html.NOTICE in answer.read().decode()
    assert page.end() == 0


def test_only_this_machine_is_served_by_default(served):
    assert served.address.startswith("http://127.0.0.1:")


def test_the_space_is_the_same_page(tiny_checkpoint, tmp_path):
    pytest.importorskip("gradio")
    app = Path(__file__).resolve().parents[2] / "examples" / "space" / "app.py"
    port = str(web_server._free_port("127.0.0.1"))
    page = Served([str(app)], tmp_path, MODEL=str(tiny_checkpoint), GRADIO_SERVER_PORT=port)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}") as answer:
        assert web_page_html.NOTICE in answer.read().decode()
    assert page.end() == 0
    assert list(tmp_path.glob("clarity-hf-page-*")) == []
