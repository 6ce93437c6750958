# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Other findings: what both lists know follows by name, new ones start from the known."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch

from clarity_hf import ClarityForMultiLabelLocalization
from clarity_hf.training.adaptation import adapt_findings

_spec = importlib.util.spec_from_file_location("tiny_vits", Path(__file__).with_name("tiny_vits.py"))
tiny_vits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_vits)
EXACT = tiny_vits.EXACT
assert_same_weights, clarity, images = tiny_vits.assert_same_weights, tiny_vits.clarity, tiny_vits.images
randomised = tiny_vits.randomised

NAMES = ["Mass", "Nodule", "Effusion"]
LISTS = {
    "score_thresholds": [0.1, 0.2, 0.3],
    "map_thresholds": [0.4, 0.5, 0.6],
    "suppression_floor": [0.7, 0.8, 0.9],
    "prevalence": [0.01, 0.02, 0.03],
}


def trained(**changes):
    fitted = {**LISTS, **{name: value for name, value in changes.items() if name in LISTS}}
    shape = {name: value for name, value in changes.items() if name not in LISTS}
    model = randomised(clarity(ClarityForMultiLabelLocalization, findings=NAMES, **shape))
    for name, value in fitted.items():
        setattr(model.config, name, value)
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "linear"},
        {"pooling": "mean"},
        {"segment_cam": False, "map_fusion": "attention", "background_suppression": False},
    ],
    ids=["attention", "linear", "mean", "no SegmentCAM"],
)
def test_the_same_findings_in_another_order_are_a_permutation(changes):
    model = trained(**changes)
    before = copy.deepcopy(model)
    rng = torch.random.get_rng_state()
    adapted, report = adapt_findings(model, ["Effusion", "Mass", "Nodule"])
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert (report.kept, report.new, report.dropped) == (["Effusion", "Mass", "Nodule"], [], [])
    order = [2, 0, 1]
    outputs, expected = adapted(images()), model(images())
    torch.testing.assert_close(outputs.logits, expected.logits[:, order], **EXACT)
    torch.testing.assert_close(outputs.localization_maps, expected.localization_maps[:, order], **EXACT)
    for name, values in LISTS.items():
        assert getattr(adapted.config, name) == [values[i] for i in order]
    assert adapted.config.findings == ["Effusion", "Mass", "Nodule"]
    assert adapted.config.label2id == {"Effusion": 0, "Mass": 1, "Nodule": 2}
    assert_same_weights(model, before)
    assert model.config.to_dict() == before.config.to_dict()


def test_dropping_and_adding_findings_keeps_the_known_rows():
    model = trained()
    adapted, report = adapt_findings(model, ["Hernia", "Nodule", "Fracture"])
    assert str(report) == "Findings: 1 kept (Nodule); 2 new (Hernia, Fracture); 2 dropped (Mass, Effusion)"
    old, new = model.state_dict(), adapted.state_dict()
    axes = {"clarity.embeddings.class_tokens": 1, "clarity.embeddings.class_positions": 1}
    axes |= {"class_token_head.weight": 0, "class_token_head.bias": 0}
    axes |= {"segment_cam.cam.weight": 0, "ranking_pooling.bias": 0}
    for name, weight in old.items():
        if name in axes:
            assert torch.equal(new[name].select(axes[name], 1), weight.select(axes[name], 1)), name
        else:
            assert torch.equal(new[name], weight), name
    for name in list(axes)[:2]:
        noise = new[name][0, [0, 2]] - old[name].mean(1)
        assert noise.std().item() == pytest.approx(0.02, rel=0.4)
        assert not torch.equal(noise[0], noise[1])
    assert new["ranking_pooling.bias"][0] == new["class_token_head.bias"][0] == 0  # of a prevalence of one half
    assert new["class_token_head.weight"][0].abs().max() <= 0.1  # fresh, of std 0.02
    assert new["segment_cam.cam.weight"][0].any()
    config = adapted.config
    assert (config.score_thresholds, config.map_thresholds) == (0.5, 0.5)  # fitted to three others
    assert config.suppression_floor == [0.5, 0.8, 0.1]  # Hernia is a finding at the rim
    assert config.prevalence == [0.5, 0.02, 0.5]


def test_one_finding_and_numbers_for_all_are_possible():
    model = trained(score_thresholds=0.3, suppression_floor=None)
    adapted, _ = adapt_findings(model, ["Effusion"])
    assert adapted.config.score_thresholds == 0.3
    assert adapted.config.suppression_floor is None
    assert adapted(images()).logits.shape == (2, 1)


def test_an_adapted_model_saves_and_loads(tmp_path):
    adapted, _ = adapt_findings(trained(), ["Hernia", "Nodule"])
    adapted.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert_same_weights(loaded, adapted)
    assert loaded.config.findings == ["Hernia", "Nodule"]
    assert loaded.config.suppression_floor == [0.5, 0.8]


def test_new_rows_come_from_the_generator():
    model = trained()
    names = ["Mass", "Hernia"]
    first, _ = adapt_findings(model, names, generator=torch.Generator().manual_seed(4))
    again, _ = adapt_findings(model, names, generator=torch.Generator().manual_seed(4))
    other, _ = adapt_findings(model, names)
    assert_same_weights(again, first)
    assert not torch.equal(other.class_token_head.weight[1], first.class_token_head.weight[1])
    assert not torch.equal(other.clarity.embeddings.class_tokens[0, 1], first.clarity.embeddings.class_tokens[0, 1])


def test_dtype_mode_and_attention_stay():
    model = trained().to(torch.bfloat16).train()
    model.set_attn_implementation("eager")
    adapted, _ = adapt_findings(model, ["Mass"])
    assert adapted.dtype == torch.bfloat16
    assert adapted.training
    assert adapted.config._attn_implementation == "eager"
    assert not adapt_findings(model.eval(), ["Mass"])[0].training


def test_findings_must_be_a_list_of_different_names():
    model = trained()
    with pytest.raises(TypeError, match="got the string 'Mass'"):
        adapt_findings(model, "Mass")
    for names in ([], ["Mass", "Mass"]):
        with pytest.raises(ValueError, match="at least one and each once"):
            adapt_findings(model, names)
