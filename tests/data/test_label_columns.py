# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Where a table's labels stand, and what its cells say."""

import numpy as np
import pytest

from clarity_hf import FINDINGS
from clarity_hf.data.label_columns import (
    ColumnLabels,
    LabelOptions,
    NameLabels,
    cell_text,
    choose_labels,
    find_column,
    ordered_names,
    read_label,
    read_names,
)

NAN = np.nan


def choose(columns, findings=None, uncertain="nan", empty="nan"):
    return choose_labels(columns, LabelOptions(findings, uncertain, empty))


@pytest.mark.parametrize(
    ("written", "label"),
    [("1", 1), ("1.0", 1), ("0", 0), ("-1.0", -1), ("", None), ("NaN", None), ("true", 1), ("False", 0), ("0.0", 0)],
)
def test_a_cell_is_present_absent_uncertain_or_empty(written, label):
    assert read_label(written, "a.csv, line 2", "Mass") == label


@pytest.mark.parametrize("written", ["2", "0.5", "yes", "inf"])
def test_another_cell_is_refused_with_its_place(written):
    with pytest.raises(ValueError, match=f"a.csv, line 2: 'Mass' must be 1, 0, −1 or empty, got '{written}'"):
        read_label(written, "a.csv, line 2", "Mass")


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (NAN, ""), (1.0, "1"), (0.5, "0.5"), (7, "7"), (True, "True"), (" a ", "a")]
)
def test_a_typed_value_reads_as_a_cell(value, text):
    assert cell_text(value) == text


@pytest.mark.parametrize(("uncertain", "read"), [("nan", NAN), ("negative", 0), ("positive", 1)])
def test_uncertain_labels_are_read_as_requested_and_named(uncertain, read):
    row = ColumnLabels({"a": "Mass", "b": "Edema"}, None, uncertain, "nan").read({"a": "-1", "b": "1"}, "")
    np.testing.assert_array_equal(row.labels, [read, 1])
    assert row.labels.dtype == np.float32
    assert row.uncertain == ("Mass",)


@pytest.mark.parametrize(("empty", "read"), [("nan", NAN), ("negative", 0)])
def test_empty_cells_are_read_as_requested(empty, read):
    row = ColumnLabels({"a": "Mass"}, None, "nan", empty).read({"a": ""}, "")
    np.testing.assert_array_equal(row.labels, [read])


def test_no_finding_makes_empty_cells_absent_but_for_devices():
    reader = ColumnLabels({"Mass": "Mass", "Support Devices": "Support Devices"}, "No Finding", "nan", "nan")
    row = reader.read({"No Finding": "1", "Mass": "", "Support Devices": ""}, "")
    np.testing.assert_array_equal(row.labels, [0, NAN])
    for normal in ("0", ""):
        row = reader.read({"No Finding": normal, "Mass": "", "Support Devices": "1"}, "")
        np.testing.assert_array_equal(row.labels, [NAN, 1])


def test_no_finding_with_a_finding_is_a_contradiction_and_the_finding_is_used():
    reader = ColumnLabels({"Mass": "Mass", "Support Devices": "Support Devices"}, "No Finding", "nan", "nan")
    row = reader.read({"No Finding": "1", "Mass": "1", "Support Devices": ""}, "")
    assert row.contradicts
    assert row.labels[0] == 1
    assert not reader.read({"No Finding": "1", "Mass": "0", "Support Devices": "1"}, "").contradicts


def test_names_are_the_present_findings_and_all_others_are_absent():
    reader = NameLabels("labels", {"Effusion": "Effusion", "Rib": "Rib", "Mass": "Mass"})
    np.testing.assert_array_equal(reader.read({"labels": "Mass | pleural effusion"}, "").labels, [1, 0, 1])
    np.testing.assert_array_equal(reader.read({"labels": "No Finding"}, "").labels, [0, 0, 0])
    np.testing.assert_array_equal(reader.read({"labels": ""}, "").labels, [NAN, NAN, NAN])
    assert reader.read({"labels": "No Finding|Mass"}, "").contradicts


def test_an_unknown_name_is_refused_with_its_place_and_the_closest():
    with pytest.raises(ValueError, match=r"line 9: 'labels' must hold .* got 'Efusion'\. Did you mean 'Effusion'\?"):
        NameLabels("labels", {"Effusion": "Effusion"}).read({"labels": "Efusion"}, "line 9")


