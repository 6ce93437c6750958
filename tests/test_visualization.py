# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of results: boxes at their coordinates, readable labels, maps over the image."""

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw

from clarity_hf.visualization import (
    BOX_COLOURS,
    draw_findings,
    draw_side_by_side,
    heat_colours,
    plot_findings,
    plot_map,
)
from clarity_hf.visualization import labels as label_module
from clarity_hf.visualization.labels import place_labels

FIRST, SECOND = (ImageColor.getrgb(colour) for colour in BOX_COLOURS[:2])


def ramp(height, width):
    """Image `(height, width)` uint8, dark on top and grey at the bottom: none of its pixels has a box's colour."""
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
    write = label_module._write_label

    def record(draw, text, place, colour, font):
        write(draw, text, place, colour, font)
        places.append(place)

    monkeypatch.setattr(label_module, "_write_label", record)
    return places


@pytest.mark.parametrize(
    ("shape", "size"), [((256, 256), (512, 512)), ((600, 700), (700, 600)), ((200, 100), (512, 1024))]
)
def test_the_picture_has_the_images_proportions_and_at_least_512_pixels(shape, size):
    picture = draw_findings(ramp(*shape), [])
    assert picture.mode == "RGB"
    assert picture.size == size


@pytest.mark.parametrize("shape", [(512, 512), (1024, 600), (256, 128)])
def test_a_box_is_drawn_at_its_coordinates(shape):
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


def test_a_box_over_the_whole_image_stays_inside_the_picture():
    picture = draw_findings(ramp(512, 512), [finding("Edema", (0, 0, 512, 512))])
    drawn = pixels_of(picture, FIRST)
    assert drawn[511].all()
    assert drawn[:, 511].all()


def test_every_box_of_a_finding_is_drawn_in_its_colour_and_absent_ones_are_not():
    image = ramp(512, 512)
    present = finding("Mass", (50, 300, 100, 350), (300, 300, 400, 350))
    picture = draw_findings(image, [finding("Hernia"), present, finding("Nodule", (50, 400, 90, 440))])
    first, second = pixels_of(picture, FIRST), pixels_of(picture, SECOND)
    assert first[300, 50:100].all()
    assert first[300, 300:400].all()
    assert second[400, 50:90].all()


def test_without_boxes_the_image_is_left_as_it_is():
    image = ramp(512, 600)
    picture = draw_findings(image, [finding("Mass")])
    np.testing.assert_array_equal(np.asarray(picture), np.repeat(image[..., None], 3, axis=-1))


def test_the_picture_is_lit_where_the_map_is_high():
    image = np.full((512, 512), 40, dtype=np.uint8)
    image[0, 0] = 41  # an image of one grey is refused
    heat = np.zeros((512, 512), dtype=np.float32)
    heat[100:200, 300:400] = 0.02  # its scale does not matter
    picture = np.asarray(draw_findings(image, [finding("Mass", map=heat)], heat_of="Mass", opacity=0.5))
    # Half of the image's 40 and half of the hottest colour (252, 255, 164); banker's rounding.
    assert picture[150, 350].tolist() == [146, 148, 102]
    assert picture[150, 100].tolist() == [40, 40, 40]


def test_a_map_of_zeros_leaves_the_image():
    image = ramp(512, 512)
    findings = [finding("Mass", map=np.zeros((512, 512), dtype=np.float32))]
    np.testing.assert_array_equal(np.asarray(draw_findings(image, findings, heat_of="Mass"))[..., 0], image)


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
    draw_findings(ramp(512, 512), findings, max_findings=None)
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


def test_a_sixteen_bit_image_is_drawn_as_its_eight_bit_one():
    shallow = ramp(512, 512)
    shallow[0, 0] = 255
    deep = shallow.astype(np.uint16) * 257
    expected = np.asarray(draw_findings(shallow, []))
    np.testing.assert_array_equal(np.asarray(draw_findings(deep, [])), expected)
    np.testing.assert_array_equal(np.asarray(draw_findings(Image.fromarray(deep), [])), expected)


