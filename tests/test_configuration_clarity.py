# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration: defaults, what is refused, what survives a file."""

import json
import math

import pytest
import torch
from transformers import AutoConfig

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
from clarity_hf.calibration_fingerprint import calibration_fingerprint
from clarity_hf.configuration_clarity import PER_FINDING_FIELDS
from clarity_hf.labels import FINDINGS


def test_the_defaults_are_s_16_224():
    config = ClarityConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (384, 12, 6)
    assert (config.intermediate_size, config.patch_size, config.image_size) == (1536, 16, 224)
    assert config.patch_grid == (14, 14)
    assert config.problem_type == "multi_label_classification"


def test_the_defaults_are_the_findings_of_nih():
    config = ClarityConfig()
    assert config.num_labels == 14
    assert config.findings == list(FINDINGS)
    assert config.label2id == {finding: index for index, finding in enumerate(FINDINGS)}


def test_another_number_of_findings():
    config = ClarityConfig(num_labels=3)
    assert config.num_labels == 3
    assert len(config.findings) == len(config.per_finding("score_thresholds")) == 3


@pytest.mark.parametrize(
    "names",
    [
        {"id2label": {0: "Mass", 1: "Effusion"}},
        {"id2label": {"0": "Mass", "1": "Effusion"}},
        {"label2id": {"Mass": 0, "Effusion": 1}},
        {"id2label": {0: "Mass", 1: "Effusion"}, "label2id": {"Mass": 0, "Effusion": 1}},
    ],
    ids=["id2label", "id2label of strings", "label2id", "both"],
)
def test_own_findings_are_known_both_ways(names):
    config = ClarityConfig(**names)
    assert config.num_labels == 2
    assert config.findings == ["Mass", "Effusion"]
    assert config.label2id == {"Mass": 0, "Effusion": 1}
    assert config.per_finding("suppression_floor") == [0.1, 0.5]  # Effusion sits at the rim


@pytest.mark.parametrize("numbers", [{"Mass": 1, "Effusion": 0}, {"Mass": 0, "Pleural effusion": 1}, {"Mass": 0}])
def test_two_tables_of_findings_that_differ_are_refused(numbers):
    with pytest.raises(ValueError, match="`label2id` must number the findings as `id2label` does, got others for"):
        ClarityConfig(id2label={0: "Mass", 1: "Effusion"}, label2id=numbers)


def test_slopes_and_intercepts_decide_whether_a_model_is_calibrated():
    config = ClarityConfig()
    assert not config.is_calibrated
    config.score_slopes = [1.0] * 13 + [0.9]
    assert config.is_calibrated
    assert ClarityConfig(score_intercepts=[0.0] * 13 + [-0.1]).is_calibrated


def test_findings_are_in_the_order_of_their_index():
    assert ClarityConfig(id2label={1: "b", 0: "a"}).findings == ["a", "b"]


@pytest.mark.parametrize(("size", "grid"), [(512, (32, 32)), ((320, 224), (20, 14)), ([224, 320], (14, 20))])
def test_image_size_may_be_one_side_or_two(size, grid):
    assert ClarityConfig(image_size=size).patch_grid == grid


def test_rim_findings_are_suppressed_less():
    floors = dict(zip(FINDINGS, ClarityConfig().per_finding("suppression_floor"), strict=True))
    assert {finding for finding, floor in floors.items() if floor == 0.5} == {
        "Effusion",
        "Pneumothorax",
        "Pleural_Thickening",
        "Hernia",
    }
    assert floors["Mass"] == 0.1


def test_regions_of_findings_that_have_one_box_are_not_divided():
    valleys = dict(zip(FINDINGS, ClarityConfig().per_finding("box_valleys"), strict=True))
    assert {finding for finding, valley in valleys.items() if valley == 0} == {"Cardiomegaly", "Edema", "Hernia"}
    assert valleys["Pneumonia"] == 0.8
    assert ClarityConfig(box_valleys=0.5).per_finding("box_valleys") == [0.5] * 14


