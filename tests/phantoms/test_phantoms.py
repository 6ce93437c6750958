# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Phantoms: determinism, exact boxes, the difference that a finding makes, the folder, and how hard they are."""

import csv

import numpy as np
import PIL.Image
import pytest

from clarity_hf.data.nih import read_nih_tables
from clarity_hf.labels import FINDINGS
from clarity_hf.phantoms import (
    GENERATOR_VERSION,
    NORMAL_SHARE,
    draw_phantom,
    generator_fingerprint,
    image_seed,
    iterate_phantoms,
    write_phantoms,
)

# When the images are meant to change, raise GENERATOR_VERSION and pin the new fingerprint here.
PINNED = ("1", "50d238a7d6cd0b0b")


def outside(image, shape):
    """Mask of the pixels in none of the image's boxes."""
    mask = np.ones(shape, dtype=bool)
    for _, (x0, y0, x1, y1) in image.boxes:
        mask[int(y0) : int(y1), int(x0) : int(x1)] = False
    return mask


@pytest.fixture(scope="module")
def images():
    return list(iterate_phantoms(700, seed=11, size=64))


def test_one_seed_gives_one_image():
    first, second = draw_phantom(5), draw_phantom(5)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.thorax, second.thorax)
    assert (first.boxes, first.sex, first.age, first.view) == (second.boxes, second.sex, second.age, second.view)


def test_the_global_random_state_is_neither_read_nor_moved():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = draw_phantom(5, 64)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(1)
    np.testing.assert_array_equal(draw_phantom(5, 64).image, first.image)


def test_seeds_give_different_images():
    images = [draw_phantom(seed, 96, []).image.astype(float) for seed in range(6)]
    assert all(np.abs(a - b).mean() > 5 for i, a in enumerate(images) for b in images[:i])


def test_an_image_is_grey_uint8_with_bright_middle_and_dark_lungs():
    for seed in range(8):
        image = draw_phantom(seed, 128, [])
        assert image.image.dtype == np.uint8
        assert image.thorax.dtype == bool
        assert image.image.shape == image.thorax.shape == (128, 128)
        assert image.labels.dtype == np.float32
        assert image.labels.shape == (14,)
        assert 0.2 < image.thorax.mean() < 0.65
        assert image.view in ("PA", "AP")
        assert image.sex in ("M", "F")
        assert 0 < image.age < 100
        inside = image.image[image.thorax]
        assert np.percentile(inside, 95) - np.percentile(inside, 10) > 40


def test_a_normal_image_has_no_label_and_no_box():
    for findings in ([], ["No Finding"]):
        image = draw_phantom(3, 96, findings)
        assert image.boxes == ()
        assert not image.labels.any()


@pytest.mark.parametrize("finding", FINDINGS)
def test_each_finding_has_its_label_and_its_boxes_inside_the_image(finding):
    for seed in range(15):
        image = draw_phantom(seed, 128, [finding])
        assert image.labels.tolist() == [float(name == finding) for name in FINDINGS]
        assert 1 <= len(image.boxes) <= 2
        for name, (x0, y0, x1, y1) in image.boxes:
            assert name == finding
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 128
            assert (x1 - x0) * (y1 - y0) > 8


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_image_inside_its_boxes_and_nowhere_else(finding):
    for seed in range(6):
        without, with_it = draw_phantom(seed, 160, []), draw_phantom(seed, 160, [finding])
        change = np.abs(with_it.image.astype(int) - without.image)
        assert change[outside(with_it, change.shape)].max() == 0
        # In every box it is visible, and the box is not much larger than what is seen.
        for _, (x0, y0, x1, y1) in with_it.boxes:
            part = change[int(y0) : int(y1), int(x0) : int(x1)]
            assert part.max() >= 10
        np.testing.assert_array_equal(
            with_it.thorax[outside(with_it, change.shape)], without.thorax[outside(with_it, change.shape)]
        )


def test_a_finding_changes_only_its_boxes_beside_other_findings_too():
    others = ["Effusion", "Cardiomegaly", "Emphysema"]
    for seed in range(4):
        few, more = draw_phantom(seed, 128, others), draw_phantom(seed, 128, [*others, "Mass"])
        assert [box for box in more.boxes if box[0] != "Mass"] == list(few.boxes)
        change = few.image != more.image
        mass = draw_phantom(seed, 128, ["Mass"])
        assert not change[outside(mass, change.shape)].any()
        assert [box for box in more.boxes if box[0] == "Mass"] == list(mass.boxes)


@pytest.mark.parametrize("finding", ["Mass", "Nodule", "Consolidation", "Pleural_Thickening"])
def test_boxes_are_tight(finding):
    fills = []
    for seed in range(12):
        without, with_it = draw_phantom(seed, 192, []), draw_phantom(seed, 192, [finding])
        change = np.abs(with_it.image.astype(int) - without.image)
        rows, columns = np.nonzero(change > 0.2 * change.max())
        _, (x0, y0, x1, y1) = with_it.boxes[0]
        if len(with_it.boxes) == 1:
            fills.append((np.ptp(columns) + 1) * (np.ptp(rows) + 1) / ((x1 - x0) * (y1 - y0)))
    assert np.median(fills) > 0.8


