# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images that inputs stand for, and what they are called."""

import errno
import os

import pytest
from PIL import Image

from clarity_hf.inference import find_images, image_files

COUNT = 7


def names(found):
    return [image.name for image in found.images]


def png(index):
    return f"{index}.png"


def test_a_folder_is_searched_by_content_and_the_rest_is_counted(images):
    (images / "0.png").rename(images / "no-ending")
    (images / "dicom-like").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (images / "broken.jpg").write_bytes(b"junk")
    (images / "notes.txt").write_text("images")
    (images / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (images / ".hidden.png").write_bytes(b"")
    found = find_images([images])
    assert names(found) == [*(png(index) for index in range(1, COUNT)), "broken.jpg", "dicom-like", "no-ending"]
    assert found.passed_over == {"": 1, ".txt": 1}


def test_folders_inside_are_searched_only_if_asked_and_never_the_results(images):
    for inside in ("deep/er", "out/overlays"):
        (images / inside).mkdir(parents=True)
        (images / "0.png").replace(images / inside / "0.png") if inside == "deep/er" else None
    (images / "out" / "overlays" / "1.png.png").write_bytes((images / "1.png").read_bytes())
    rest = [png(index) for index in range(1, COUNT)]
    assert names(find_images([images])) == rest
    assert names(find_images([images], recursive=True, exclude=[images / "out"])) == [*rest, "deep/er/0.png"]
    glob = find_images([f"{images}/**/*.png"], exclude=[images / "out"])
    assert sorted(names(glob)) == sorted([*rest, "deep/er/0.png"])
    assert glob.passed_over == {".png": 1}


def test_files_globs_and_lists_name_each_image_once(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("images/5.png\n\nimages/[01].png\n")
    found = find_images(["images/1.png", "@list.txt", f"{images}/5.png"])
    assert names(found) == ["1.png", "5.png", "0.png"]
    assert [image.path for image in found.images] == [images / name for name in names(found)]


def test_names_start_below_the_folder_common_to_all_inputs(images, image, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    Image.fromarray(image).save(other / "0.png")
    assert names(find_images([images / "0.png", other])) == ["images/0.png", "more/0.png"]


def test_without_a_common_folder_names_start_with_what_tells_the_inputs_apart():
    starts = image_files._starts_of_names
    assert starts({"/one/images", "/one/images/deep", "/two/more"}) == {"/one/images": "images", "/two/more": "more"}
    assert starts({"/one/a/images", "/two/b/images"}) == {"/one/a/images": "a/images", "/two/b/images": "b/images"}
    assert starts({"/one/images", "/two/b"}) == {"/one/images": "images", "/two/b": "b"}
    assert starts({"/", "/one"}) == {"/": ""}  # asked for
    named = starts({"/one/images", "/two/more"})
    assert image_files._name("/one/images/deep/0.png", named) == "images/deep/0.png"


@pytest.mark.parametrize("given", ["nowhere.png", "images/*.gif", "@nowhere.txt"])
def test_a_missing_input_is_named(images, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No (such|file).*(nowhere|gif)"):
        find_images(["images", given])


def test_a_folder_without_images_is_an_error_that_counts_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match="got none among 1 files"):
        find_images([tmp_path])


def test_one_input_needs_no_list(images):
    assert names(find_images(str(images))) == names(find_images(images)) == [png(index) for index in range(COUNT)]


def test_folders_that_cannot_be_listed_are_named(images, monkeypatch):
    for closed in ("closed", "open/closed"):
        (images / closed).mkdir(parents=True)
    (images / "0.png").rename(images / "open" / "0.png")
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_images([images], recursive=True)
    assert "open/0.png" in names(found)
    assert found.unread == {
        str(images / folder): "cannot be listed (Permission denied)" for folder in ("closed", "open/closed")
    }
    assert find_images([f"{images}/**/*.png"]).unread == found.unread
    assert find_images([f"{images}/*/*.png"]).unread == {
        str(images / "closed"): "cannot be listed (Permission denied)"
    }
    with pytest.raises(ValueError, match=r"got none .* /.*closed: cannot be listed \(Permission denied\)"):
        find_images([images / "closed"])


def test_folders_inside_are_counted_where_they_are_not_searched(images):
    for inside in ("one/deep", "two"):
        (images / inside).mkdir(parents=True)
    assert find_images([images]).folders == 2
    assert find_images([images], recursive=True).folders == 0


def test_overlays_in_folders_of_earlier_results_are_no_images(images, image):
    results = images / "results"
    (results / "overlays").mkdir(parents=True)
    Image.fromarray(image).save(results / "overlays" / "0.png.png")
    assert "results/overlays/0.png.png" in names(find_images([images], recursive=True))  # nothing says what it is
    for name in ("settings.json", "findings.jsonl"):
        (results / name).touch()
    found = find_images([images], recursive=True)
    assert names(found) == [png(index) for index in range(COUNT)]
    assert (found.results, found.unread) == (1, {})
    Image.fromarray(image).save(results / "radiograph.png")  # results may lie beside the images
    assert names(find_images([results], recursive=True)) == ["radiograph.png"]
    assert names(find_images([results / "overlays"])) == ["0.png.png"]  # asked for by name


def test_linked_folders_are_searched_once_and_loops_end(images, image, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(image).save(elsewhere / "9.png")
    (images / "real").mkdir()
    (images / "0.png").rename(images / "real" / "0.png")
    for link, target in (("again", images / "real"), ("loop", images), ("out", elsewhere), ("out-2", elsewhere)):
        (images / link).symlink_to(target)
    (elsewhere / "back").symlink_to(images)
    (images / "up").symlink_to(tmp_path)
    found = find_images([images], recursive=True)
    assert names(found) == [*(png(index) for index in range(1, COUNT)), "out/9.png", "real/0.png"]
    assert found.unread == {
        str(images / "up"): "is a link to a folder that contains this one",
    }


LISTS = {
    "plain": b"images/5.png\nimages/1.png\n",
    "Windows": b"images/5.png\r\nimages/1.png\r\n",
    "UTF-8 with its mark": "\ufeffimages/5.png\nimages/1.png".encode(),
    "UTF-16": "images/5.png\r\nimages/1.png\r\n".encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + "images/5.png\nimages/1.png\n".encode("utf-16-be"),
    "quotes": b"\"images/5.png\"\n'images/1.png'\n",
    "blanks": b"  images/5.png\t\n\n images/1.png \n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_are_read_as_editors_and_spreadsheets_write_them(images, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_bytes(LISTS[kind])
    assert names(find_images(["@list.txt"])) == ["5.png", "1.png"]


@pytest.mark.parametrize("name", ["a b.png", " a.png", "a.png ", '"a".png', "a\x0bb.png", "a\u2028b.png", "@a.png"])
def test_names_in_lists_are_taken_to_the_letter(images, tmp_path, monkeypatch, name):
    monkeypatch.chdir(images)
    (images / "0.png").rename(images / name)
    (tmp_path / "list.txt").write_text(f"{name}\n")
    assert names(find_images([f"@{tmp_path}/list.txt"])) == [name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("images/größe.png".encode("latin-1"), "The list @list.txt is not UTF-8 text"),
        ("images/1.png\n".encode("utf-16-le"), "The list @list.txt contains NUL characters"),
        (b"@list.txt\n", "must not name a list inside a list, got '@list.txt'"),
    ],
)
def test_a_list_that_is_not_plain_paths_is_refused(images, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_images(["@list.txt"])
