# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Films to evaluate on, from phantoms and from a data set's rows."""

import numpy as np
import PIL.Image
import pytest

from clarity_hf.data.phantoms import write_phantoms
from clarity_hf.evaluation.films import AlignedFilms, PhantomFilms, RowFilms, open_films
from clarity_hf.labels import FINDINGS


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    write_phantoms(folder, 12, seed=3, size=(64, 96))
    return folder


def test_a_phantom_is_the_same_film_at_every_reading_and_brings_all_that_is_known_of_it():
    films = PhantomFilms(8, size=64)
    drawn = films.rows.phantom(5)
    film = films[5]
    assert film.name == films.names[5] == "phantom-test-0-5" == film.patient
    np.testing.assert_array_equal(film.pixels, drawn.image)
    np.testing.assert_array_equal(film.thorax, drawn.thorax)
    assert (film.sex, film.age, film.view) == (drawn.sex, drawn.age, drawn.view)
    assert sum(len(boxes) for boxes in film.boxes.values()) == len(drawn.boxes)
    for name, box in drawn.boxes:
        assert list(box) in film.boxes[FINDINGS.index(name)].tolist()


def test_streams_and_seeds_of_phantoms_have_names_and_films_of_their_own():
    sets = [PhantomFilms(3, split, seed, size=64) for split in ("validation", "test") for seed in (0, 1)]
    assert len({name for films in sets for name in films.names}) == 12
    assert len({films[0].pixels.tobytes() for films in sets}) == 4


def test_boxes_of_a_release_are_in_pixels_of_the_film_on_disk(release):
    films = open_films(str(release), "validation", validation_fraction=0.9)
    assert isinstance(films, RowFilms)
    boxed = [film for film in (films[index] for index in range(len(films))) if film.boxes]
    assert boxed
    for film in boxed:
        assert film.pixels.shape == (64, 96)
        for finding, boxes in film.boxes.items():
            assert film.labels[finding] == 1
            assert boxes.shape[1] == 4
            np.testing.assert_allclose(boxes, boxes.round(), atol=1e-3)  # drawn on whole pixels of the film
            assert (boxes[:, 2] <= 96).all()
            assert (boxes[:, 3] <= 64).all()
    assert max(boxes[:, 2].max() for film in boxed for boxes in film.boxes.values()) > 64  # no frame of 64 × 64


def test_a_row_of_a_release_brings_patient_sex_age_view_and_thorax(release):
    film = open_films(str(release), "test")[0]
    assert film.name.startswith(film.patient)
    assert film.sex in ("M", "F")
    assert 0 <= film.age <= 120
    assert film.view in ("PA", "AP")
    assert film.thorax.dtype == bool
    assert 0.2 < film.thorax.mean() < 0.9


def test_rows_without_patients_are_patients_of_their_own(film):
    rows = [{"image": film, "labels": [1.0, float("nan")]}, {"image": film, "labels": [0.0, 1.0]}]
    films = RowFilms(rows, ["Mass", "Fracture"])
    assert [films[i].patient for i in range(2)] == ["film-000000", "film-000001"] == films.names
    np.testing.assert_array_equal(films[0].labels, [1, np.nan])
    assert films[0].boxes == {}
    assert films[0].thorax is None


def test_labels_and_boxes_are_brought_into_the_models_order_and_what_is_missing_is_unknown(film, caplog):
    row = {"image": film, "labels": [1.0, 0.0, 1.0], "box_findings": [0, 2, 2], "boxes": [[0, 0, 2, 2]] * 3}
    films = AlignedFilms(RowFilms([row], ["Nodule", "Fracture", "Mass"], None), ["Mass", "Hernia", "Nodule"])
    found = films[0]
    np.testing.assert_array_equal(found.labels, [1, np.nan, 1])
    assert {finding: len(boxes) for finding, boxes in found.boxes.items()} == {0: 2, 2: 1}
    assert "Fracture are not the model's findings and are left out" in caplog.text
    assert films.names == ["film-000000"]


def test_films_without_any_finding_of_the_model_are_refused(film):
    rows = RowFilms([{"image": film, "labels": [1.0]}], ["Fracture"])
    with pytest.raises(ValueError, match=r"`films` must have one of the model's findings, got \['Fracture'\]"):
        AlignedFilms(rows, ["Mass"])


def test_a_table_whose_columns_are_in_another_order_gives_labels_in_the_models(tmp_path, film):
    PIL.Image.fromarray(film).save(tmp_path / "film.png")
    (tmp_path / "films.csv").write_text("path,patient_id,split,Pneumothorax,Atelectasis\nfilm.png,a,test,1,0\n")
    films = open_films(str(tmp_path / "films.csv"), "test", wanted=FINDINGS)
    labels = dict(zip(FINDINGS, films[0].labels, strict=True))
    assert (labels["Pneumothorax"], labels["Atelectasis"]) == (1, 0)
    assert np.isnan(labels["Hernia"])
    assert films.findings == FINDINGS


def test_the_fingerprint_changes_with_labels_boxes_and_patients(film):
    row = {"image": film, "labels": [1.0], "patient_id": "a", "boxes": [[0, 0, 2, 2]], "box_findings": [0]}

    def fingerprint(**changes):
        return RowFilms([row | changes], ["Mass"]).fingerprint

    assert fingerprint() == fingerprint()
    others = ({"labels": [0.0]}, {"patient_id": "b"}, {"boxes": [[0, 0, 3, 2]]}, {"box_findings": [1]})
    assert len({fingerprint(), *(fingerprint(**changes) for changes in others)}) == 5
    phantoms = [PhantomFilms(3, "test", seed, size).fingerprint for seed in (0, 1) for size in (64, 96)]
    assert len(set(phantoms)) == 4


def test_only_the_first_films_are_opened_where_a_count_is_given(release):
    assert len(open_films(str(release), "train", count=3)) == 3
    assert len(open_films("phantom", count=7)) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "`split` must be one of"),
        ({"count": 0}, "`count` must be at least 1"),
        ({"validation_fraction": 0.0, "split": "validation"}, "`split` must be one with films, got 'validation'"),
    ],
)
def test_what_cannot_be_opened_is_refused(release, settings, message):
    with pytest.raises(ValueError, match=message):
        open_films(str(release), **settings)