def cone(side, peak=1.0):
    """Map `(side, side)` float32 that falls evenly from its peak in the middle to 0 at 200 pixels from it."""
    y, x = np.mgrid[:side, :side]
    return (peak * np.maximum(0, 1 - np.hypot(x - side // 2, y - side // 2) / 200)).astype(np.float32)


def test_the_scale_is_the_published_one():
    matplotlib = pytest.importorskip("matplotlib")
    published = np.round(np.array(matplotlib.colormaps["inferno"].colors) * 255)
    assert np.abs(heat_colours(np.arange(256) / 255) - published).max() <= 2


def test_the_scale_has_its_known_ends_and_stays_there_beyond_them():
    assert heat_colours([-1, 0, 1, 7]).tolist() == [[0, 0, 4], [0, 0, 4], [252, 255, 164], [252, 255, 164]]


def test_the_bar_runs_from_end_to_end_below_an_unchanged_picture():
    findings = [finding("Mass", (50, 50, 90, 90), map=cone(512))]
    bare = np.asarray(draw_findings(ramp(512, 512), findings, "Mass"))
    barred = np.asarray(draw_findings(ramp(512, 512), findings, "Mass", bar="below"))
    np.testing.assert_array_equal(barred[:512], bare)
    row = next(row for row in barred[512:] if row[-14].tolist() == [252, 255, 164])
    assert row[13].tolist() == [0, 0, 4]
    np.testing.assert_array_equal(row[13:-13], heat_colours(np.linspace(0, 1, 512 - 26)))


def test_an_absolute_scale_tells_a_weak_map_from_a_strong_one():
    image = ramp(512, 512)
    weak, strong = ([finding("Mass", map=cone(512, peak))] for peak in (1.0, 4.0))
    own = [np.asarray(draw_findings(image, result, "Mass")) for result in (weak, strong)]
    fixed = [np.asarray(draw_findings(image, result, "Mass", vmax=4.0)) for result in (weak, strong)]
    np.testing.assert_array_equal(*own)
    np.testing.assert_array_equal(own[1], fixed[1])
    assert fixed[0][256, 256].sum() < fixed[1][256, 256].sum()


def test_contours_are_circles_where_a_cone_has_its_shares():
    findings = [finding("Mass", map=cone(512))]
    picture = draw_findings(ramp(512, 512), findings, "Mass", style="contours", levels=(0.25, 0.5))
    y, x = np.nonzero(pixels_of(picture, FIRST))
    radius = np.hypot(x - 256, y - 256)
    # 200 · (1 − share), in a line 2 pixels wide.
    off = np.abs(radius[:, None] - [150, 100])
    assert (off.min(axis=1) <= 1.5).all()
    angles = np.degrees(np.arctan2(y - 256, x - 256)) // 10 % 36
    for circle in (0, 1):
        assert len(set(angles[off[:, circle] <= 1.5])) == 36


def test_contours_of_several_findings_have_the_colours_of_their_boxes():
    findings = [finding("Mass", (10, 450, 90, 500), map=cone(512)), finding("Edema", map=cone(512) ** 2)]
    picture = draw_findings(ramp(512, 512), findings, ["Mass", "Edema"], style="contours", levels=(0.5,))
    assert pixels_of(picture, FIRST)[256, 150:162].any()
    assert pixels_of(picture, SECOND)[256, 310:320].any()  # 256 + 200 · (1 − √.5)


@pytest.mark.parametrize(("side", "count"), [(16, 4), (512, 14), (1500, 14)])
def test_labels_cover_no_border_and_no_other_label(label_places, side, count):
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.8, (count, 2))
    corners = np.hstack([low, low + rng.uniform(0.1, 0.2, (count, 2))]) * side
    findings = [finding(f"Effusion_{i}", tuple(box)) for i, box in enumerate(corners)]
    draw_findings(ramp(side, side), findings, max_findings=None)
    size = max(512, side)
    boxes = np.round(corners * size / side).astype(int)
    assert len(label_places) == count
    for i, place in enumerate(label_places):
        assert place.min() >= 0
        assert place.max() <= size
        assert not any(overlap(place, other) for other in label_places[:i])
        for x0, y0, x1, y1 in boxes:
            sides = ((x0, y0, x1, y0 + 1), (x0, y1 - 1, x1, y1), (x0, y0, x0 + 1, y1), (x1 - 1, y0, x1, y1))
            assert not any(overlap(place, line) for line in sides)


def test_a_label_stands_below_a_box_at_the_top_edge():
    (place,) = place_labels([(60, 20)], np.array([[100, 0, 300, 50]]), (512, 512), 3)
    assert place.tolist() == [100, 50, 160, 70]


@pytest.fixture
def place_at(monkeypatch):
    """Put labels where a test wants them."""

    def put(*places):
        monkeypatch.setattr(label_module, "place_labels", lambda *_, **__: [np.array(place) for place in places])

    return put


def test_a_label_far_from_its_box_is_tied_to_it_by_the_shortest_line(place_at):
    """From the middle of what they have in common where they face each other, else from corner to corner."""
    place_at((320, 20, 420, 40), (275, 80, 315, 100))
    findings = [finding("Mass", (300, 300, 400, 400)), finding("Edema", (220, 160, 260, 200))]
    picture = draw_findings(ramp(512, 512), findings)
    first, second = pixels_of(picture, FIRST), pixels_of(picture, SECOND)
    assert first[45:295, 360].all()
    assert not first[45:295, :355].any()
    assert not first[45:295, 366:].any()
    y, x = np.nonzero(second[105:155])
    np.testing.assert_allclose(x, 275 - (y + 105 - 100) * 15 / 60, atol=1.5)  # from (275, 100) to (260, 160)
    assert set(y) == set(range(50))


@pytest.mark.parametrize(("gap", "tied"), [(0, False), (10, False), (12, True)])
def test_a_label_within_half_its_height_needs_no_line(place_at, gap, tied):
    place_at((300, 280 - gap, 400, 300 - gap))
    drawn = pixels_of(draw_findings(ramp(512, 512), [finding("Mass", (300, 300, 400, 400))]), FIRST)
    assert drawn[300 - gap : 300].any() == tied


def test_what_has_no_room_is_named(caplog):
    findings = [finding(f"{'Hernia_' * 6}{i}", (0, 0, 512, 512)) for i in range(120)]
    draw_findings(ramp(512, 512), findings, max_findings=None)
    assert "Hernia_119" in caplog.text


@pytest.fixture
def texts(monkeypatch):
    """All lines of text that are drawn: labels on their colours, and what the strips below the image say."""
    drawn = []
    write = ImageDraw.ImageDraw.text

    def record(self, place, text, *given, **options):
        drawn.append(text)
        return write(self, place, text, *given, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return drawn


def crowd():
    """Six findings with a box each, not in the order of their scores: ABCEDF."""
    scores = {"A": 0.6, "B": 0.5, "C": 0.4, "D": 0.1, "E": 0.2, "F": 0.03}
    return [
        finding(label, (50 + 60 * place, 100, 90 + 60 * place, 200), score=score)
        for place, (label, score) in enumerate(scores.items())
    ]


def test_of_many_findings_those_with_the_highest_scores_are_drawn_and_the_others_named(texts):
    picture = draw_findings(ramp(512, 512), crowd())
    assert sorted(texts[:-1]) == ["A 0.60", "B 0.50", "C 0.40", "E 0.20"]
    assert texts[-1] == "2 more findings are present and not drawn: D 0.10, F 0.03"
    # Colours are of those drawn, in the order of the result; nothing is left of the others.
    assert [pixels_of(picture, ImageColor.getrgb(colour)).any() for colour in BOX_COLOURS] == [True] * 4 + [False] * 3
    assert pixels_of(picture, FIRST)[100, 50:90].all()
    np.testing.assert_array_equal(
        np.asarray(picture)[150, 230:270], np.repeat(ramp(512, 512)[150, 230:270, None], 3, 1)
    )


def test_the_strip_leaves_the_image_where_it_is():
    picture = draw_findings(ramp(300, 600), crowd()[:5], max_findings=4)
    assert picture.width == 1024
    assert picture.height > 512
    np.testing.assert_array_equal(
        np.asarray(picture)[:512], np.asarray(draw_findings(ramp(300, 600), [*crowd()[:3], crowd()[4]]))
    )


def test_the_findings_whose_maps_are_asked_for_are_always_drawn_and_count(texts):
    findings = [one | {"map": cone(512)} for one in crowd()]
    draw_findings(ramp(512, 512), findings, "D", max_findings=2)
    assert sorted(texts[:-1]) == ["A 0.60", "D 0.10"]
    texts.clear()
    draw_findings(ramp(512, 512), findings, ["D", "F"], style="contours", max_findings=1)
    assert sorted(texts[:-1]) == ["D 0.10", "F 0.03"]
    texts.clear()
    draw_findings(ramp(512, 512), findings, "D", bar="below")
    assert texts[-1] == "2 more findings are present and not drawn: E 0.20, F 0.03"  # below the scale


def test_a_map_without_boxes_takes_no_box_away(texts):
    absent = finding("Absent", map=cone(512))
    draw_findings(ramp(512, 512), [absent, *crowd()[:4]], "Absent")
    assert len(texts) == 4


def test_findings_without_boxes_are_not_counted_and_few_need_no_strip():
    findings = [*crowd()[:4], finding("Absent"), finding("Other")]
    assert draw_findings(ramp(512, 512), findings).size == (512, 512)
    assert draw_findings(ramp(512, 512), crowd(), max_findings=None).size == (512, 512)


def test_names_that_find_no_room_are_counted(texts):
    findings = [finding(f"{'Effusion_' * 4}{place}", (9, 9, 90, 90), score=0.9) for place in range(40)]
    picture = draw_findings(ramp(512, 512), findings, max_findings=1)
    assert texts[1].startswith("39 more findings are present and not drawn:")
    assert len(texts) == 4  # a label and three lines
    assert texts[-1].endswith("...")
    assert picture.height < 512 + 6 * 13


def test_side_by_side_shows_the_image_and_then_its_findings():
    image, findings = ramp(512, 600), [finding("Mass", (50, 60, 90, 90))]
    both = np.asarray(draw_side_by_side(image, findings))
    np.testing.assert_array_equal(both[:, :600, 0], image)
    np.testing.assert_array_equal(both[:, -600:], np.asarray(draw_findings(image, findings)))


def test_the_same_result_gives_the_same_picture():
    findings = [finding("Mass", (10, 10, 90, 90), map=cone(512))]
    for style in ("wash", "contours"):
        one, two = (draw_findings(ramp(512, 512), findings, "Mass", style=style, bar="below") for _ in range(2))
        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opacity": 1.5}, "`opacity` must be"),
        ({"style": "lines"}, "`style` must be"),
        ({"bar": "left"}, "`bar` must be"),
        ({"vmax": 0}, "`vmax` must be"),
        ({"levels": (0.5, 1)}, "`levels` must be"),
        ({"heat_of": ["Mass", "Edema"]}, "one label for a wash"),
        ({"max_findings": 0}, "`max_findings` must be at least 1, got 0. Use None"),
    ],
)
def test_drawing_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        draw_findings(ramp(64, 64), [finding("Mass", map=cone(64))], **options)


@pytest.mark.parametrize(
    ("heat", "message"), [(np.ones((8, 8)), "image's"), (-cone(64), "finite"), (cone(64) * np.nan, "finite")]
)
def test_a_map_that_does_not_fit_the_image_is_refused(heat, message):
    with pytest.raises(ValueError, match=message):
        draw_findings(ramp(64, 64), [finding("Mass", map=heat)], "Mass")


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 9, 9, 5), (5, 5, np.nan, 9)])
def test_a_box_that_is_empty_or_not_finite_is_refused(box):
    with pytest.raises(ValueError, match="xmin < xmax"):
        draw_findings(ramp(64, 64), [finding("Mass", box)])


