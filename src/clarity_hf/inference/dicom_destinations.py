# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Destinations of the DICOM node's results: a Storage SCP over C-STORE, or a DICOMweb server over STOW-RS."""

from __future__ import annotations

import datetime
import io
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

RESULT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
)
"""SOP classes of results."""

_EXPLICIT, _IMPLICIT, _JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.90"


class Destination(Protocol):
    """A place for results."""

    def send(self, files: Sequence[Path]) -> Iterator[str]:
        """Send DICOM files; for each, in turn, the reason why it was not accepted, empty if it was."""
        ...


@dataclass(frozen=True)
class StorageDestination:
    """A Storage SCP.

    Attributes:
        ae_title: Its AE title.
        host: Name or address of its machine.
        port: Its port.
        calling_title: AE title of the node.
        tls: TLS context of the connection; None for an unencrypted one.
        timeout_s: Seconds to wait for a response.
    """

    ae_title: str
    host: str
    port: int
    calling_title: str
    tls: ssl.SSLContext | None = None
    timeout_s: float = 30

    @classmethod
    def parse(cls, words: str, calling_title: str, tls: ssl.SSLContext | None = None) -> StorageDestination:
        """Read `TITLE@HOST:PORT`, such as `ORTHANC@127.0.0.1:4242`; a ValueError for any other form."""
        found = re.fullmatch(r"([^@]{1,16})@(.+):(\d{1,5})", words)
        if found is None or not 0 < int(found[3]) < 65536:
            raise ValueError(f"`destination` must be TITLE@HOST:PORT, got '{words}'. Write it as PACS@10.0.0.5:104.")
        return cls(found[1].strip(), found[2].strip("[]"), int(found[3]), calling_title, tls)

    def send(self, files: Sequence[Path]) -> Iterator[str]:
        """Send DICOM files, see [`Destination`]."""
        import pynetdicom

        entity = pynetdicom.AE(ae_title=self.calling_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self.timeout_s
        entity.connection_timeout = self.timeout_s
        for sop_class in RESULT_CLASSES:
            entity.add_requested_context(sop_class, [_EXPLICIT, _IMPLICIT])
        # A separate context, because a peer accepts only one transfer syntax per context.
        entity.add_requested_context(RESULT_CLASSES[-1], _JPEG_2000)
        tls = None if self.tls is None else (self.tls, self.host)
        link = entity.associate(self.host, self.port, ae_title=self.ae_title, tls_args=tls)
        try:
            for file in files:
                yield self._store(link, file) if link.is_established else "no association"
        finally:
            if link.is_established:
                link.release()

    def _store(self, link: Any, file: Path) -> str:
        import pydicom

        dataset = pydicom.dcmread(file)
        accepted = {
            syntax
            for context in link.accepted_contexts
            if context.abstract_syntax == dataset.SOPClassUID
            for syntax in context.transfer_syntax
        }
        if not accepted:
            return f"{dataset.SOPClassUID.name} is not accepted"
        if dataset.file_meta.TransferSyntaxUID not in accepted:
            if dataset.file_meta.TransferSyntaxUID.is_compressed:
                dataset.decompress()
            if _EXPLICIT not in accepted:
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
                dataset = pydicom.dcmread(io.BytesIO(as_file(dataset)))
        try:
            status = link.send_c_store(dataset).get("Status")
        except (ValueError, RuntimeError) as error:  # the association ended
            return type(error).__name__
        if status is None:
            return "no answer"
        stored = status == 0 or 0xB000 <= status <= 0xBFFF  # warnings: stored, with elements coerced or dropped
        return "" if stored else f"status 0x{status:04X}"


@dataclass(frozen=True)
class WebDestination:
    """A DICOMweb server.

    Attributes:
        url: Root of its services, such as `https://pacs/dicom-web`.
        token: Bearer token, if one is needed.
        timeout_s: Seconds to wait for a response.
    """

    url: str
    token: str = ""
    timeout_s: float = 30

    def client(self) -> Any:
        """A `dicomweb_client.DICOMwebClient` for this server."""
        from dicomweb_client.api import DICOMwebClient

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else None
        return DICOMwebClient(self.url, headers=headers, timeout=self.timeout_s)

    def send(self, files: Sequence[Path]) -> Iterator[str]:
        """Send DICOM files, see [`Destination`]."""
        import pydicom
        import requests

        client = self.client()
        for file in files:
            try:
                answer = client.store_instances([pydicom.dcmread(file)])
                failed = answer.get("FailedSOPSequence") or ()
                yield f"reason 0x{int(failed[0].get('FailureReason') or 0):04X}" if failed else ""
            except requests.RequestException as error:
                yield type(error).__name__  # its message may contain UIDs

    def images(self, days: int, known: Callable[[str], bool]) -> Iterator[tuple[str, str, bytes]]:
        """CR and DX images of the last `days` days, today included, by QIDO-RS and WADO-RS.

        Args:
            days: Number of days.
            known: Whether the image with a SOP Instance UID need not be fetched.

        Yields:
            SOP and Study Instance UID, and the file.

        Raises:
            requests.RequestException: The server did not respond, or with an error.
        """
        client, today = self.client(), datetime.date.today()
        dates = f"{today - datetime.timedelta(days - 1):%Y%m%d}-{today:%Y%m%d}"
        for modality in ("CR", "DX"):
            filters = {"Modality": modality, "StudyDate": dates}
            for found in client.search_for_instances(search_filters=filters, get_remaining=True):
                study, series, uid = (found[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
                if not known(uid):
                    file = client.retrieve_instance(study, series, uid, media_types=(("application/dicom", "*"),))
                    yield uid, study, as_file(file)


def as_file(dataset: Any) -> bytes:
    """A data set with its `file_meta` as the bytes of a DICOM file (PS3.10)."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def tls_to(certificate_authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS context of connections that the node opens; the peer's certificate is verified.

    Args:
        certificate_authority: PEM of the authorities that may sign the peer's certificate; the system's by default.
        certificate: PEM of the node's own certificate, for peers that ask for one.
        key: Private key, if it is not in the same file.
    """
    context = ssl.create_default_context(cafile=None if certificate_authority is None else str(certificate_authority))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def tls_from(certificate: Path, key: Path | None, certificate_authority: Path | None) -> ssl.SSLContext:
    """TLS context of connections from callers.

    Args:
        certificate: PEM of the node's own certificate.
        key: Private key, if it is not in the same file.
        certificate_authority: PEM of the authorities that may sign callers' certificates; without it they need none.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if certificate_authority is not None:
        context.load_verify_locations(cafile=certificate_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