def test_nih_names_keep_their_order_and_others_follow():
    cells = ["Hernia|Zebra", "No Finding", "", "Atelectasis|Pleural Thickening|Ant"]
    assert ordered_names(cells) == ["Atelectasis", "Pleural Thickening", "Hernia", "Ant", "Zebra"]
    assert read_names(" a | b||") == ["a", "b"]


def test_columns_of_labels_are_found_and_other_numbers_are_not():
    columns = {
        "path": ["a", "b"],
        "Sex": ["0", "1"],
        "Age": ["61", "35"],
        "Follow-up #": ["0", "1"],
        "Pleural Effusion": ["1.0", ""],
        "Rib Fracture": ["-1", "0"],
        "nothing": ["", ""],
        "No Finding": ["0", "1"],
    }
    reader = choose(columns)
    assert reader.names == ("Effusion", "Rib Fracture")
    assert reader.normal_column == "No Finding"


def test_a_column_of_names_is_found_and_a_report_or_a_number_is_not_taken_for_one():
    assert choose({"Finding Labels": ["Mass|Rib", "No Finding"], "smoker": ["1", "0"]}).names == ("Mass", "Rib")
    report = "The heart is of normal size and there is no focal consolidation, effusion or pneumothorax."
    assert choose({"findings": [report], "Edema": ["1"]}).names == ("Edema",)
    assert choose({"label": ["1", "0"]}).names == ("label",)


def test_findings_choose_and_rename_columns():
    columns = {"eff": ["1"], "Mass": ["0"], "smoker": ["1"]}
    assert choose(columns, ["Mass"]).names == ("Mass",)
    assert choose(columns, {"eff": "Effusion", "Mass": "Own Mass"}).names == ("Effusion", "Own Mass")


def test_findings_are_the_vocabulary_of_a_column_of_names():
    reader = choose({"labels": ["Mass"]}, ["Edema", "Mass"])
    assert reader.names == ("Edema", "Mass")
    np.testing.assert_array_equal(reader.read({"labels": "Mass"}, "").labels, [0, 1])
    renamed = choose({"labels": ["rib", "ribs"]}, {"rib": "Fracture", "ribs": "Fracture"})
    assert renamed.names == ("Fracture",)
    np.testing.assert_array_equal(renamed.read({"labels": "ribs"}, "").labels, [1])


@pytest.mark.parametrize(
    ("columns", "findings", "message"),
    [
        ({"Mass": ["1"]}, ["Mas"], r"got 'Mas'\. Did you mean 'Mass'\?"),
        ({"age": ["61"]}, None, "`findings` must be given if no column holds labels"),
        ({"Effusion": ["1"], "Pleural Effusion": ["0"]}, None, r"got \['Effusion'\] twice"),
    ],
)
def test_labels_that_are_not_there_are_an_error(columns, findings, message):
    with pytest.raises(ValueError, match=message):
        choose(columns, findings)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match=r"Pass \['Mass'\]"):
        choose({"Mass": ["1"]}, "Mass")
    with pytest.raises(ValueError, match=r"`uncertain` must be one of \['nan', 'negative', 'positive'\], got 'zero'"):
        choose({"Mass": ["1"]}, uncertain="zero")
    with pytest.raises(ValueError, match="`empty` must be one of"):
        choose({"Mass": ["1"]}, empty="positive")


def test_a_column_is_found_by_its_usual_name_or_as_named():
    header = ["Patient ID", "subject_id", "Path"]
    assert find_column(header, None, "patient_column", ("patient id", "subject id")) == "Patient ID"
    assert find_column(header, "subject_id", "patient_column", ("patient id",)) == "subject_id"
    assert find_column(header, None, "split_column", ("split",)) is None
    with pytest.raises(ValueError, match=r"`image_column` must be .* got 'path'\. Did you mean 'Path'\?"):
        find_column(header, "path", "image_column", ())