def test_a_box_off_the_image_is_drawn_at_its_edge_and_named(caplog):
    drawn = pixels_of(draw_findings(ramp(512, 512), [finding("Mass", (600, 100, 700, 200))]), FIRST)
    assert drawn[100:200, 511].all()
    assert "Mass" in caplog.text


def test_the_result_of_several_images_is_refused():
    with pytest.raises(TypeError, match="one image"):
        draw_findings(ramp(64, 64), [[finding("Mass")]])


def test_plots_count_pixels_of_the_image():
    figure = pytest.importorskip("matplotlib.figure")
    one, two = figure.Figure().subplots(1, 2)
    result = finding("Mass", (5, 5, 20, 20), map=cone(64, 3.0))
    assert plot_findings(ramp(64, 64), [result], ax=one).images[0].get_extent() == [0, 64, 64, 0]
    assert plot_map(ramp(64, 64), result, vmax=6.0, ax=two).get_title() == "Mass 0.90"
    assert two.figure.axes[-1].get_ylim() == (0, 6)


@pytest.fixture
def ax():
    return pytest.importorskip("matplotlib.figure").Figure().subplots()


def test_a_plotted_map_has_its_contours_where_a_cone_has_its_shares(ax):
    plot_map(ramp(512, 512), finding("Mass", map=cone(512, 3.0)), style="contours", levels=(0.5, 0.25), ax=ax)
    (image,) = ax.images  # no wash
    (lines,) = ax.collections
    assert image.get_extent() == [0, 512, 512, 0]
    assert lines.levels.tolist() == [0.25, 0.5]
    for path, radius in zip(lines.get_paths(), (150, 100), strict=True):  # 200 · (1 − share)
        off = np.hypot(*(path.vertices - 256.5).T)  # the middle of pixel 256
        np.testing.assert_allclose(off, radius, atol=0.5)
    assert ax.figure.axes[-1].get_ylim() == (0, 3)


