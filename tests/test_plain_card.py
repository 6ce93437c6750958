# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of what is known by nothing but itself; and what the library's own ways to the Hub leave there."""

import os
import shutil
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitInfo, HfApi, ModelCard, RepoUrl
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from transformers import Trainer, TrainingArguments, pipeline

from clarity_hf import ClarityImageProcessor
from clarity_hf.export.publication_checks import card_problems
from clarity_hf.plain_card import plain_card, replace_draft
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments

OWN = "---\nlicense: mit\nlibrary_name: transformers\n---\n\n# My own words\n"


class Hub:
    """A stand-in for the Hub's API: repositories are folders."""

    def __init__(self, root):
        self.root = root

    def create_repo(self, api, repo_id, **options):
        repo_id = repo_id if "/" in repo_id else f"me/{repo_id}"
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def create_commit(self, api, repo_id, operations, **options):
        for operation in operations:
            self.write(repo_id, operation.path_in_repo, Path(operation.path_or_fileobj))
        return self.commit(repo_id)

    def upload_folder(self, api, repo_id, folder_path, ignore_patterns=None, run_as_future=False, **options):
        names = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, ignore_patterns=ignore_patterns):
            self.write(repo_id, name, Path(folder_path) / name)
        done = Future()
        done.set_result(self.commit(repo_id))
        return done if run_as_future else done.result()

    def write(self, repo_id, name, source):
        target = self.root / repo_id / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def commit(self, repo_id):
        return CommitInfo(f"https://huggingface.co/{repo_id}/commit/0", "", "", "0")

    def files(self, repo_id):
        return sorted(path.name for path in (self.root / repo_id).iterdir())

    def card(self, repo_id):
        return (self.root / repo_id / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub(tmp_path / "hub")
    for name in ("create_repo", "create_commit", "upload_folder"):
        method = getattr(made, name)
        monkeypatch.setattr(HfApi, name, lambda api, *args, method=method, **options: method(api, *args, **options))
    load = ModelCard.load

    def load_card(place, **options):
        here = made.root / str(place) / "README.md"
        if not here.is_file() and not os.path.exists(place):
            raise EntryNotFoundError("no card")
        return load(here if here.is_file() else place, **options)

    monkeypatch.setattr(ModelCard, "load", load_card)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def processor():
    return ClarityImageProcessor(size={"height": 64, "width": 64})


def rows():
    return [{"pixel_values": torch.randn(3, 64, 64), "labels": torch.ones(14)} for _ in range(2)]


def answers(hub, repo_id, image):
    """Findings that the repository's model gives, loaded as a folder."""
    return pipeline("chest-xray-localization", model=str(hub.root / repo_id), radiograph_check="off")(image)


# The card ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("findings", [(), ("Mass", "Nodule")])
def test_it_is_valid_claims_nothing_and_says_how_to_load(findings):
    card = plain_card("someone/model", findings)
    assert card_problems(card) == []
    assert 'pipeline("chest-xray-localization", model="someone/model")' in card
    assert "not recorded here" in card
    assert ("in the order of the logits: Mass, Nodule." in card) == bool(findings)
    assert 'model="FOLDER_OR_HUB_ID"' in plain_card("folder")


def test_only_drafts_of_the_library_are_replaced(tmp_path):
    replace_draft(tmp_path, "me/model")
    assert "# model\n" in (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(OWN, encoding="utf-8")
    replace_draft(tmp_path, "me/model")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == OWN


# The library's ways to the Hub ---------------------------------------------------------------------------------------


def test_model_and_processor_pushed_one_after_the_other_load(hub, tiny_model, processor, image):
    tiny_model.push_to_hub("me/model")
    assert hub.files("me/model") == ["README.md", "config.json", "model.safetensors"]
    assert "Findings, in the order of the logits: Atelectasis," in hub.card("me/model")
    processor.push_to_hub("me/model")
    assert hub.files("me/model") == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert "Findings, in the order of the logits: Atelectasis," in hub.card("me/model")
    assert card_problems(hub.card("me/model")) == []
    assert len(answers(hub, "me/model", image)) == 14


def test_the_other_order_and_the_pipeline_load_too(hub, tiny_model, processor, image):
    processor.push_to_hub("me/model")
    tiny_model.push_to_hub("me/model")
    found = pipeline("chest-xray-localization", model=tiny_model, image_processor=processor, radiograph_check="off")
    found.push_to_hub("me/pipeline")
    assert answers(hub, "me/model", image) == answers(hub, "me/pipeline", image) == found(image)
    assert 'model="me/pipeline"' in hub.card("me/pipeline")


def test_a_repository_s_own_card_stays(hub, tiny_model, processor):
    (hub.root / "me" / "model").mkdir(parents=True)
    (hub.root / "me" / "model" / "README.md").write_text(OWN, encoding="utf-8")
    tiny_model.push_to_hub("me/model")
    processor.push_to_hub("me/model")
    assert "# My own words" in hub.card("me/model")


@pytest.mark.parametrize(
    ("trainer_class", "arguments_class"),
    [(Trainer, TrainingArguments), (ClarityDistillationTrainer, ClarityTrainingArguments)],
    ids=["transformers", "ours"],
)
def test_what_a_trainer_pushes_loads(hub, tiny_model, processor, image, trainer_class, arguments_class):
    args = arguments_class("run", max_steps=1, use_cpu=True, report_to=[], push_to_hub=True)
    trainer = trainer_class(model=tiny_model, args=args, train_dataset=rows(), processing_class=processor)
    trainer.train()
    trainer.push_to_hub()
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} <= {*hub.files("me/run")}
    assert answers(hub, "me/run", image)[0]["score"] == pytest.approx(
        pipeline("chest-xray-localization", model=tiny_model, image_processor=processor, radiograph_check="off")(
            image
        )[0]["score"]
    )
    if trainer_class is ClarityDistillationTrainer:
        assert not Path("run", "training_args.bin").exists()
        assert 'model="me/run"' in hub.card("me/run")


def test_a_card_in_the_output_folder_is_what_our_trainer_pushes(hub, tiny_model, processor):
    Path("run").mkdir()
    Path("run", "README.md").write_text(OWN, encoding="utf-8")
    args = ClarityTrainingArguments("run", max_steps=1, use_cpu=True, report_to=[], push_to_hub=True)
    ClarityDistillationTrainer(
        model=tiny_model, args=args, train_dataset=rows(), processing_class=processor
    ).save_model()
    assert hub.card("me/run") == OWN
