# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The DICOM node beside a real Orthanc: everything that was acknowledged comes back once, whatever happens to it."""

import contextlib
import datetime
import importlib.util
import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from clarity_hf import ClarityImageProcessor
from clarity_hf.phantoms import draw_phantom
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pynetdicom = pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")
pytest.importorskip("prometheus_client")

from pydicom import uid  # noqa: E402

from clarity_hf.inference.dicom_destinations import (  # noqa: E402
    StorageDestination,
    WebDestination,
    as_file,
    tls_from,
    tls_to,
)
from clarity_hf.inference.dicom_inference import DicomResultWriter  # noqa: E402
from clarity_hf.inference.dicom_node import TRANSFER_SYNTAXES, DicomNode, NodeSettings  # noqa: E402

_spec = importlib.util.spec_from_file_location("orthanc", Path(__file__).with_name("orthanc.py"))
orthanc = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(orthanc)

needs_orthanc = pytest.mark.skipif(orthanc.ORTHANC is None, reason="no Orthanc here (Debian: orthanc)")
needs_plugin = pytest.mark.skipif(not orthanc.PLUGIN.exists(), reason="no DICOMweb plugin (Debian: orthanc-dicomweb)")

PHANTOM = draw_phantom(0, size=(120, 96)).image
RESULTS = 4  # of an image: report, marks, maps, overlay


def radiograph(number, **changes):
    """A CR image in a study of its own."""
    pixels = np.roll(PHANTOM, number % 7, axis=1)
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": uid.ComputedRadiographyImageStorage,
        "SOPInstanceUID": f"2.25.5000{number}",
        "StudyInstanceUID": f"2.25.6000{number}",
        "SeriesInstanceUID": f"2.25.7000{number}",
        "StudyDate": f"{datetime.date.today():%Y%m%d}",
        "StudyTime": "101112",
        "AccessionNumber": f"A{number}",
        "Modality": "CR",
        "PatientName": "Doe^Jane",
        "PatientID": f"P{number}",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "ReferringPhysicianName": "",
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientOrientation": ["L", "F"],
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for name, value in (values | changes).items():
        setattr(image, name, value)
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def send(port, image, title="MODALITY", called="CLARITY", tls=None):
    """Status of a C-STORE; None where there was no association or no answer."""
    entity = pynetdicom.AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = 20
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    link = entity.associate("127.0.0.1", port, ae_title=called, tls_args=tls)
    if not link.is_established:
        return None
    try:
        return link.send_c_store(image).get("Status")
    except (RuntimeError, ValueError):
        return None
    finally:
        link.release()


class Shelf:
    """A destination that keeps what it is given, and refuses as often as it is told to."""

    def __init__(self, refusals=0):
        self.files, self.refusals = [], refusals

    def send(self, files):
        for file in files:
            if self.refusals:
                self.refusals -= 1
                yield "status 0xA700"
            else:
                self.files.append(pydicom.dcmread(file))
                yield ""


@pytest.fixture
def writer(tiny_model):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    pipeline = ChestXrayLocalizationPipeline(model=tiny_model, image_processor=processor)
    return DicomResultWriter(pipeline, "tiny", threshold=0.0)


@pytest.fixture
def start(writer, tmp_path, monkeypatch):
    """Starts a node that stops with the test."""
    monkeypatch.setattr("clarity_hf.inference.dicom_node.FIRST_WAIT_S", 0.1)
    with contextlib.ExitStack() as stack:

        def begin(destination, **settings):
            settings = {"folder": tmp_path / "queue", "port": 0, "settle_s": 0.1} | settings
            return stack.enter_context(DicomNode(writer, destination, NodeSettings(**settings)))

        yield begin


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_every_syntax_that_images_come_in_is_accepted(start, syntax):
    node = start(Shelf())
    entity = pynetdicom.AE()
    entity.add_requested_context(uid.DigitalXRayImageStorageForPresentation, syntax)
    link = entity.associate("127.0.0.1", node.port, ae_title="CLARITY")
    assert [context.transfer_syntax for context in link.accepted_contexts] == [[syntax]]
    link.release()