def test_plotted_contours_of_one_scale_shrink_with_the_map(ax):
    plot_map(ramp(512, 512), finding("Mass", map=cone(512, 3.0)), style="contours", levels=(0.25,), vmax=6.0, ax=ax)
    (path,) = ax.collections[0].get_paths()
    np.testing.assert_allclose(np.hypot(*(path.vertices - 256.5).T), 100, atol=0.5)  # 0.25 · 6 is half of 3


@pytest.mark.parametrize("level", [0.0, 2.0])
def test_a_plateau_is_plotted_without_lines_and_without_a_warning(ax, recwarn, level):
    plot_map(ramp(64, 64), finding("Mass", map=np.full((64, 64), level)), style="contours", ax=ax)
    assert len(ax.images) == 1
    assert len(ax.collections) == 0
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(("vmax", "ends_in_an_arrow"), [(None, False), (4.0, False), (2.0, True)])
def test_a_plots_bar_tells_that_values_go_beyond_it(ax, vmax, ends_in_an_arrow):
    plot_map(ramp(64, 64), finding("Mass", map=cone(64, 3.0)), vmax=vmax, ax=ax)
    assert (ax.images[1].colorbar is None, len(ax.images)) == (True, 2)  # the bar is of the scale, not of the wash
    assert (ax.figure.axes[-1]._colorbar.extend == "max") == ends_in_an_arrow


def test_plots_without_matplotlib_name_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"clarity_hf\[report\]"):
        plot_findings(ramp(64, 64), [])
