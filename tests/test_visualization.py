# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of results: boxes where they are told, labels that can be read, maps over the film."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from clarity_hf import visualization
from clarity_hf.visualization import BOX_COLOURS, draw_findings

FIRST, SECOND = (ImageColor.getrgb(colour) for colour in BOX_COLOURS[:2])


def ramp(height, width):
    """Film `(height, width)` uint8, dark on top and grey at the bottom: none of its pixels has a box's colour."""
    return np.repeat(np.linspace(0, 120, height).astype(np.uint8)[:, None], width, axis=1)


def finding(label, *boxes, score=0.9, **more):
    corners = [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in boxes]
    return {"label": label, "score": score, "threshold": 0.5, "present": bool(boxes), "boxes": corners} | more


def pixels_of(picture, colour):
    """Mask `(H, W)` of the pixels of exactly a colour."""
    return (np.asarray(picture) == np.array(colour)).all(-1)


@pytest.fixture
def label_places(monkeypatch):
    """Where labels were written, in the picture's pixels, in the order of the boxes."""
    places = []
    write = visualization._write_label

    def record(draw, text, corners, colour, font, taken, size):
        write(draw, text, corners, colour, font, taken, size)
        places.append(taken[-1])

    monkeypatch.setattr(visualization, "_write_label", record)
    return places


@pytest.mark.parametrize(
    ("shape", "size"), [((256, 256), (512, 512)), ((600, 700), (700, 600)), ((200, 100), (512, 1024))]
)
def test_the_picture_has_the_films_proportions_and_at_least_512_pixels(shape, size):
    picture = draw_findings(ramp(*shape), [])
    assert picture.mode == "RGB"
    assert picture.size == size


@pytest.mark.parametrize("shape", [(512, 512), (1024, 600), (256, 128)])
def test_a_box_lies_where_it_is_told(shape):
    height, width = shape
    scale = max(1.0, 512 / min(shape))
    box = (width * 0.25, height * 0.5, width * 0.75, height * 0.75)
    picture = draw_findings(ramp(height, width), [finding("Mass", box)])
    drawn = pixels_of(picture, FIRST)
    x0, y0, x1, y1 = (round(side * scale) for side in box)
    # Its border, right and bottom exclusive, and nothing inside it.
    assert drawn[y0, x0:x1].all()
    assert drawn[y1 - 1, x0:x1].all()
    assert drawn[y0:y1, x0].all()
    assert drawn[y0:y1, x1 - 1].all()
    assert not drawn[y1:].any()
    assert not drawn[y0:, x1:].any()
    assert not drawn[y0:, :x0].any()
    middle = np.asarray(picture)[(y0 + y1) // 2, (x0 + x1) // 2]
    assert middle.tolist() == [middle[0]] * 3


def test_a_box_over_the_whole_film_stays_inside_the_picture():
    picture = draw_findings(ramp(512, 512), [finding("Edema", (0, 0, 512, 512))])
    drawn = pixels_of(picture, FIRST)
    assert drawn[511].all()
    assert drawn[:, 511].all()


def test_every_box_of_a_finding_is_drawn_in_its_colour_and_absent_ones_are_not():
    film = ramp(512, 512)
    present = finding("Mass", (50, 300, 100, 350), (300, 300, 400, 350))
    picture = draw_findings(film, [finding("Hernia"), present, finding("Nodule", (50, 400, 90, 440))])
    first, second = pixels_of(picture, FIRST), pixels_of(picture, SECOND)
    assert first[300, 50:100].all()
    assert first[300, 300:400].all()
    assert second[400, 50:90].all()


def test_without_boxes_the_film_is_left_as_it_is():
    film = ramp(512, 600)
    picture = draw_findings(film, [finding("Mass")])
    np.testing.assert_array_equal(np.asarray(picture), np.repeat(film[..., None], 3, axis=-1))


def test_the_picture_is_lit_where_the_map_is_high():
    film = np.full((512, 512), 40, dtype=np.uint8)
    film[0, 0] = 41  # a film of one grey is refused
    heat = np.zeros((512, 512), dtype=np.float32)
    heat[100:200, 300:400] = 0.02  # its scale does not matter
    picture = np.asarray(draw_findings(film, [finding("Mass", map=heat)], heat_of="Mass", opacity=0.5))
    # Half of the film's 40 and half of the hottest colour (252, 255, 164); banker's rounding.
    assert picture[150, 350].tolist() == [146, 148, 102]
    assert picture[150, 100].tolist() == [40, 40, 40]


def test_a_map_of_zeros_leaves_the_film():
    film = ramp(512, 512)
    findings = [finding("Mass", map=np.zeros((512, 512), dtype=np.float32))]
    np.testing.assert_array_equal(np.asarray(draw_findings(film, findings, heat_of="Mass"))[..., 0], film)


def test_heat_needs_maps():
    with pytest.raises(ValueError, match="return_maps=True"):
        draw_findings(ramp(64, 64), [finding("Mass")], heat_of="Mass")


def test_heat_of_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="got 'Masss'"):
        draw_findings(ramp(64, 64), [finding("Mass")], heat_of="Masss")


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("count", [2, 6])
@pytest.mark.parametrize("corner", [(100, 200, 260, 300), (5, 0, 200, 30), (470, 490, 512, 512), (0, 0, 512, 512)])
def test_labels_of_overlapping_boxes_are_apart_and_inside_the_picture(label_places, corner, count):
    findings = [finding(f"Pleural_Thickening_{i}", corner) for i in range(count)]
    draw_findings(ramp(512, 512), findings)
    assert len(label_places) == count
    for i, place in enumerate(label_places):
        assert place[0] >= 0
        assert place[1] >= 0
        assert place[2] <= 512
        assert place[3] <= 512
        assert not any(overlap(place, other) for other in label_places[:i])


def test_a_label_stands_above_its_box_where_there_is_room(label_places):
    draw_findings(ramp(512, 512), [finding("Mass", (100, 200, 260, 300))])
    (place,) = label_places
    assert (place[0], place[3]) == (100, 200)


def test_a_sixteen_bit_film_is_drawn_as_its_eight_bit_one():
    shallow = ramp(512, 512)
    shallow[0, 0] = 255
    deep = shallow.astype(np.uint16) * 257
    expected = np.asarray(draw_findings(shallow, []))
    np.testing.assert_array_equal(np.asarray(draw_findings(deep, [])), expected)
    np.testing.assert_array_equal(np.asarray(draw_findings(Image.fromarray(deep), [])), expected)