def test_a_compressed_image_comes_back_as_results(start):
    shelf = Shelf()
    node = start(shelf)
    image = radiograph(1)
    image.compress(uid.JPEGLSLossless)
    assert send(node.port, image) == 0
    wait_idle(node)
    assert sorted(result.Modality for result in shelf.files) == ["OT", "PR", "SEG", "SR"]
    assert {result.StudyInstanceUID for result in shelf.files} == {image.StudyInstanceUID}


def test_the_node_answers_an_echo_by_its_own_title_alone(start):
    node = start(Shelf())
    entity = pynetdicom.AE()
    entity.add_requested_context("1.2.840.10008.1.1")
    link = entity.associate("127.0.0.1", node.port, ae_title="CLARITY")
    assert link.send_c_echo().Status == 0
    link.release()
    assert entity.associate("127.0.0.1", node.port, ae_title="OTHER").is_rejected


def test_log_lines_are_json_and_name_the_titles_that_were_refused(start, caplog):
    caplog.set_level(logging.INFO, logger="clarity_hf.inference.dicom_node")
    node = start(Shelf(), titles=["PACS"])
    send(node.port, radiograph(1), title="OTHER", called="WRONG")
    own = [record for record in caplog.records if record.name == "clarity_hf.inference.dicom_node"]
    lines = [json.loads(record.getMessage()) for record in own]
    (refused,) = [line for line in lines if line["event"] == "title refused"]
    assert (refused["calling"], refused["called"], refused["address"]) == ("OTHER", "WRONG", "127.0.0.1")
    assert datetime.datetime.fromisoformat(refused["time"]).tzinfo is not None


def test_titles_and_addresses_that_are_not_listed_get_nothing(start, tmp_path):
    node = start(Shelf(), titles=["PACS"])
    assert send(node.port, radiograph(1)) is None
    assert send(node.port, radiograph(1), title="PACS") == 0
    closed = start(Shelf(), addresses=["10.0.0.0/8"], folder=tmp_path / "closed")
    assert send(closed.port, radiograph(1)) is None
    opened = start(Shelf(), addresses=["10.0.0.0/8", "127.0.0.1"], folder=tmp_path / "opened")
    assert send(opened.port, radiograph(1)) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "`titles` or `addresses` must be given"),
        ({"ae_title": "A" * 17}, "`ae_title` must be 1 to 16 ASCII characters"),
        ({"settle_s": -1}, "`settle_s` must be at least 0"),
        ({"addresses": ["nowhere"]}, "'nowhere' does not appear to be"),
    ],
)
def test_settings_that_make_no_sense_or_open_the_node_to_all_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        NodeSettings(tmp_path, **settings)


def test_bad_images_do_not_stop_it_and_are_answered_for(start, caplog):
    caplog.set_level(logging.INFO, logger="clarity_hf.inference.dicom_node")
    shelf = Shelf()
    node = start(shelf)
    broken = radiograph(1)
    broken.compress(uid.JPEG2000Lossless)
    broken.PixelData = broken.PixelData[:200]
    assert send(node.port, broken) == 0
    assert send(node.port, radiograph(2, ViewPosition="LL")) == 0
    assert send(node.port, radiograph(3, Rows=None)) == 0
    assert send(node.port, radiograph(4)) == 0
    wait_idle(node)
    assert node.queue.counts()["images"] == {"refused": 3, "done": 1}
    reports = {one.StudyInstanceUID: one.to_json() for one in shelf.files if one.Modality == "SR"}
    assert len(reports) == 3  # without rows there is nothing that a report could refer to
    assert "The image was not analysed: `image` must be a frontal image, got a lateral view" in reports["2.25.60002"]
    assert "not analysed" not in reports["2.25.60004"]
    assert "Doe" not in caplog.text
    assert "2.25." not in caplog.text
    assert '"event": "refused", "image": 2' in caplog.text


def test_what_the_destination_refuses_is_sent_until_it_is_taken(start):
    shelf = Shelf(refusals=6)
    node = start(shelf)
    assert send(node.port, radiograph(1)) == 0
    wait_idle(node)
    assert len({one.SOPInstanceUID for one in shelf.files}) == len(shelf.files) == RESULTS


def test_a_full_queue_refuses_and_says_so(start):
    node = start(Shelf(), max_bytes=1000)
    assert send(node.port, radiograph(1)) == 0xA700


