# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Mutated inputs are read or refused in our words: those that once were not, and a few hundred new ones."""

import os
import signal
import time
import warnings
from pathlib import Path

import fuzz_readers
import pytest
from fuzz_inputs import all_seeds, folder_seeds, make, pydicom_seeds
from fuzz_targets import READERS, is_refusal, prepare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.input"))

# hypothesis draws the same inputs on every run.
QUICK = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def seeds():
    pytest.importorskip("pydicom", minversion="3.0")
    return all_seeds()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzing")
    prepare(folder)
    return folder


def outcome(reader, content, folder):
    """None where it is read, else the error, which must be one of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            READERS[reader](content, folder)
        except BaseException as error:
            if not is_refusal(reader, error):
                raise
            return error
    return None


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_what_a_fuzzer_found_stays_fixed(file, folder):
    outcome(file.stem.split("--")[0], file.read_bytes(), folder)


def test_the_corpus_is_there_and_small():
    assert len(CORPUS) > 30
    assert max(file.stat().st_size for file in CORPUS) < 10_000


@pytest.mark.parametrize("reader", READERS)
def test_seeds_are_read_unless_they_hold_several_frames(reader, seeds, folder):
    foreign = pydicom_seeds() if reader == "dicom" else []  # not of a chest, or broken: read or refused
    own = [content for content in seeds[reader] if content not in foreign]
    refused = [str(error) for content in own if (error := outcome(reader, content, folder)) is not None]
    assert [message for message in refused if "several frames" not in message] == []
    assert len(refused) < len(own)
    fates = [outcome(reader, content, folder) is None for content in foreign]
    assert not foreign or sum(fates) >= 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_mutated_files_are_read_or_refused(reader, seeds, folder):
    @settings(QUICK, max_examples=25)
    @given(st.integers(0, 2**32))
    def read(number):
        outcome(reader, make(reader, seeds[reader], f"quick:{number}"), folder)

    read()


@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_read_or_refused(folder):
    @settings(QUICK, max_examples=200)
    @given(st.sampled_from([name for name in READERS if name not in ("yaml", "config", "processor")]), st.binary())
    def read(reader, content):
        outcome(reader, content, folder)

    read()


# The program itself


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (ValueError("`image` must be one image, got 2 frames. Pass them one by one."), True),
        (FileNotFoundError("`table` must be a file, got nothing at x. Check the path."), True),
        (FileNotFoundError("No such file: x.png"), True),
        (ValueError("cannot reshape array"), False),
        (KeyError("`image` must be one image, got 2 frames. Pass them one by one."), False),
        (RecursionError("maximum recursion depth exceeded"), False),
    ],
)
def test_only_our_errors_in_our_words_are_refusals(error, ours):
    assert is_refusal("png", error) is ours


def test_an_input_follows_from_its_number(seeds):
    assert make("tiff", seeds["tiff"], "0:7") == make("tiff", seeds["tiff"], "0:7")
    assert len({make("tiff", seeds["tiff"], f"0:{number}") for number in range(50)}) > 40


def _strange(content, folder):
    """Five inputs of five fates."""
    fate = sum(content) % 5
    if fate == 0:
        raise KeyError("neither ours nor its words")
    if fate == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if fate == 2:
        time.sleep(60)
    if fate == 3:
        raise ValueError("`image` must be whole, got half. Copy it again.")


def test_errors_crashes_and_hangs_are_found_and_counted(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(fuzz_readers.READERS, "png", _strange)
    monkeypatch.setattr(fuzz_readers, "all_seeds", lambda: {"png": [bytes([fate]) for fate in range(5)]})
    monkeypatch.setattr(fuzz_readers, "make", lambda reader, seeds, seed: seeds[int(seed.split(":")[1]) % 5])
    words = ["--inputs", "10", "--seconds", "0.5", "--findings", str(tmp_path)]
    assert fuzz_readers.main(words) == 1
    assert {file.stem.split("-")[2] for file in tmp_path.glob("*.input")} == {"KeyError", "crash", "hang"}
    printed = capfd.readouterr().out
    assert "| png | 10 | 2 | 2 | 0 | 0 | 0 | 0 | 0 | 6 |" in printed
    assert "{'other error': 2, 'crash': 2, 'hang': 2}" in printed


def test_files_of_a_folder_are_seeds_by_their_kind(tmp_path, seeds):
    (tmp_path / "image.png").write_bytes(seeds["png"][0])
    (tmp_path / "notes.txt").write_text("no seed")
    assert folder_seeds(tmp_path) == {"png": [seeds["png"][0]]}


@pytest.mark.slow
def test_ten_thousand_inputs_are_read_or_refused(tmp_path):
    assert fuzz_readers.main(["--inputs", "10000", "--seed", "1", "--findings", str(tmp_path)]) == 0
