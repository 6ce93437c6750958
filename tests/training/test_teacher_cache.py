# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Cached logits: those of the online teacher, computed once, and never those of another image, teacher or view."""

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from clarity_hf import ClarityImageProcessor
from clarity_hf.data.sources import JoinedRows, PhantomRows, RepeatedRows
from clarity_hf.data.transforms import ImageTransform, TransformedDataset
from clarity_hf.fingerprints import image_key
from clarity_hf.training import Teacher
from clarity_hf.training import teacher_cache as module
from clarity_hf.training.teacher_cache import (
    CachedTeacherRows,
    TeacherLogits,
    cache_teacher_logits,
    fingerprint,
)

FINDINGS = ["Effusion", "Mass", "Nodule"]
SIZE = 32
OWN = ([0.4, 0.5, 0.6], [0.2, 0.25, 0.5])


class Halves(nn.Module):
    """A teacher that tells left from right: logit c is the weight times the mean of the left half of channel c."""

    def __init__(self, findings=FINDINGS):
        super().__init__()
        self.config = SimpleNamespace(id2label=dict(enumerate(findings)))
        self.weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.images = 0

    def forward(self, pixel_values):
        assert not torch.is_grad_enabled()
        self.images += len(pixel_values)
        left = pixel_values[..., : pixel_values.shape[-1] // 2]
        return SimpleNamespace(logits=left.mean((2, 3)) * self.weight)


def student(side=SIZE, **settings):
    return ClarityImageProcessor(size={"height": side, "width": side}, **settings)


def build_teacher(processor=None, findings=FINDINGS, model=None):
    processor = processor or student()
    model = Halves() if model is None else model
    return Teacher(model, findings, processor.image_mean, processor.image_std, *OWN)


def noise(index, height=40, width=30):
    return np.random.default_rng(index).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture
def rows(tmp_path):
    """Five images as undecoded files, as a folder of images gives them."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        Image.fromarray(noise(index)).save(path)
    return [{"image": {"path": str(path), "bytes": None}, "labels": np.zeros(3)} for path in paths]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def cached(rows, teacher, folder, processor=None, **settings):
    return cache_teacher_logits(rows, teacher, processor or student(), folder, progress=False, **settings)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# What it says --------------------------------------------------------------------------------------------------------


def test_logits_are_those_of_the_online_teacher_in_both_views(rows, folder):
    teacher = build_teacher()
    result = cached(rows, teacher, folder, batch_size=2)
    assert [len(result), result.logits.shape, result.logits.dtype] == [5, (5, 2, 3), np.float32]
    see = ImageTransform(student(), prior="none")
    for index, row in enumerate(rows):
        pixels = see(row)["pixel_values"][None]
        expected = torch.cat([teacher(pixels), teacher(pixels.flip(-1))])
        torch.testing.assert_close(torch.from_numpy(result[index]["teacher_logits"]), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(result.logits[:, 0] - result.logits[:, 1]).min() > 1e-4  # the views differ: their order shows


def test_logits_are_right_by_hand(tmp_path, folder):
    """Left half 0, right half 255: in the teacher's frame −mean/std on the left, (1 − mean)/std in the mirror."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[:, SIZE // 2 :] = 255
    logits = cached([{"image": image}], build_teacher(), folder)[0]["teacher_logits"]
    mean, std = np.array(OWN)
    np.testing.assert_allclose(logits[0], -mean / std * [1, -2, 3], rtol=1e-4)
    np.testing.assert_allclose(logits[1], (1 - mean) / std * [1, -2, 3], rtol=1e-4)


def test_the_transform_takes_the_view_that_it_shows(rows, folder):
    """Cached logits of the view drawn are the online teacher's logits of the very pixels that the student gets."""
    processor, teacher = student(), build_teacher()
    result = cached(rows, teacher, folder, processor)
    dataset = TransformedDataset(result, ImageTransform(processor, augment="flip", prior="none"))
    views = set()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for index in range(len(rows)):
            item = dataset[index]
            online = teacher(item["pixel_values"][None])[0]
            torch.testing.assert_close(item["teacher_logits"], online, rtol=1e-4, atol=1e-5)
            both = torch.from_numpy(result.logits[index])
            views.add(int((both - online).abs().sum(1).argmin()))
    assert views == {0, 1}


def test_a_row_keeps_its_other_columns(rows, folder):
    row = cached(rows, build_teacher(), folder)[3]
    assert row["image"] == rows[3]["image"]
    assert row["labels"] is rows[3]["labels"]


def test_one_view_can_be_enough(rows, folder):
    both = cached(rows, build_teacher(), folder)
    one = cached(rows, build_teacher(), folder, views=("identity",))
    np.testing.assert_array_equal(one.logits, both.logits[:, :1])


def test_logits_follow_the_students_order_of_findings(rows, folder):
    plain = cached(rows, build_teacher(), folder)
    turned = cached(rows, build_teacher(findings=["Nodule", "Effusion", "Mass"]), folder)
    np.testing.assert_array_equal(turned.logits, plain.logits[..., [2, 0, 1]])


@pytest.mark.parametrize("views", [("mirror",), ("mirror", "identity"), ("identity", "crop"), ()])
def test_views_are_those_that_the_transform_draws(rows, folder, views):
    with pytest.raises(ValueError, match="`views` must be"):
        cached(rows, build_teacher(), folder, views=views)


# What is computed, and what is not -----------------------------------------------------------------------------------


def test_a_second_call_does_not_run_the_teacher(rows, folder):
    first = cached(rows, build_teacher(), folder)
    before = files(folder)
    teacher = build_teacher()
    second = cached(rows, teacher, folder)
    assert teacher.model.images == 0
    np.testing.assert_array_equal(second.logits, first.logits)
    assert files(folder) == before


def test_known_images_are_not_decoded(rows, folder, monkeypatch):
    cached(rows, build_teacher(), folder)
    decoded = []
    monkeypatch.setattr(ImageTransform, "__call__", lambda self, row: decoded.append(row))
    cached(rows, build_teacher(), folder)
    assert decoded == []


def test_only_a_changed_image_is_computed_again(rows, folder):
    first = cached(rows, build_teacher(), folder)
    Image.fromarray(noise(99)).save(rows[2]["image"]["path"])
    teacher = build_teacher()
    second = cached(rows, teacher, folder)
    assert teacher.model.images == 2  # one image, two views
    changed = (first.logits != second.logits).any((1, 2))
    assert changed.tolist() == [False, False, True, False, False]


def test_the_same_image_twice_is_computed_once(rows, folder):
    teacher = build_teacher()
    result = cached(RepeatedRows(rows, 3), teacher, folder, batch_size=4)
    assert teacher.model.images == 10
    np.testing.assert_array_equal(result.logits[:5], result.logits[10:])


def test_images_are_known_wherever_they_lie(rows, folder, tmp_path):
    cached(rows, build_teacher(), folder)
    moved = tmp_path / "moved.png"
    os.replace(rows[0]["image"]["path"], moved)
    teacher = build_teacher()
    cached([{"image": str(moved)}, {"image": moved}, {"image": moved.read_bytes()}], teacher, folder)
    assert teacher.model.images == 0


def test_another_weight_another_view_or_another_order_is_another_file(rows, folder):
    def names(teacher, processor, views=("identity", "mirror")):
        before = set(files(folder)) if folder.exists() else set()
        cached(rows, teacher, folder, processor, views=views)
        assert teacher.model.images == 5 * len(views)
        (new,) = set(files(folder)) - before
        return new.split("-")[0]

    changed = build_teacher()
    with torch.no_grad():
        changed.model.weight[1] += 1e-3
    fingerprints = [
        names(build_teacher(), student()),
        names(changed, student()),
        names(build_teacher(), student(), views=("identity",)),
        names(build_teacher(findings=FINDINGS[::-1]), student()),
        names(build_teacher(model=Halves(["Mass", "Effusion", "Nodule"])), student()),
        names(build_teacher(student(48)), student(48)),
        names(build_teacher(), student(keep_ratio=False)),
    ]
    assert len(set(fingerprints)) == 7


def test_the_fingerprint_survives_saving_and_moving(tmp_path):
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    config = ConvNextV2Config(hidden_sizes=[8] * 4, depths=[1] * 4, id2label=dict(enumerate(FINDINGS)))
    config.label2id = {name: index for index, name in enumerate(FINDINGS)}
    model = ConvNextV2ForImageClassification(config)
    found = set()
    for name in ("here", "there"):
        model.save_pretrained(tmp_path / name)
        student(image_mean=OWN[0], image_std=OWN[1]).save_pretrained(tmp_path / name)
        processor = ClarityImageProcessor.from_pretrained(tmp_path / name)
        for each in (processor, student(image_mean=OWN[0], image_std=OWN[1])):
            teacher = Teacher.from_pretrained(str(tmp_path / name), FINDINGS, each)
            found.add(fingerprint(teacher, each, ("identity",)))
    assert len(found) == 1


def test_what_is_inside_the_key_of_an_image():
    image = noise(0)
    assert image_key(image) == image_key(image.copy(order="F"))
    assert len(image_key(image)) == 16
    others = [image.T, image.astype(np.int16), image.reshape(30, 40), Image.fromarray(image), image.tobytes()]
    assert len({image_key(other) for other in [image, *others]}) == 6


# Files ---------------------------------------------------------------------------------------------------------------


def break_content(path):
    """Change one byte of the logits and leave the file well formed."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, empty, break_content])
def test_a_damaged_file_is_named_and_computed_again(rows, folder, caplog, damage):
    first = cached(rows, build_teacher(), folder)
    (name,) = files(folder)
    damage(folder / name)
    teacher = build_teacher()
    with caplog.at_level(logging.WARNING):
        second = cached(rows, teacher, folder)
    assert name in caplog.text
    assert "damaged" in caplog.text
    assert teacher.model.images == 10
    np.testing.assert_array_equal(second.logits, first.logits)
    caplog.clear()
    cached(rows, build_teacher(), folder)
    assert caplog.text == ""


class Interrupted(Halves):
    """A teacher that is stopped after some images."""

    def forward(self, pixel_values):
        if self.images >= 4:
            raise KeyboardInterrupt
        return super().forward(pixel_values)


def test_a_run_that_is_stopped_keeps_its_parts_and_is_resumed(rows, folder):
    with pytest.raises(KeyboardInterrupt):
        cached(rows, build_teacher(model=Interrupted()), folder, batch_size=1, part_size=1)
    assert len(files(folder)) == 2
    assert all(name.endswith(".safetensors") for name in files(folder))
    # The class of a teacher is part of its fingerprint: continue with the same one.
    teacher = build_teacher(model=Interrupted())
    teacher.model.images = -100
    result = cached(rows, teacher, folder, batch_size=1, part_size=1)
    assert teacher.model.images == -100 + 6
    np.testing.assert_array_equal(result.logits, cached(rows, build_teacher(), folder).logits)


def test_a_write_that_fails_leaves_no_half_file(rows, folder, monkeypatch):
    def fail(tensors, path, metadata):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        cached(rows, build_teacher(), folder)
    assert files(folder) == []


def test_parts_contain_the_requested_number_of_images(rows, folder):
    cached(rows, build_teacher(), folder, batch_size=1, part_size=2)
    assert len(files(folder)) == 3


def test_workers_give_the_same(rows, folder, tmp_path):
    alone = cached(rows, build_teacher(), folder)
    helped = cached(rows, build_teacher(), tmp_path / "other", num_workers=1, batch_size=2)
    np.testing.assert_allclose(helped.logits, alone.logits, rtol=1e-5)


def one_of_two(rank, rows, folder):
    """One process of a group: its logits and how many images its teacher saw."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    teacher = build_teacher()
    result = cached(rows, teacher, folder / "cache")
    np.savez(folder / f"{rank}.npz", logits=result.logits, images=teacher.model.images)
    dist.destroy_process_group()


def test_of_two_processes_one_computes_and_both_have_the_logits(rows, tmp_path):
    fork = torch.multiprocessing.get_context("fork")  # a new interpreter would import for ten seconds
    processes = [fork.Process(target=one_of_two, args=(rank, rows, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    assert [int(first["images"]), int(second["images"])] == [10, 0]
    np.testing.assert_array_equal(second["logits"], first["logits"])
    assert len(files(tmp_path / "cache")) == 1


# What it refuses -----------------------------------------------------------------------------------------------------


def test_endless_phantoms_are_refused_wherever_they_are(rows, folder):
    phantoms = PhantomRows(4, size=64)
    joined = JoinedRows([rows, phantoms])
    processor = student()
    for endless in (phantoms, joined, TransformedDataset(joined, ImageTransform(processor, prior="none"))):
        with pytest.raises(ValueError, match=r"got PhantomRows, which draws new ones.*teacher itself"):
            cached(endless, build_teacher(), folder)


def test_joined_images_are_taken(rows, folder):
    assert cached(JoinedRows([rows, rows]), build_teacher(), folder).logits.shape == (10, 2, 3)


def test_rows_that_are_already_transformed_are_refused(rows, folder):
    dataset = TransformedDataset(rows, ImageTransform(student(), prior="none"))
    with pytest.raises(ValueError, match=r"must have images under 'image', got .*'pixel_values'"):
        cached(dataset, build_teacher(), folder)


def test_streams_are_refused(rows, folder):
    with pytest.raises(ValueError, match="must be map-style, got list_iterator"):
        cached(iter(rows), build_teacher(), folder)


def test_a_diverged_teacher_is_not_cached(rows, folder):
    teacher = build_teacher()
    teacher.model.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="finite logits"):
        cached(rows, teacher, folder)
    assert not folder.exists()


def test_a_missing_image_is_named(rows, folder):
    os.unlink(rows[1]["image"]["path"])
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        cached(rows, build_teacher(), folder)


def test_rows_pass_the_epoch_on_and_know_their_bounds(rows):
    class EpochAware(list):
        def set_epoch(self, epoch):
            self.epoch = epoch

    aware = EpochAware(rows)
    result = CachedTeacherRows(aware, np.zeros((5, 1, 3), np.float32))
    result.set_epoch(3)
    assert aware.epoch == 3
    CachedTeacherRows(rows, np.zeros((5, 1, 3), np.float32)).set_epoch(3)
    for index in (-1, 5):
        with pytest.raises(IndexError, match="between 0 and 4"):
            result[index]
    with pytest.raises(ValueError, match=r"must be \(5, V, F\), got \(4, 1, 3\)"):
        CachedTeacherRows(rows, np.zeros((4, 1, 3), np.float32))


def test_no_rows_give_no_logits(folder):
    assert cached([], build_teacher(), folder).logits.shape == (0, 2, 3)
    assert not folder.exists()


def test_a_folder_is_read_without_rows(rows, folder):
    first = cached(rows, build_teacher(), folder)
    store = TeacherLogits(folder, build_teacher(), student())
    store.read()
    assert len(store.known) == 5
    np.testing.assert_array_equal(store.known[image_key(rows[4]["image"])], first.logits[4])