LISTS = {
    "Effusion|Mass": ["Effusion", "Mass"],
    "['Effusion', 'Mass']": ["Effusion", "Mass"],
    '["Effusion", "Mass"]': ["Effusion", "Mass"],
    "['Effusion' 'Mass']": ["Effusion", "Mass"],
    "['Effusion'\n 'Mass']": ["Effusion", "Mass"],
    "('Effusion', 'Mass')": ["Effusion", "Mass"],
    "('Effusion',)": ["Effusion"],
    "{'Effusion', 'Mass'}": ["Effusion", "Mass"],
    "[Effusion, Mass]": ["Effusion", "Mass"],
    "array(['Effusion', 'Mass'], dtype=object)": ["Effusion", "Mass"],
    '["Crohn\'s disease"]': ["Crohn's disease"],
    "[]": [],
    "()": [],
    "[ ]": [],
    "array([], dtype=object)": [],
    "": None,
    "nan": None,
    "None": None,
    "[nan]": None,
    "['']": None,
    "(old) fracture": ["(old) fracture"],
    "(old fracture)": ["(old fracture)"],
}


@pytest.mark.parametrize("written", LISTS)
def test_names_are_read_from_lists_as_they_are_printed(written):
    assert read_names(written) == LISTS[written]


def test_lists_as_text_give_the_labels_of_names_joined_by_bars():
    cells = ["['Mass', 'Edema']", "[]", "", "Edema"]
    reader = choose({"labels": cells})
    assert reader.names == ("Mass", "Edema")
    read = [reader.read({"labels": cell}, "line") for cell in cells]
    np.testing.assert_array_equal([row.labels for row in read], [[1, 1], [0, 0], [np.nan, np.nan], [0, 1]])
    assert [row.empty_list for row in read] == [False, True, False, False]


JOINED = [
    "Effusion;Mass",
    "Effusion, Mass",
    "Effusion,Mass",
    "Effusion/Mass",
    "Effusion + Mass",
    "Effusion & Mass",
    "Effusion and Mass",
    "Effusion\tMass",
    "Effusion\nMass",
    "Effusion - Mass",
    "Effusion_Mass",
    "Effusion-Mass",
    "Effusion Mass",
    "Pleural Effusion Mass",
    "Effusion;",
    "Effusion; unknown",
    "Effusion: large",
    "['Effusion', nan 'Mass']",
    "No Finding;Mass",
]


@pytest.mark.parametrize("cell", JOINED)
def test_names_joined_by_anything_but_a_bar_are_refused(cell):
    with pytest.raises(ValueError, match=r"(?s)`findings` must have names that contain no others, .*Join the"):
        choose({"path": ["a", "b"], "labels": [cell, "Edema"]})


def test_unknown_names_that_several_cells_share_are_joined_too():
    with pytest.raises(ValueError, match=r"contain no others, got Ant;Bee, Ant;Cat \(2 in all\)"):
        ordered_names(["Ant;Bee", "Ant;Cat"])
    with pytest.raises(ValueError, match=r"contain no others, got Ant/Bee"):
        ordered_names(["Ant/Bee", "Bee"])


ALONE = ["Pleural Effusion", "Lung Opacity", "Support Devices", "Rib/clavicle fracture", "COVID-19", "Pleural Other"]


def test_names_of_several_words_are_not_joined_names():
    assert set(ordered_names([*ALONE, "Mass", "Pleural_Thickening", "Fracture"])) >= {*ALONE, "Mass", "Fracture"}


def test_joined_names_are_one_finding_where_findings_say_so():
    reader = choose({"labels": ["Mass, calcified", "Mass"]}, ["Mass, calcified", "Mass"])
    assert reader.read({"labels": "Mass, calcified"}, "line").labels.tolist() == [1, 0]


def test_long_cells_of_joined_names_are_refused_and_reports_are_ignored():
    long = ";".join(FINDINGS)
    with pytest.raises(ValueError, match="must have names that contain no others"):
        choose({"labels": [long, "Mass"], "smoker": ["0", "1"]})
    report = "The heart is of normal size, and neither effusion nor consolidation is seen on this radiograph."
    assert choose({"findings": [report, report], "Mass": ["0", "1"]}).names == ("Mass",)


@pytest.mark.parametrize("cells", [["0", "1", "2"], ["3", "7|9"], ["1.5", "Mass"]])
def test_numbers_are_not_names(cells):
    with pytest.raises(ValueError, match="`findings` must have names, got the numbers"):
        choose({"label": cells})