@pytest.mark.parametrize("size", [(96, 160), (160, 96), (224, 200)])
def test_images_need_not_be_square(size):
    image = draw_phantom(4, size, ["Cardiomegaly", "Nodule"])
    assert image.image.shape == image.thorax.shape == size
    for _, (x0, y0, x1, y1) in image.boxes:
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]


@pytest.mark.parametrize("finding", FINDINGS)
def test_boxes_and_pixels_scale_with_the_size(finding):
    # A threshold falls between other pixels at another size: most boxes agree within three pixels of the smaller.
    offsets = []
    for seed in range(8):
        small, large = draw_phantom(seed, 160, [finding]), draw_phantom(seed, 320, [finding])
        assert len(small.boxes) == len(large.boxes)
        for (_, a), (_, b) in zip(small.boxes, large.boxes, strict=True):
            offsets.append(np.abs(np.array(a) - np.array(b) / 2).max())
        halved = large.image.reshape(160, 2, 160, 2).mean(axis=(1, 3))
        assert np.abs(halved - small.image).mean() < 6
    assert np.median(offsets) <= 3


def test_the_thorax_holds_most_of_the_boxes():
    for finding in FINDINGS:
        shares = []
        for seed in range(12):
            image = draw_phantom(seed, 128, [finding])
            for _, (x0, y0, x1, y1) in image.boxes:
                shares.append(image.thorax[int(y0) : int(y1), int(x0) : int(x1)].mean())
        assert np.mean(shares) > 0.6, finding


def test_an_enlarged_heart_is_wider_than_half_the_thorax_and_a_normal_one_is_not():
    for seed in range(20):
        image = draw_phantom(seed, 256, ["Cardiomegaly"])
        ((_, (x0, _, x1, y1)),) = image.boxes
        columns = np.flatnonzero(image.thorax[: int(y1)].any(axis=0))
        if columns[0] > 0 and columns[-1] < 255:  # whole thorax on the image
            assert 0.47 < (x1 - x0) / np.ptp(columns) < 0.75


def test_image_i_depends_on_the_seed_and_i_alone():
    three = list(iterate_phantoms(3, seed=2, size=64))
    five = list(iterate_phantoms(5, seed=2, size=64))
    for a, b in zip(three, five, strict=False):
        np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(five[4].image, draw_phantom(image_seed(2, 4), 64).image)
    assert not np.array_equal(five[0].image, next(iterate_phantoms(1, seed=3, size=64)).image)


