# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The task `chest-xray-localization`, with random weights: what goes in, what comes out."""

import io
import json
import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from clarity_hf import (
    FINDINGS,
    ChestXrayLocalizationPipeline,
    ClarityForMultiLabelLocalization,
    ClarityImageProcessor,
)
from clarity_hf.phantoms import draw_phantom
from clarity_hf.radiograph_check import NotARadiographWarning

TASK = "chest-xray-localization"


@pytest.fixture(scope="module")
def localizer(tiny_checkpoint):
    return pipeline(TASK, model=str(tiny_checkpoint))


def by_label(findings):
    return {finding["label"]: finding for finding in findings}


def assert_same(findings, others, score=1e-5, box=1.0):
    """Scores to 1e-5 and boxes to a pixel, whatever the order of equal scores."""
    assert len(findings) == len(others)
    others = by_label(others)
    for finding in findings:
        other = others[finding["label"]]
        assert finding["score"] == pytest.approx(other["score"], abs=score)
        assert len(finding["boxes"]) == len(other["boxes"])
        for one, two in zip(finding["boxes"], other["boxes"], strict=True):
            assert one == pytest.approx(two, abs=box)


# What comes out


def test_an_image_gives_every_finding_highest_score_first(localizer, image):
    findings = localizer(image)
    assert isinstance(localizer, ChestXrayLocalizationPipeline)
    assert {finding["label"] for finding in findings} == set(FINDINGS)
    assert len(findings) == 14
    scores = [finding["score"] for finding in findings]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= min(scores) <= max(scores) <= 1
    assert set(findings[0]) == {"label", "score", "threshold", "present", "boxes"}


