# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What the recipes share: one set of data fields, and the data set by which the epoch is chosen."""

from dataclasses import fields

import pytest
from transformers import TrainingArguments

from clarity_hf.data.label_columns import LabelOptions
from clarity_hf.data.sources import PhantomOptions, ReadingOptions
from clarity_hf.training import recipes as common
from clarity_hf.training.recipes import (
    DataRecipe,
    images_that_decide,
    open_recipe_sources,
    require_reporters,
    run_command,
)
from clarity_hf.training.train import TrainingRecipe
from clarity_hf.training.train import train as train_student
from clarity_hf.training.train_teacher import TeacherRecipe, train_teacher


@pytest.mark.parametrize("recipe", [TrainingRecipe, TeacherRecipe])
def test_a_recipe_repeats_no_field_of_the_data(recipe):
    shared = {field.name for field in fields(DataRecipe)}
    assert {"data_dir", "image_repeats", "phantom_count", "augment", "validation_split"} <= shared
    assert not shared & set(vars(recipe)["__annotations__"])


def test_every_field_about_the_data_sets_reaches_them(monkeypatch):
    asked = []
    monkeypatch.setattr(common, "open_sources", lambda *arguments: asked.extend(arguments))
    of_phantoms = {"phantom_count": 7, "finding_rate": 0.5, "finding_contrast": 2.0}
    of_files = {"findings": ["Mass"], "uncertain": "negative", "empty": "negative"}
    of_files |= {"validation_split": "nih-validation", "verify": True}
    recipe = DataRecipe(data_dir=["images"], image_repeats=2, **of_phantoms, **of_files)
    open_recipe_sources(recipe, phantom_size=32, seed=5, streaming=True)
    assert asked == [
        ["images"],
        2,
        PhantomOptions(7, seed=5, size=32, finding_rate=0.5, finding_contrast=2.0),
        LabelOptions(["Mass"], "negative", "negative"),
        ReadingOptions(validation_split="nih-validation", verify=True, streaming=True),
    ]
    elsewhere = {"data_dir", "image_repeats", "augment", "crop_scale", "blur", "image_cache", "min_positives"}
    assert {field.name for field in fields(DataRecipe)} == {*of_phantoms, *of_files} | elsewhere


def test_the_last_of_several_data_sets_decides(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), metric_for_best_model="auroc", use_cpu=True)
    one = {"phantom": ["a"]}
    assert images_that_decide(one, args) == ["a"]
    assert args.metric_for_best_model == "auroc"
    two = {"phantom": ["a"], "images": ["b"]}
    assert images_that_decide(two, args) == two
    assert args.metric_for_best_model == "images_auroc"


def test_a_command_passes_its_arguments_to_the_training(tmp_path):
    trained = []
    words = ["--output_dir", str(tmp_path), "--seed", "7", "--use_cpu", "--image_repeats", "3"]
    classes = (DataRecipe, TrainingArguments)
    run_command(lambda *arguments: trained.append(arguments), classes, {"phantom_count": 5}, words)
    ((recipe, args),) = trained
    assert (recipe.image_repeats, recipe.phantom_count, args.seed) == (3, 5, 7)


def test_a_reporter_that_is_not_installed_is_refused_before_any_work(tmp_path, monkeypatch):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    args = TrainingArguments(tmp_path, use_cpu=True, report_to=["tensorboard"])
    with pytest.raises(ImportError, match=r"`report_to` .*, got tensorboard: .*clarity_hf\[curves"):
        require_reporters(args)
    monkeypatch.setattr(common, "open_sources", lambda *arguments: pytest.fail("images were opened"))
    for train, recipe in ((train_student, TrainingRecipe()), (train_teacher, TeacherRecipe())):
        with pytest.raises(ImportError, match="report_to"):
            train(recipe, args)
    require_reporters(TrainingArguments(tmp_path, use_cpu=True, report_to="none"))