def test_findings_given_as_an_iterator_hold_for_every_image():
    images = list(iterate_phantoms(3, size=64, findings=iter(["Mass"])))
    assert all(image.labels[FINDINGS.index("Mass")] == 1 for image in images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "`seed` must be"),
        ({"seed": 0.5}, "`seed` must be"),
        ({"seed": 0, "size": 16}, "`size` must be at least 32"),
        ({"seed": 0, "findings": ["Noodle"]}, "Did you mean 'Nodule'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_phantom(**arguments)


def test_a_negative_count_is_named():
    with pytest.raises(ValueError, match="`count` must be at least 0"):
        next(iterate_phantoms(-1))
    with pytest.raises(ValueError, match="`count` must be at least 1"):
        write_phantoms("unused", 0)
    with pytest.raises(ValueError, match="`test_fraction` must be in"):
        write_phantoms("unused", 2, test_fraction=1.5)


def test_prevalence_is_the_documented_one(images):
    labels = np.stack([image.labels for image in images])
    assert (labels.sum(axis=1) == 0).mean() == pytest.approx(NORMAL_SHARE, abs=0.05)
    assert 1.05 < labels.sum(axis=1).mean() < 1.5
    prevalence = dict(zip(FINDINGS, labels.mean(axis=0), strict=True))
    assert prevalence["Hernia"] > 0.015
    assert all(0.03 < value < 0.2 for finding, value in prevalence.items() if finding != "Hernia")
    # Findings keep each other's company as in the release: effusion and cardiomegaly, not hernia and edema.
    effusion = labels[:, FINDINGS.index("Effusion")] == 1
    heart = labels[:, FINDINGS.index("Cardiomegaly")]
    assert heart[effusion].mean() > 1.2 * heart.mean()


def test_every_label_has_a_box_and_every_box_a_label(images):
    for image in images:
        assert {name for name, _ in image.boxes} == {f for f, v in zip(FINDINGS, image.labels, strict=True) if v == 1}


def test_the_generator_is_the_pinned_one():
    assert (GENERATOR_VERSION, generator_fingerprint()) == PINNED


@pytest.mark.slow
def test_thumbnails_do_not_give_the_findings_away():
    linear_model = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    images = list(iterate_phantoms(3600, seed=21, size=128))
    features = np.stack([image.image.reshape(16, 8, 16, 8).mean(axis=(1, 3)).ravel() for image in images])
    features = (features - features[:2400].mean(axis=0)) / (features[:2400].std(axis=0) + 1e-6)
    labels = np.stack([image.labels for image in images])
    aurocs = []
    for column in range(14):
        model = linear_model.LogisticRegression(C=0.02, max_iter=300).fit(features[:2400], labels[:2400, column])
        aurocs.append(metrics.roc_auc_score(labels[2400:, column], model.decision_function(features[2400:])))
    assert np.mean(aurocs) < 0.80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    calls = []
    write_phantoms(
        folder, 24, seed=5, size=64, test_fraction=0.3, progress=lambda done, count: calls.append((done, count))
    )
    assert calls == [(i + 1, 24) for i in range(24)]
    return folder


def read(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_the_folder_has_the_tables_of_the_release(folder):
    header = (folder / "Data_Entry_2017_v2020.csv").read_text().splitlines()[0]
    assert header == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    assert (folder / "BBox_List_2017.csv").read_text().splitlines()[0] == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    rows = read(folder / "Data_Entry_2017_v2020.csv")[1:]
    assert len(rows) == 24
    for name, findings, follow_up, patient, age, sex, view, *_ in rows:
        assert name == f"{int(patient):08d}_{int(follow_up):03d}.png"
        assert set(findings.split("|")) <= {*FINDINGS, "No Finding"}
        assert sex in "MF"
        assert view in ("PA", "AP")
        assert 0 < int(age) < 120
        image, mask = (PIL.Image.open(folder / part / name) for part in ("images", "masks"))
        assert (image.mode, image.size) == (mask.mode, mask.size) == ("L", (64, 64))
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_the_lists_split_by_patient(folder):
    train, test = ((folder / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt"))
    names = [row[0] for row in read(folder / "Data_Entry_2017_v2020.csv")[1:]]
    assert sorted(train + test) == sorted(names)
    assert test
    assert not {name[:8] for name in train} & {name[:8] for name in test}
    assert len({name[:8] for name in names}) < len(names)  # someone came back


def test_one_patient_keeps_the_sex_and_grows_older(folder):
    people = {}
    for _, _, follow_up, patient, age, sex, *_ in read(folder / "Data_Entry_2017_v2020.csv")[1:]:
        people.setdefault(patient, set()).add((sex, int(age) - int(follow_up)))
    assert all(len(facts) == 1 for facts in people.values())


def test_boxes_are_in_the_frame_of_the_release(folder):
    rows = read(folder / "Data_Entry_2017_v2020.csv")[1:]
    labels = {row[0]: set(row[1].split("|")) - {"No Finding"} for row in rows}
    boxed = {}
    for name, finding, x, y, w, h, *_ in read(folder / "BBox_List_2017.csv")[1:]:
        boxed.setdefault(name, set()).add(finding)
        x, y, w, h = (float(value) for value in (x, y, w, h))
        assert 0 <= x < x + w <= 1024
        assert 0 <= y < y + h <= 1024
        assert x % 16 == y % 16 == w % 16 == h % 16 == 0  # a pixel of the 64x64 image
    assert boxed == {name: findings for name, findings in labels.items() if findings}


def test_the_reader_of_the_release_reads_the_folder(folder):
    images, report = read_nih_tables(folder)
    assert (report.rows, report.usable, report.has_masks) == (24, 24, True)
    assert sum(len(image.boxes) for image in images) == len(read(folder / "BBox_List_2017.csv")) - 1


def test_the_folder_is_the_same_every_time(folder, tmp_path):
    write_phantoms(tmp_path, 24, seed=5, size=64, test_fraction=0.3)
    for path in folder.rglob("*.*"):
        other = tmp_path / path.relative_to(folder)
        assert other.read_bytes() == path.read_bytes()


def test_contrast_makes_findings_stronger_where_they_are():
    normal, faint, strong = (draw_phantom(5, 128, *rest) for rest in ([[]], [["Nodule"]], [["Nodule"], 3.0]))
    change, more = (np.abs(image.image.astype(int) - normal.image) for image in (faint, strong))
    ((_, (x0, y0, x1, y1)),) = strong.boxes
    outside = np.ones(change.shape, dtype=bool)
    outside[int(y0) : int(y1), int(x0) : int(x1)] = False
    assert more.max() > change.max() + 20
    assert not more[outside].any()


def test_contrast_does_not_change_a_large_heart():
    usual, strong = (draw_phantom(5, 128, ["Cardiomegaly"], contrast) for contrast in (1.0, 3.0))
    np.testing.assert_array_equal(usual.image, strong.image)


@pytest.mark.parametrize("contrast", [0.0, -1.0, float("inf"), float("nan")])
def test_a_contrast_must_be_above_zero(contrast):
    with pytest.raises(ValueError, match="`contrast` must be above 0"):
        draw_phantom(0, 64, contrast=contrast)