def test_scores_are_the_model_s(localizer, image):
    values = localizer.image_processor(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        scores = localizer.model(values).logits.sigmoid()[0]
    found = by_label(localizer(image))
    for index, label in enumerate(FINDINGS):
        assert found[label]["score"] == pytest.approx(scores[index].item(), abs=1e-6)


def test_present_findings_have_boxes_and_absent_ones_none(localizer, image):
    median = float(np.median([finding["score"] for finding in localizer(image)]))
    findings = localizer(image, threshold=median)
    present = [finding for finding in findings if finding["present"]]
    assert 0 < len(present) < 14
    for finding in findings:
        assert finding["threshold"] == median
        assert finding["present"] is (finding["score"] >= median)
        assert finding["present"] or finding["boxes"] == []


@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (300, 80)])
def test_boxes_lie_inside_the_image(localizer, shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    boxes = [box for finding in localizer(image, threshold=0) for box in finding["boxes"]]
    assert boxes
    for box in boxes:
        assert list(box) == ["xmin", "ymin", "xmax", "ymax"]
        assert 0 <= box["xmin"] < box["xmax"] <= shape[1]
        assert 0 <= box["ymin"] < box["ymax"] <= shape[0]


def test_the_result_is_json(localizer, image):
    numbers = (None, 0, 0.3, np.float32(0.25))
    for threshold in (*numbers, [0.1] * 14, (0.1,) * 14, np.full(14, 0.1), torch.full((14,), 0.1)):
        findings = localizer(image, threshold=threshold)
        assert json.loads(json.dumps(findings)) == findings
        assert type(findings[0]["threshold"]) is float


def test_thresholds_per_finding_are_in_the_config_s_order(localizer, image):
    thresholds = [0.0 if label == "Mass" else 1.0 for label in FINDINGS]
    findings = by_label(localizer(image, threshold=thresholds))
    assert [label for label, finding in findings.items() if finding["present"]] == ["Mass"]
    assert findings["Hernia"]["threshold"] == 1.0


def test_the_config_s_thresholds_are_the_default(tiny_model, localizer, image):
    tiny_model.config.score_thresholds = [0.0] * 7 + [1.0] * 7
    own = ChestXrayLocalizationPipeline(model=tiny_model, image_processor=localizer.image_processor)
    present = {finding["label"] for finding in own(image) if finding["present"]}
    assert present == set(FINDINGS[:7])


def test_findings_without_boxes_are_listed_and_boxed_only_where_thresholds_are_given(tiny_model, localizer, image):
    tiny_model.config.score_thresholds = 0.0
    tiny_model.config.boxless_findings = ["Mass", "Nodule", "a finding of another model"]
    own = ChestXrayLocalizationPipeline(model=tiny_model, image_processor=localizer.image_processor)
    findings = by_label(own(image))
    assert {label for label, finding in findings.items() if not finding["boxes"]} == {"Mass", "Nodule"}
    assert all(finding["present"] for finding in findings.values())
    assert all(finding["boxes"] for finding in own(image, threshold=0.0))


def test_a_higher_map_threshold_gives_smaller_boxes(localizer, image):
    def area(share):
        boxes = [box for finding in localizer(image, threshold=0, map_threshold=share) for box in finding["boxes"]]
        return sum((box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"]) for box in boxes)

    assert area(0.2) > area(0.6) > area([0.9] * 14) > 0


def test_top_k_keeps_the_highest_scores(localizer, image):
    assert localizer(image, top_k=3) == localizer(image)[:3]
    assert len(localizer(image, top_k=100)) == 14


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(localizer, image, top_k):
    with pytest.raises(ValueError, match=f"`top_k` must be at least 1, got {top_k}"):
        localizer(image, top_k=top_k)


@pytest.mark.parametrize("argument", ["threshold", "map_threshold"])
def test_thresholds_of_another_length_are_refused(localizer, image, argument):
    with pytest.raises(ValueError, match=rf"`{argument}` must be one number or 14, got \(2,\)"):
        localizer(image, **{argument: [0.5, 0.5]})


STRANGE = [50, -1, float("nan"), float("inf"), True, "0.5", None, [0.5, True], np.bool_(True), torch.tensor(2.0)]


@pytest.mark.parametrize("value", [value for value in STRANGE if value is not None], ids=repr)
@pytest.mark.parametrize("argument", ["threshold", "map_threshold"])
def test_thresholds_outside_0_to_1_are_refused(localizer, image, argument, value):
    with pytest.raises(ValueError, match=rf"`{argument}` must be"):
        localizer(image, **{argument: value})


@pytest.mark.parametrize(
    "value", [np.float32(0.25), torch.tensor(0.25), np.full(14, 0.25), torch.full((14,), 0.25), [0.25] * 14], ids=str
)
def test_thresholds_may_be_of_numpy_and_torch(localizer, image, value):
    assert {finding["threshold"] for finding in localizer(image, threshold=value)} == {0.25}


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"], ids=repr)
def test_a_number_of_findings_is_a_whole_number_from_one_on(localizer, image, value):
    with pytest.raises(ValueError, match="`top_k` must be at least 1"):
        localizer(image, top_k=value)


@pytest.mark.parametrize("scale", [1e30, -1e30])
def test_a_model_whose_scores_are_not_numbers_gives_an_error_that_names_it(tiny_checkpoint, image, tmp_path, scale):
    model = ClarityForMultiLabelLocalization.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.full_like(weight, scale))
    folder = tmp_path / "broken"
    model.save_pretrained(folder)
    ClarityImageProcessor.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    with pytest.raises(ValueError, match="`broken` must give finite scores in"):
        pipeline(TASK, model=str(folder))(image)


def test_maps_with_nan_are_an_error(localizer, image, monkeypatch):
    outputs = localizer.forward(localizer.preprocess(image))
    outputs["localization_maps"][0, 3, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="must give finite localization maps from 0 on, got nan"):
        localizer.postprocess(outputs)


def test_another_kind_of_model_is_refused(tmp_path, tiny_checkpoint):
    config = ViTConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=1, intermediate_size=12)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ClarityImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`model` must be a CLARiTy model, got one of type 'vit'"):
        pipeline(TASK, model=str(tmp_path))


def test_another_image_processor_is_refused(tiny_model):
    with pytest.raises(ValueError, match="`image_processor` must be a ClarityImageProcessor, got ViTImageProcessor"):
        pipeline(TASK, model=tiny_model, image_processor=ViTImageProcessor())


def test_maps_lie_over_the_image_where_asked(localizer, image):
    findings = localizer(image, return_maps=True, threshold=0)
    for finding in findings:
        assert finding["map"].shape == image.shape
        assert finding["map"].dtype == np.float32
        assert finding["map"].min() >= 0
    assert "map" not in localizer(image, threshold=0)[0]


def test_each_finding_gets_its_own_map(localizer, image):
    values = localizer.image_processor(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        outputs = localizer.model(values)
    (laid,) = localizer.image_processor.post_process_maps(outputs, [image.shape])
    for finding in localizer(image, return_maps=True):
        np.testing.assert_allclose(finding["map"], laid[FINDINGS.index(finding["label"])].numpy(), atol=1e-5)


def test_own_findings_without_a_table_back_get_maps(tiny_config, image, localizer):
    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization

    fields = {**tiny_config.to_dict(), "id2label": {0: "Mass", 1: "Fracture"}, "label2id": None}
    model = ClarityForMultiLabelLocalization(ClarityConfig(**fields)).eval()
    own = ChestXrayLocalizationPipeline(model=model, image_processor=localizer.image_processor)
    assert {finding["label"] for finding in own(image, return_maps=True)} == {"Mass", "Fracture"}


# What goes in


def test_one_image_gives_a_result_and_a_list_a_list(localizer, image):
    one = localizer(image)
    assert isinstance(one[0], dict)
    assert localizer([image]) == [one]
    assert localizer((image,)) == [one]
    assert localizer([image, image]) == [one, one]


def test_other_iterables_give_an_iterator(localizer, image):
    column = datasets.Dataset.from_dict({"image": [Image.fromarray(image)] * 2})["image"]
    for images in (iter([image, image]), column):
        results = localizer(images)
        assert not isinstance(results, list)
        assert [result[0]["score"] for result in results] == pytest.approx([localizer(image)[0]["score"]] * 2)


def test_a_generator_gives_an_iterator(localizer, image):
    results = localizer(image for _ in range(2))
    assert not isinstance(results, list)
    assert [len(result) for result in results] == [14, 14]


def test_the_iterator_gives_one_result_at_a_time_and_continues_where_it_was(localizer, image):
    read = []

    def images():
        for number in range(3):
            read.append(number)
            yield image

    results = localizer(images())
    assert next(results) == localizer(image)
    assert read == [0]
    assert [len(result) for result in results] == [14, 14]
    assert next(results, None) is None
    data = KeyDataset(datasets.Dataset.from_dict({"image": [Image.fromarray(image)] * 3}), "image")
    results = localizer(data)
    assert len(results) == 3
    next(results)
    assert len(list(results)) == 2


def test_a_dataset_gives_an_iterator(localizer, image):
    data = datasets.Dataset.from_dict({"image": [Image.fromarray(image), Image.fromarray(image.T)]})
    data = data.cast_column("image", datasets.Image())
    results = list(localizer(KeyDataset(data, "image"), threshold=0))
    assert len(results) == 2
    assert_same(results[0], localizer(image, threshold=0))
    assert_same(results[1], localizer(image.T, threshold=0))


def test_batches_equal_single_images(localizer, image):
    images = [image, image.T, image[:60], 255 - image, image[:, ::-1]]
    singly = [localizer(one, threshold=0) for one in images]
    for result, expected in zip(localizer(images, batch_size=3, threshold=0), singly, strict=True):
        assert_same(result, expected)


def test_every_source_gives_the_same_result(localizer, image, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    expected = localizer(image, threshold=0)
    for source in (path, str(path), path.read_bytes(), Image.fromarray(image), torch.from_numpy(image.copy())):
        assert localizer(source, threshold=0) == expected
        assert localizer([source], threshold=0) == [expected]


def test_16_bit_files_are_read_as_deep(localizer, image, tmp_path):
    deep = image.astype(np.uint16) * 257
    deep[0, 0] = 65535
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    shallow = image.copy()
    shallow[0, 0] = 255
    # 8-bit images are resized to whole grey values; a box may move by a cell of the working grid, 120 / 32 pixels.
    assert_same(localizer(path), localizer(shallow), score=2e-3, box=4)
    assert_same(localizer(path), localizer(deep))


@pytest.mark.parametrize("empty", [[], ()])
def test_no_image_is_refused(localizer, empty):
    with pytest.raises(ValueError, match="`inputs` must hold at least one image"):
        localizer(empty)


def test_a_bad_image_is_named(localizer, image, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(image).save(good)
    bad.write_bytes(good.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"bad\.png"):
        localizer([good, bad])
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        localizer(str(tmp_path / "none.png"))
    with pytest.raises(ValueError, match="got a URL"):
        localizer("https://example.org/image.png")


def test_a_call_leaves_no_trace(localizer, image):
    before = localizer(image)
    localizer(image, threshold=0, top_k=1, return_maps=True)
    assert localizer(image) == before


def test_bfloat16_models_work(tiny_checkpoint, image):
    half = pipeline(TASK, model=str(tiny_checkpoint), dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    assert_same(half(image), pipeline(TASK, model=str(tiny_checkpoint))(image), score=0.05, box=1e9)


# What looks like no frontal chest radiograph


@pytest.fixture(scope="module")
def phantom():
    return draw_phantom(0, size=128).image


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)


def test_an_image_that_looks_wrong_is_warned_of_once_and_gets_the_same_result(localizer, phantom, noise):
    expected = localizer(noise, radiograph_check="off")
    with pytest.warns(NotARadiographWarning, match="`image` does not look like .* looks like something other") as told:
        assert localizer(noise) == expected
    assert len(told) == 1
    with pytest.warns(NotARadiographWarning) as told:
        localizer([phantom, noise, np.rot90(phantom)], batch_size=2)
    assert ["other than a radiograph" in str(each.message) for each in told] == [True, False]
    assert "is rotated" in str(told[1].message)


def test_an_image_that_looks_right_and_one_that_is_not_checked_pass_in_silence(localizer, phantom, noise):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        localizer(phantom)
        localizer(phantom, radiograph_check="refuse")
        localizer(noise, radiograph_check="off")


def test_an_image_that_looks_wrong_is_refused_where_asked_with_the_reason(localizer, phantom, noise, tmp_path):
    (tmp_path / "Doe").mkdir()
    path = tmp_path / "Doe" / "noise.png"
    Image.fromarray(noise).save(path)
    for source in (path, str(path)):
        told = r"^`noise\.png` does not look like .* \(p = 0\.\d{3}, .* like something other than a radiograph"
        with pytest.raises(ValueError, match=told):
            localizer(source, radiograph_check="refuse")
    with pytest.raises(ValueError, match="a radiograph with dark bones"):
        localizer([phantom, 255 - phantom], radiograph_check="refuse")


def test_the_check_may_be_chosen_with_the_pipeline_and_a_call_goes_before_it(tiny_checkpoint, noise):
    strict = pipeline(TASK, model=str(tiny_checkpoint), radiograph_check="refuse")
    with pytest.raises(ValueError, match="looks like something other than a radiograph"):
        strict(noise)
    assert len(strict(noise, radiograph_check="off")) == 14
    with pytest.raises(ValueError, match="`radiograph_check` must be one of warn, refuse, off, got 'maybe'"):
        strict(noise, radiograph_check="maybe")


def test_every_image_that_looks_wrong_is_warned_of_also_the_same_again(localizer, noise, tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")  # drops what was said before at the same place
        localizer([noise, noise, noise])

        list(localizer(image for image in [path, noise]))
        for _ in range(2):
            localizer(noise)
            localizer([path])
    names = [str(each.message).split("`")[1] for each in told if each.category is NotARadiographWarning]
    assert names == [
        *("inputs[0]", "inputs[1]", "inputs[2]"),
        *("noise.png", "inputs[1]"),
        *("image", "noise.png", "image", "noise.png"),
    ]


def test_the_filters_of_the_caller_hold_and_stay(localizer, noise):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore", NotARadiographWarning)
        before = list(warnings.filters)
        localizer(noise)
        assert warnings.filters == before
    assert not told
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotARadiographWarning)
        with pytest.raises(NotARadiographWarning):
            localizer(noise)


def test_a_refused_image_of_a_list_is_named_by_its_place(localizer, phantom):
    with pytest.raises(ValueError, match=r"^`inputs\[1\]` does not look like .* a radiograph with dark bones"):
        localizer([phantom, 255 - phantom], radiograph_check="refuse")


@pytest.fixture
def without_weights(tmp_path, monkeypatch):
    from clarity_hf import radiograph_check

    radiograph_check._fitted.cache_clear()
    monkeypatch.setattr(radiograph_check, "WEIGHTS", tmp_path / "radiograph_check.safetensors")
    yield radiograph_check
    radiograph_check._fitted.cache_clear()


def test_a_package_without_the_check_s_weights_is_an_error_unless_off(localizer, noise, without_weights):
    for check in ({}, {"radiograph_check": "warn"}, {"radiograph_check": "refuse"}):
        with pytest.raises(FileNotFoundError, match=r"Reinstall clarity_hf\."):
            localizer(noise, **check)
    assert len(localizer(noise, radiograph_check="off")) == 14


def test_a_copy_without_the_check_s_weights_checks_nothing_unless_asked(
    localizer, noise, without_weights, monkeypatch
):
    monkeypatch.setattr(without_weights, "_INSTALLED", False)  # as the code beside a published model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        localizer(noise)
    with pytest.raises(ValueError, match="must be 'off' without radiograph_check"):
        localizer(noise, radiograph_check="refuse")


# Folders


def test_a_saved_pipeline_loads_without_remote_code(localizer, image, tmp_path):
    localizer.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert "custom_pipelines" not in (tmp_path / "config.json").read_text()
    again = pipeline(TASK, model=str(tmp_path))
    assert again(image, threshold=0) == localizer(image, threshold=0)


def test_the_stock_classification_pipeline_works_with_sigmoid(tiny_checkpoint, localizer, image):
    stock = pipeline("image-classification", model=str(tiny_checkpoint))
    scores = {row["label"]: row["score"] for row in stock(Image.fromarray(image), top_k=14)}
    expected = {finding["label"]: finding["score"] for finding in localizer(image)}
    assert scores == pytest.approx(expected, abs=1e-5)




def test_real_images_of_full_size_get_boxes_inside_them(localizer, nih_folder):
    paths = sorted(str(path) for path in (nih_folder / "original-1024").glob("*.png"))
    results = localizer(paths, batch_size=8, threshold=0)
    assert len(results) == len(paths) == 28  # four of them RGBA
    for findings in results:
        assert len(findings) == 14
        for box in (box for finding in findings for box in finding["boxes"]):
            assert 0 <= box["xmin"] < box["xmax"] <= 1024
            assert 0 <= box["ymin"] < box["ymax"] <= 1024


@pytest.fixture
def encoded(image, tmp_path):
    """Paths of two images."""
    paths = [str(tmp_path / f"{index}.png") for index in range(2)]
    for path in paths:
        Image.fromarray(image).save(path)
    return paths


COLUMNS = {
    "pandas": lambda values: pytest.importorskip("pandas").Series(values),
    "pandas of objects": lambda values: pytest.importorskip("pandas").Series(values, dtype=object),
    "numpy": np.array,
    "numpy of objects": lambda values: np.array(values, dtype=object),
    "pyarrow": lambda values: pytest.importorskip("pyarrow").chunked_array([values]),
    "datasets": lambda values: datasets.Dataset.from_dict({"image": values})["image"],
    "tuple": tuple,
    "map": iter,
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_paths_is_many_images(localizer, image, encoded, kind):
    results = list(localizer(COLUMNS[kind](encoded)))
    assert len(results) == 2
    for findings in results:
        assert_same(findings, localizer(image))


@pytest.mark.parametrize("kind", ["pandas of objects", "numpy of objects", "tuple", "datasets"])
def test_a_column_of_bytes_is_many_images(localizer, image, encoded, kind):
    contents = [Path(path).read_bytes() for path in encoded]
    results = list(localizer(COLUMNS[kind](contents)))
    assert len(results) == 2
    assert_same(results[1], localizer(image))


def test_open_files_buffers_and_rows_are_one_image_each(localizer, image, encoded):
    expected, content = localizer(image), Path(encoded[0]).read_bytes()
    with open(encoded[0], "rb") as file:
        for source in (file, io.BytesIO(content), bytearray(content), memoryview(content), {"bytes": content}):
            assert_same(localizer(source), expected)
        assert len(localizer([file, io.BytesIO(content)])) == 2


def test_a_table_is_refused_where_a_column_is_meant(localizer, encoded):
    frame = pytest.importorskip("pandas").DataFrame({"a": encoded, "b": encoded})
    with pytest.raises(TypeError, match=r"`inputs` must be one column of images, got 2\. Pick that"):
        localizer(frame)


def test_a_cell_that_is_not_a_path_is_named_by_its_row(localizer, encoded):
    with pytest.raises(TypeError, match="must be a path, bytes"):
        list(localizer(pytest.importorskip("pandas").Series([encoded[0], None])))