def test_an_image_that_is_sent_again_is_not_analysed_again(start):
    shelf = Shelf()
    node = start(shelf)
    for _ in range(2):
        assert send(node.port, radiograph(1)) == 0
        wait_idle(node)
    assert len(shelf.files) == RESULTS


def test_two_nodes_do_not_share_a_queue(start):
    start(Shelf())
    with pytest.raises(BlockingIOError, match="Another node uses the folder"):
        start(Shelf())


def test_health_and_counters_are_served_to_this_machine(start):
    port = orthanc.free_port()
    node = start(Shelf(), http_port=port)
    send(node.port, radiograph(1))
    wait_idle(node)
    assert get(port, "/healthz") == (200, '{"healthy": true, "problems": []}')
    text = get(port, "/metrics")[1]
    assert 'clarity_images{state="done"} 1.0' in text
    assert f'clarity_results{{state="sent"}} {RESULTS}.0' in text
    assert get(port, "/")[0] == 404
    node._threads[0].is_alive = lambda: False
    assert get(port, "/healthz")[0] == 503


def get(port, path):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_destination_that_takes_no_jpeg_2000_gets_the_same_pixels_uncompressed(start):
    taken = []

    def store(event):
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        taken.append(dataset)
        return 0

    entity = pynetdicom.AE(ae_title="OLD")
    for context in pynetdicom.StoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, uid.ImplicitVRLittleEndian)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, store)])
    try:
        node = start(StorageDestination("OLD", "127.0.0.1", server.server_address[1], "CLARITY"))
        send(node.port, radiograph(1))
        wait_idle(node)
    finally:
        server.shutdown()
    assert len(taken) == RESULTS
    (overlay,) = (one for one in taken if one.Modality == "OT")
    assert overlay.file_meta.TransferSyntaxUID == uid.ImplicitVRLittleEndian
    assert overlay.pixel_array.max() == 255


def test_tls_is_spoken_with_callers_and_a_silent_one_holds_up_no_other(start, tmp_path):
    certificate, key = tmp_path / "node.pem", tmp_path / "node.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    node = start(Shelf(), tls=tls_from(certificate, key, certificate))
    with contextlib.closing(__import__("socket").create_connection(("127.0.0.1", node.port))):  # and says nothing
        assert send(node.port, radiograph(1), tls=(tls_to(certificate, certificate, key), "127.0.0.1")) == 0
    assert send(node.port, radiograph(2)) is None  # without TLS
    assert send(node.port, radiograph(2), tls=(tls_to(certificate, None, None), "127.0.0.1")) is None  # who is it?


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        ("ORTHANC@127.0.0.1:4242", ("ORTHANC", "127.0.0.1", 4242)),
        ("PACS@[::1]:104", ("PACS", "::1", 104)),
        ("127.0.0.1:104", None),
        ("PACS@host", None),
        ("PACS@host:0", None),
        ("PACS@host:99999", None),
    ],
)
def test_destinations_are_written_as_title_host_and_port(words, parsed):
    if parsed is None:
        with pytest.raises(ValueError, match="`destination` must be TITLE@HOST:PORT"):
            StorageDestination.parse(words, "CLARITY")
    else:
        place = StorageDestination.parse(words, "CLARITY")
        assert (place.ae_title, place.host, place.port) == parsed


# Orthanc


@contextlib.contextmanager
def pacs(folder, node_port=None, **settings):
    """An Orthanc that knows a node by its title."""
    known = {"AET": "CLARITY", "Host": "127.0.0.1", "Port": node_port or orthanc.free_port(), "AllowStore": True}
    with orthanc.running(folder, {"clarity": known}, **settings) as place:
        yield place


def in_pacs(place):
    """SOP Instance UIDs of results, by study."""
    found = {}
    for instance in json.loads(place.get("/instances?expand")[1]):
        tags = json.loads(place.get(f"/instances/{instance['ID']}/simplified-tags")[1])
        if tags["Modality"] != "CR":
            found.setdefault(tags["StudyInstanceUID"], []).append(tags["SOPInstanceUID"])
    return found


