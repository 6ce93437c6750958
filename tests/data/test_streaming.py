# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Streams: every image once per epoch, whatever divides them, and the same view of it wherever it is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from datasets.distributed import split_dataset_by_node
from PIL import Image
from torch.utils.data import DataLoader

from clarity_hf import ClarityImageProcessor
from clarity_hf.data import streaming
from clarity_hf.data.rows import row_features
from clarity_hf.data.streaming import TransformedStream
from clarity_hf.data.transforms import ImageTransform

SCRIPT = Path(__file__).with_name("streamed_run.py")
IMAGES = 24


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Images of noise; the label of image i is i, so that a batch says which images are in it."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(generator.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{i}.png")
    columns = {
        "image": [str(folder / f"{i}.png") for i in range(IMAGES)],
        "labels": [[float(i)] for i in range(IMAGES)],
        "patient_id": [str(i) for i in range(IMAGES)],
    }
    return datasets.Dataset.from_dict(columns, features=row_features(1))


@pytest.fixture(scope="module")
def transform():
    processor = ClarityImageProcessor(size={"height": 32, "width": 32})
    return ImageTransform(processor, augment="full", prior="none")


def numbers(batches):
    return [int(label) for batch in batches for label in batch["labels"][:, 0]]


def views(stream):
    return {int(example["labels"][0]): example["pixel_values"] for example in stream}


@pytest.mark.parametrize(("shards", "workers"), [(4, 0), (4, 2), (3, 2), (1, 2)])
def test_each_image_comes_once_whatever_the_workers(rows, transform, shards, workers):
    stream = TransformedStream(rows.to_iterable_dataset(num_shards=shards), transform)
    assert sorted(numbers(DataLoader(stream, 5, num_workers=workers))) == list(range(IMAGES))


@pytest.mark.parametrize("shards", [4, 3])  # whole shards for each process, or every other image
def test_rows_split_by_node_are_seen_once_over_two_ranks_of_two_workers(rows, transform, shards):
    seen = []
    for rank in range(2):
        part = split_dataset_by_node(rows.to_iterable_dataset(num_shards=shards), rank, 2)
        seen += numbers(DataLoader(TransformedStream(part, transform), 3, num_workers=2))
    assert sorted(seen) == list(range(IMAGES))


def test_accelerate_without_dispatching_shows_each_image_to_one_of_two_ranks(rows, transform):
    seen = []
    for rank in range(2):
        loader = DataLoader(TransformedStream(rows.to_iterable_dataset(num_shards=4), transform), 3, num_workers=2)
        prepared = prepare_data_loader(
            loader, num_processes=2, process_index=rank, put_on_device=False, dispatch_batches=False
        )
        seen.append(numbers(prepared))
    assert len(seen[0]) == len(seen[1]) == IMAGES // 2
    assert sorted(seen[0] + seen[1]) == list(range(IMAGES))


def test_the_trainer_shows_each_image_once_over_two_processes_of_two_workers(rows, tmp_path):
    rows.save_to_disk(tmp_path / "data")
    output = tmp_path / "seen"
    output.mkdir()
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *(str(SCRIPT), str(tmp_path / "data"), str(output)),
        ],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ranks = [json.loads((output / f"{rank}.json").read_text()) for rank in range(2)]
    for epoch in range(2):
        assert len(ranks[0][epoch]) == len(ranks[1][epoch]) == IMAGES // 2
        assert sorted(number for rank in ranks for number, _ in rank[epoch]) == list(range(IMAGES))
    first, second = (dict(map(tuple, ranks[0][epoch] + ranks[1][epoch])) for epoch in range(2))
    assert all(first[number] != second[number] for number in range(IMAGES))  # persistent workers draw again
    assert [number for number, _ in ranks[0][0]] != [number for number, _ in ranks[0][1]]  # and shuffle again


def test_an_images_view_depends_on_seed_and_epoch_but_not_on_its_place(rows, transform):
    stream = TransformedStream(rows.to_iterable_dataset(num_shards=4), transform)
    first = views(stream)
    torch.manual_seed(99)
    shuffled = views(TransformedStream(rows.to_iterable_dataset(num_shards=2).shuffle(seed=1), transform))
    assert all(torch.equal(first[i], shuffled[i]) for i in range(IMAGES))
    other_seed = views(TransformedStream(rows.to_iterable_dataset(), transform, seed=1))
    stream.set_epoch(1)
    other_epoch = views(stream)
    for other in (other_seed, other_epoch):
        assert not any(torch.equal(first[i], other[i]) for i in range(IMAGES))


def test_reading_leaves_the_global_random_state(rows, transform):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    next(iter(TransformedStream(rows.to_iterable_dataset(), transform)))
    assert torch.equal(torch.rand(1), expected)


def test_rows_with_an_index_are_refused(rows, transform):
    with pytest.raises(TypeError, match="TransformedDataset"):
        TransformedStream(rows, transform)


def test_random_numbers_depend_on_an_images_bytes_or_else_on_its_path():
    assert streaming._draw_key({"path": "a.png", "bytes": b"image"}) == b"image"
    assert streaming._draw_key({"path": "a.png", "bytes": None}) == b"a.png"
    with pytest.raises(TypeError, match="undecoded"):
        streaming._draw_key(Image.new("L", (16, 16)))