@pytest.mark.parametrize("name", PER_FINDING_FIELDS)
def test_one_number_is_spread_and_a_list_kept(name):
    assert ClarityConfig(num_labels=3, **{name: 0.25}).per_finding(name) == [0.25] * 3
    for values in ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3)):
        assert ClarityConfig(num_labels=3, **{name: values}).per_finding(name) == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", PER_FINDING_FIELDS)
def test_a_list_of_another_length_is_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` must have one value per finding \(3\), got 2"):
        ClarityConfig(num_labels=3, **{name: [0.1, 0.2]})


def test_prevalence_gives_its_logit_clamped():
    config = ClarityConfig(num_labels=4, prevalence=[0.2, 0.0, 1.0, 0.001])
    low = math.log(0.01 / 0.99)
    assert config.prevalence_bias() == pytest.approx([math.log(0.25), low, -low, low])
    assert low == pytest.approx(-4.6, abs=0.01)


def test_findings_without_boxes_are_never_reached_by_a_score():
    config = ClarityConfig(id2label={0: "Mass", 1: "Nodule"}, score_thresholds=[0.2, 0.3], boxless_findings=["Nodule"])
    assert [row[0] for row in config.box_settings()] == [0.2, math.inf]
    assert config.per_finding("score_thresholds") == [0.2, 0.3]
    assert ClarityConfig.from_dict(json.loads(config.to_json_string())).boxless_findings == ["Nodule"]


def test_without_prevalence_the_bias_is_zero():
    assert ClarityConfig(num_labels=2).prevalence_bias() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "max"}, r"`pooling` must be one of \['attention', 'linear', 'mean'\], got 'max'"),
        ({"map_fusion": "sum"}, "`map_fusion` must be one of"),
        ({"box_components": "some"}, "`box_components` must be one of"),
        ({"box_valleys": 1.5}, "`box_valleys` must lie between 0 and 1, got"),
        ({"problem_type": "single_label_classification"}, "`problem_type` must be one of"),
        ({"hidden_size": 100}, "`hidden_size` must be a multiple of 6, got 100"),
        ({"cam_size": 100}, "`cam_size` must be a multiple of 8, got 100"),
        ({"image_size": 225}, r"`image_size height` must be a multiple of `patch_size` \(16\), got 225"),
        ({"image_size": (224, 100)}, "`image_size width` must be a multiple .* got 100"),
        ({"image_size": 0}, "`image_size height` must be .* got 0"),
        ({"image_size": -224}, "`image_size height` must be .* got -224"),
        ({"image_size": [224]}, r"`image_size` must be one side or \(height, width\), got \[224\]"),
        ({"image_size": [224, 224, 3]}, "`image_size` must be one side or"),
        ({"class_attention_layers": 0}, "`class_attention_layers` must be between 1 and .* got 0"),
        ({"class_attention_layers": 13}, r"between 1 and `num_hidden_layers` \(12\), got 13"),
        ({"affinity_layers": -1}, "`affinity_layers` must be between 0 and .* got -1"),
        ({"affinity_layers": 13}, "`affinity_layers` must be between 0 and .* got 13"),
        ({"suppression_floor": -0.1}, "`suppression_floor` must lie between 0 and 1"),
        ({"score_thresholds": 50}, "`score_thresholds` must lie between 0 and 1.*not percent"),
        ({"score_thresholds": [0.5] * 13 + [math.nan]}, "`score_thresholds` must lie between 0 and 1"),
        ({"score_slopes": 0.0}, "`score_slopes` must be above 0"),
        ({"score_slopes": [1.0] * 13 + [math.nan]}, "`score_slopes` must be above 0"),
        ({"score_intercepts": math.inf}, "`score_intercepts` must be finite"),
        ({"prevalence": 1.1}, "`prevalence` must lie between 0 and 1"),
        ({"map_thresholds": 0.0}, "`map_thresholds` must lie between 0 and 1"),
        ({"map_thresholds": 1}, "`map_thresholds` must lie between 0 and 1"),
        ({"map_thresholds": [math.nan] + [0.5] * 13}, "`map_thresholds` must lie between 0 and 1"),
        ({"num_labels": 0}, "`num_labels` must be at least 1, got 0"),
        ({"patch_size": 0}, "`patch_size` must be at least 1, got 0"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must be at least 1"),
        ({"cam_groups": 0}, "`cam_groups` must be at least 1"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1"),
        ({"tiled_attention_rate": -0.1}, "`tiled_attention_rate` must be inside"),
        ({"tiled_attention_rate": 1.5}, "`tiled_attention_rate` must be inside"),
        ({"ranking_share": 0}, "`ranking_share` must be inside"),
        ({"ranking_share": 1.5}, "`ranking_share` must be inside"),
        ({"map_power": 0}, "`map_power` must be inside"),
        ({"positive_weights": 0.0}, "`positive_weights` must be above 0"),
        ({"segment_cam": False}, "Set them so, or set segment_cam=True"),
        ({"segment_cam": False, "map_fusion": "attention"}, "`background_suppression` False without SegmentCAM"),
        ({"box_upsampling": 0}, "`box_upsampling` must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ClarityConfig(**fields)


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0])
def test_the_ends_of_closed_ranges_are_accepted(value):
    config = ClarityConfig(num_labels=1, score_thresholds=value, prevalence=value, suppression_floor=value)
    assert config.per_finding("score_thresholds") == [float(value)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"image_size": (320, 224), "score_thresholds": (0.1,) * 14, "suppression_floor": [0.3] * 14},
        {"id2label": {0: "Mass", 1: "Effusion"}, "prevalence": [0.1, 0.2], "box_components": "all"},
    ],
    ids=["defaults", "lists", "own findings"],
)
def test_a_config_survives_its_file(tmp_path, fields):
    config = ClarityConfig(**fields)
    config.save_pretrained(tmp_path)
    for loader in (ClarityConfig, AutoConfig):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, ClarityConfig)
        assert loaded.to_json_string() == config.to_json_string()
        assert loaded.findings == config.findings
        assert loaded.label2id == config.label2id
        assert loaded.patch_grid == config.patch_grid


def test_the_file_names_type_and_findings(tmp_path):
    ClarityConfig().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "clarity"
    assert written["id2label"]["1"] == "Cardiomegaly"
    assert written["problem_type"] == "multi_label_classification"


def test_loading_for_other_findings_replaces_the_names(tmp_path):
    ClarityConfig().save_pretrained(tmp_path)
    loaded = ClarityConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    assert (loaded.num_labels, loaded.findings) == (2, ["a", "b"])
    assert ClarityConfig.from_pretrained(tmp_path, num_labels=3).num_labels == 3


@pytest.mark.parametrize(
    "change", [{"num_labels": 3}, {"id2label": {0: "A", 1: "B", 2: "C"}}, {"label2id": {"A": 0, "B": 1, "C": 2}}]
)
def test_lists_of_values_per_finding_give_way_to_other_findings(tmp_path, change):
    ClarityConfig(score_thresholds=[0.3] * 14, prevalence=[0.1] * 14, map_thresholds=0.2).save_pretrained(tmp_path)
    config = ClarityConfig.from_pretrained(tmp_path, **change)
    assert config.num_labels == 3
    assert config.per_finding("score_thresholds") == [0.5] * 3
    assert config.per_finding("map_thresholds") == [0.2] * 3
    assert config.prevalence is None
    assert sorted(config.label2id) == sorted(config.findings)
    given = ClarityConfig.from_pretrained(tmp_path, score_thresholds=[0.1, 0.2, 0.3], **change)
    assert given.score_thresholds == [0.1, 0.2, 0.3]


OTHER_NAMES = {index: f"finding {index}" for index in range(14)}


@pytest.mark.parametrize(
    "change",
    [
        {"id2label": OTHER_NAMES},
        {"label2id": {name: index for index, name in OTHER_NAMES.items()}},
        {"id2label": dict(enumerate(FINDINGS[::-1]))},
    ],
    ids=["names", "names by label2id", "another order"],
)
def test_a_calibration_gives_way_to_other_findings_with_a_word(tmp_path, caplog, change):
    fitted = {"score_slopes": 2.0, "score_intercepts": [0.1] * 14, "map_thresholds": [0.3] * 14}
    ClarityConfig(**fitted, score_thresholds=0.3, prevalence=[0.1] * 14, cam_size=64).save_pretrained(tmp_path)
    config = ClarityConfig.from_pretrained(tmp_path, **change)
    assert not config.is_calibrated
    assert not config.has_calibration
    assert (config.score_thresholds, config.prevalence, config.cam_size) == (0.5, None, 64)
    assert "`map_thresholds`, `prevalence`, `score_intercepts`, `score_slopes`, `score_thresholds` went" in caplog.text
    given = ClarityConfig.from_pretrained(tmp_path, map_thresholds=[0.4] * 14, **change)
    assert given.map_thresholds == [0.4] * 14


@pytest.mark.parametrize(
    "same",
    [
        {"id2label": {str(index): name for index, name in enumerate(FINDINGS)}},
        {"label2id": {name: index for index, name in enumerate(FINDINGS)}},
        {"num_labels": 14},
    ],
)
def test_the_same_findings_said_again_change_nothing(tmp_path, caplog, same):
    ClarityConfig(score_slopes=[2.0] * 14, score_thresholds=[0.3] * 14).save_pretrained(tmp_path)
    config = ClarityConfig.from_pretrained(tmp_path, **same)
    assert config.is_calibrated
    assert config.score_thresholds == [0.3] * 14
    assert config.findings == list(FINDINGS)
    assert caplog.text == ""


def test_findings_renamed_in_place_are_not_calibrated():
    config = ClarityConfig(score_slopes=2.0)
    config.calibration_fingerprint = calibration_fingerprint(config.findings, {"weight": torch.ones(2)})
    assert config.is_calibrated
    config.id2label = OTHER_NAMES
    assert not config.is_calibrated


def test_a_dropped_calibration_leaves_what_is_one_number_for_all_findings(caplog):
    config = ClarityConfig(score_thresholds=0.3, map_thresholds=0.2)
    config.drop_calibration("nothing was fitted")
    assert (config.score_thresholds, config.map_thresholds) == (0.3, 0.2)
    assert caplog.text == ""
    config = ClarityConfig(score_thresholds=0.3, map_thresholds=0.2, score_intercepts=1.0)
    config.drop_calibration("the test says so")
    assert (config.score_intercepts, config.score_thresholds, config.map_thresholds) == (0.0, 0.5, 0.2)
    assert "went back to the defaults, because the test says so. `clarity-hf calibrate`" in caplog.text


@pytest.mark.parametrize("fingerprint", ["", "float32", "int8-" + "-".join(["0" * 16] * 2), "float32-x-y"])
def test_a_fingerprint_that_no_model_wrote_is_refused(fingerprint):
    with pytest.raises(ValueError, match="`calibration_fingerprint` must be None or as the model writes it"):
        ClarityConfig(calibration_fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", 10**9, "at most 16384, got 1000000000"),
        ("hidden_size", "384", "a whole number, got '384'"),
        ("hidden_size", 384.0, "a whole number, got 384.0"),
        ("hidden_size", None, "a whole number, got None"),
        ("num_hidden_layers", 10**6, "at most 1000"),
        ("num_labels", 10**7, "at most 1000"),
        ("num_labels", -1, "at least 1, got -1"),
        ("num_labels", True, "a whole number, got True"),
        ("box_upsampling", 10**6, "at most 64"),
        ("cam_size", 10**8, "at most 16384"),
        ("class_attention_layers", "3", "a whole number, got '3'"),
        ("segment_cam", "no", "True or False, got 'no'"),
        ("hidden_act", "os.system", "one of .* got 'os.system'"),
        ("pooling", ["attention"], "one of"),
        ("dtype", "os.system", "one of .*'float32'.* got 'os.system'"),
        ("transformers_weights", "adapter_model.bin", "name safetensors, got 'adapter_model.bin'"),
        ("layer_norm_eps", math.nan, "finite and at least 0, got nan"),
        ("initializer_range", "x", "a number, got 'x'"),
        ("orthogonal_loss_weight", -1, "finite and at least 0, got -1"),
        ("background_loss_weight", math.inf, "finite and at least 0, got inf"),
        ("hidden_dropout_prob", math.nan, r"inside \[0, 1\], got nan"),
        ("drop_path_rate", 2, r"inside \[0, 1\], got 2"),
        ("score_thresholds", math.nan, "lie between 0 and 1"),
        ("score_thresholds", [math.nan] * 14, "lie between 0 and 1"),
        ("map_thresholds", [[0.5]] * 14, r"a number, got '\[0.5\]'"),
        ("suppression_floor", "high", "a number, got 'high'"),
        ("id2label", {"a": "x"}, "map findings and numbers"),
        ("id2label", {0: ["x"]}, "map findings and numbers"),
        ("id2label", ["A", "B"], "map findings and numbers"),
        ("label2id", {"A": "x"}, "map findings and numbers"),
        ("id2label", {0: "A", 5: "B"}, r"have the keys 0 to 1, got \[0, 5\]"),
        ("id2label", {0: "A", 1: "A"}, r"name every finding once, got \['A'\]"),
        ("id2label", {0: ""}, "printable characters, got ''"),
        ("id2label", {0: "A\n# B"}, "printable characters"),
        ("id2label", {0: "A\x1b[31m"}, "printable characters"),
        ("id2label", {0: "A\u202eB"}, "printable characters"),
        ("id2label", {0: "A" * 201}, "printable characters"),
    ],
)
def test_hostile_values_are_refused(field, value, message):
    with pytest.raises(ValueError, match=rf"`{field}` must .*{message}"):
        ClarityConfig(**{field: value})


@pytest.mark.parametrize(
    "size", [16 * 10**6, [16 * 10**6, 224], [[224]], [224, 224, 224], "224", [224.0, 224], [224, -224]]
)
def test_hostile_image_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"`image_size( height| width)?` must"):
        ClarityConfig(image_size=size)


def test_a_model_that_fits_no_machine_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match="at most 4000000000 weights, got about 1125"):
        ClarityConfig(hidden_size=16_384, num_hidden_layers=1000, num_attention_heads=1)


def test_the_estimate_of_the_weights_is_close():
    config = ClarityConfig()
    with torch.device("meta"):
        model = ClarityForMultiLabelLocalization(config)
    assert config.num_weights == pytest.approx(sum(weight.numel() for weight in model.parameters()), rel=0.03)


def test_names_with_slashes_and_of_other_alphabets_are_names():
    names = {0: "Nodule/Mass", 1: "心脏扩大", 2: "Пневмония (правая)"}
    assert ClarityConfig(id2label=names).findings == list(names.values())


@pytest.mark.parametrize("name", ["per_finding", "validate_architecture", "findings", "from_dict", "__class__"])
def test_a_file_overwrites_no_method(name):
    with pytest.raises(ValueError, match=f"`config_dict` must hold fields of ClarityConfig, got '{name}'"):
        ClarityConfig.from_dict({"model_type": "clarity", name: 1})


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_file_names_no_attention_that_is_code_on_the_hub(name):
    with pytest.raises(ValueError, match=f"`{name}` of a file must be .* got 'someone/kernel', which is code"):
        ClarityConfig.from_dict({"model_type": "clarity", name: "someone/kernel"})
    assert ClarityConfig.from_dict({"model_type": "clarity", name: "sdpa"})._attn_implementation == "sdpa"


def test_boxes_may_take_a_higher_score_than_being_present():
    config = ClarityConfig(score_thresholds=0.3, box_score_thresholds=0.6, boxless_findings=["Mass"])
    rows = config.box_settings()
    assert {row[0] for row in rows} == {0.6, math.inf}
    assert [row[0] for row in ClarityConfig(score_thresholds=0.3).box_settings()] == [0.3] * 14
    config = ClarityConfig(box_score_thresholds=[0.6] * 14)
    assert config.has_calibration
    config.drop_calibration("of a test")
    assert config.box_score_thresholds is None


@pytest.mark.parametrize("name", PER_FINDING_FIELDS)
def test_null_for_a_field_of_each_finding_is_its_default(name):
    """In a config that was edited by hand, null removes a calibration."""
    config = ClarityConfig(**{name: None})
    assert config.per_finding(name) == ClarityConfig().per_finding(name)
    assert not config.is_calibrated
    assert not config.has_calibration
