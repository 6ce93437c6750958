# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""An Orthanc of a test's own."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pydicom
import pynetdicom
import pytest

ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Pacs:
    """Where an Orthanc of this test listens."""

    def __init__(self, dicom, web):
        self.dicom, self.web = dicom, web

    def get(self, path, accept="application/json"):
        return self._open(urllib.request.Request(f"http://127.0.0.1:{self.web}{path}", headers={"Accept": accept}))

    def post(self, path, body, kind):
        address = f"http://127.0.0.1:{self.web}{path}"
        headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
        return self._open(urllib.request.Request(address, data=body, headers=headers, method="POST"))

    def _open(self, request):
        # No proxy of the environment: the address is this machine's own.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return answer.headers, answer.read()

    @contextlib.contextmanager
    def associate(self, *contexts, roles=()):
        """An association for SOP classes, each uncompressed, and pictures as JPEG 2000 too."""
        entity = pynetdicom.AE(ae_title="TEST")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        received = []
        for context in contexts:
            entity.add_requested_context(context, pydicom.uid.ExplicitVRLittleEndian)
        if pydicom.uid.SecondaryCaptureImageStorage in contexts:
            entity.add_requested_context(pydicom.uid.SecondaryCaptureImageStorage, pydicom.uid.JPEG2000Lossless)

        def store(event):
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            received.append(dataset)
            return 0

        handlers = [(pynetdicom.evt.EVT_C_STORE, store)]
        roles = [pynetdicom.build_role(role, scp_role=True) for role in roles]
        link = entity.associate("127.0.0.1", self.dicom, ae_title="ORTHANC", ext_neg=roles, evt_handlers=handlers)
        assert link.is_established
        try:
            yield link, received
        finally:
            link.release()


@contextlib.contextmanager
def running(folder, modalities=None, **more):
    """An empty Orthanc with a configuration, a storage and ports of its own, which hears this machine alone."""
    dicom, web = free_port(), free_port()
    allowed = dict.fromkeys(("AllowEcho", "AllowFind", "AllowGet", "AllowStore"), True)
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": web,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        # The web server hears this machine alone; the DICOM server hears all, and answers one name at one address.
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowFind": False,
        "DicomAlwaysAllowGet": False,
        "DicomAlwaysAllowStore": False,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomModalities": {"test": {"AET": "TEST", "Host": "127.0.0.1", "Port": free_port()} | allowed}
        | (modalities or {}),
        "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableMetadataCache": False},
        "ConcurrentJobs": 1,
        "HttpThreadsCount": 4,
    } | more
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
        try:
            place = Pacs(dicom, web)
            wait_until_it_answers(place, process, folder / "log")
            yield place
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_it_answers(place, process, log, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            place.get("/system")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