@needs_plugin
@needs_orthanc
def test_images_are_fetched_and_results_stored_over_dicomweb(start, tmp_path):
    with pacs(tmp_path) as place:
        server = WebDestination(f"http://127.0.0.1:{place.web}/dicom-web")
        server.client().store_instances([pydicom.dcmread(pydicom.filebase.DicomBytesIO(as_file(radiograph(1))))])
        node = start(server, polled=server, poll_s=0.5)
        wait_for(lambda: len(in_pacs(place).get("2.25.60001", [])) == RESULTS)
        time.sleep(1)  # asked again, it fetches nothing again
        assert node.queue.counts() == {"images": {"done": 1}, "outbox": {"sent": RESULTS}}


@needs_orthanc
def test_the_recipe_of_the_pages_routes_images_and_takes_results(start, tmp_path):
    (tmp_path / "orthanc").mkdir()
    script = Path(__file__).parents[2] / "examples" / "orthanc" / "route.lua"
    port = orthanc.free_port()
    with pacs(tmp_path / "orthanc", port, LuaScripts=[str(script)]) as place:
        start(StorageDestination("ORTHANC", "127.0.0.1", place.dicom, "CLARITY"), port=port)
        place.post("/instances", as_file(radiograph(1)), "application/dicom")
        wait_for(lambda: len(in_pacs(place).get("2.25.60001", [])) == RESULTS)
        time.sleep(1)
        assert len(in_pacs(place)["2.25.60001"]) == RESULTS  # results are not sent round and round


def wait_idle(node):
    """Wait until all images are analysed and all results sent."""
    wait_for(lambda: node.queue.bytes() == 0)


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.3)


class Killable:
    """`clarity-hf serve-dicom` as a process."""

    def __init__(self, folder, destination, model):
        self.port, self.queue = orthanc.free_port(), folder
        self.command = [
            *(sys.executable, "-m", "clarity_hf", "serve-dicom", str(folder), "--destination", destination),
            *("--model", str(model), "--port", str(self.port), "--settle", "0.5", "--threshold", "0"),
        ]
        self.process = None

    def start(self):
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self.process = subprocess.Popen(self.command, env=environment, **pipes)
        assert "listens on" in self.process.stdout.readline()

    def queue_counts(self):
        with contextlib.closing(sqlite3.connect(self.queue / "queue.sqlite")) as connection:
            return dict(connection.execute("SELECT state, COUNT(*) FROM images GROUP BY state").fetchall())

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(60)


def store_all_while_killed(folder, model, studies, kills):
    """Send studies to a node that is killed again and again; results in the PACS at the end, by study."""
    random_ = random.Random(0)
    (folder / "orthanc").mkdir()
    with pacs(folder / "orthanc") as place:
        node = Killable(folder / "queue", f"ORTHANC@127.0.0.1:{place.dicom}", model)
        node.start()

        def modality():
            for number in range(studies):
                while send(node.port, radiograph(number)) != 0:  # as a modality does, until it is acknowledged
                    time.sleep(0.3)

        sending = threading.Thread(target=modality, daemon=True)
        sending.start()
        for _ in range(kills):
            time.sleep(random_.uniform(1, 4))
            node.end(signal.SIGKILL)
            node.start()
        sending.join()
        wanted = {f"2.25.6000{number}" for number in range(studies)}
        wait_for(lambda: sum(map(len, in_pacs(place).values())) >= RESULTS * studies, 30 + 5 * studies)
        time.sleep(2)
        assert node.end(signal.SIGTERM) == 0
        found = in_pacs(place)
        assert set(found) == wanted
        assert node.queue_counts() == {"done": studies}
        changes = json.loads(place.get("/changes?limit=100000")[1])["Changes"]
        assert sum(change["ChangeType"] == "NewInstance" for change in changes) == RESULTS * studies
        return found


def each_once(found):
    return all(len(uids) == len(set(uids)) == RESULTS for uids in found.values())


@needs_orthanc
def test_a_killed_node_resumes_and_every_result_is_stored_once(tmp_path, tiny_checkpoint):
    assert each_once(store_all_while_killed(tmp_path, tiny_checkpoint, studies=4, kills=1))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs_orthanc
def test_fifty_studies_and_three_kills_store_every_result_once(tmp_path, tiny_checkpoint):
    assert each_once(store_all_while_killed(tmp_path, tiny_checkpoint, studies=50, kills=3))
