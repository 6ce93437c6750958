# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The same image has the same result, and the same seeded training the same weights.

Results: scores to 1e-5 and boxes to a pixel, however images are put into batches, on one thread or two, in whatever
process, by the model, the pipelines, `clarity-hf predict`, an export or the snippets of pages. A training repeats to
the last bit on a CPU, in processes started anew, whatever the hash seed and the number of readers.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.cli import main
from clarity_hf.export import onnx_runner
from clarity_hf.export.export import export_model
from clarity_hf.phantoms import draw_phantom, write_phantoms
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
MODEL = "clarity-s16-224"
REPOSITORY = Path(__file__).parents[1]

IN_A_PROCESS = """
import json, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
model = ClarityForMultiLabelLocalization.from_pretrained(sys.argv[2]).eval()
processor = ClarityImageProcessor.from_pretrained(sys.argv[2])
pipeline = ChestXrayLocalizationPipeline(model=model, image_processor=processor, device="cpu")
print(json.dumps([pipeline(image) for image in sys.argv[3:]]))
"""


def start(*words, **environment):
    """Python in a process of its own."""
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def printed(process):
    """What it prints until it ends well."""
    out, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors.decode()[-3000:]
    return out.decode()


def assert_same(one, other):
    """Results of an image: the same findings, scores to 1e-5, presence, boxes to a pixel."""
    one, other = ({row["label"]: row for row in found} for found in (one, other))
    assert one.keys() == other.keys()
    for label, row in one.items():
        assert row["score"] == pytest.approx(other[label]["score"], abs=1e-5), label
        assert row["present"] == other[label]["present"], label
        assert len(row["boxes"]) == len(other[label]["boxes"]), label
        for box, reference in zip(row["boxes"], other[label]["boxes"], strict=True):
            assert box == pytest.approx(reference, abs=1), label


def write_images(folder):
    """Five phantoms of several sizes and shapes."""
    folder.mkdir()
    for seed, (height, width) in enumerate([(256, 256), (320, 256), (256, 300), (224, 224), (512, 400)]):
        image = Image.fromarray(draw_phantom(seed, size=256, findings=("Effusion",)[: seed % 2]).image)
        image.resize((width, height)).save(folder / f"{seed}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module", params=["phantoms", "nih"])
def images(request, tmp_path_factory):
    """Paths of phantoms, and of real images where there are any."""
    if request.param == "phantoms":
        return write_images(tmp_path_factory.mktemp("data") / "images")
    return sorted((request.getfixturevalue("nih_folder") / "images").iterdir())[:5]


@pytest.fixture(scope="module")
def pipeline():
    model = ClarityForMultiLabelLocalization.from_pretrained(MODEL).eval()
    processor = ClarityImageProcessor.from_pretrained(MODEL)
    return ChestXrayLocalizationPipeline(model=model, image_processor=processor, device="cpu")


@pytest.fixture(scope="module")
def exported(pipeline, tmp_path_factory):
    """The packaged checkpoint as ONNX, run by the file that lies beside it."""
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("export") / "onnx"
    export_model(pipeline.model, pipeline.image_processor, folder)
    return onnx_runner.OnnxRunner(folder)


@pytest.fixture(scope="module")
def alone(images, pipeline):
    """Results of each image in a batch of its own."""
    results = [pipeline(str(image)) for image in images]
    assert any(row["boxes"] for found in results for row in found)  # something that could differ
    return results


@pytest.mark.parametrize("batch_size", [2, 5])
def test_in_a_batch_with_other_images_an_image_has_the_result_that_it_has_alone(images, pipeline, alone, batch_size):
    for found, expected in zip(pipeline([str(image) for image in images], batch_size=batch_size), alone, strict=True):
        assert_same(found, expected)
    backwards = pipeline([str(image) for image in reversed(images)], batch_size=batch_size)
    for found, expected in zip(reversed(backwards), alone, strict=True):
        assert_same(found, expected)


def test_in_the_same_batch_an_image_has_the_same_result_to_the_last_bit(images, pipeline):
    paths = [str(image) for image in images]
    assert pipeline(paths, batch_size=5) == pipeline(paths, batch_size=5)


def test_model_and_processor_give_what_the_pipeline_gives(images, pipeline, alone):
    model, processor = pipeline.model, pipeline.image_processor
    arrays = [np.asarray(Image.open(image).convert("L")) for image in images]
    with torch.inference_mode():
        outputs = model(**processor(arrays, return_tensors="pt"))
    config = model.config
    results = processor.post_process_localization(outputs, target_sizes=[image.shape for image in arrays])
    for found, expected in zip(results, alone, strict=True):
        scores = {config.id2label[index]: score for index, score in enumerate(found["finding_scores"].tolist())}
        assert scores == pytest.approx({row["label"]: row["score"] for row in expected}, abs=1e-5)
        for index, label in config.id2label.items():
            boxes = found["boxes"][found["labels"] == index].tolist()
            row = next(row for row in expected if row["label"] == label)
            expected_boxes = [list(box.values()) for box in row["boxes"]]
            assert len(boxes) == len(expected_boxes)
            for box, reference in zip(boxes, expected_boxes, strict=True):
                assert box == pytest.approx(reference, abs=1)


def boxes_of(found):
    """Boxes of the pipeline's result by finding."""
    return {row["label"]: [list(box.values()) for box in row["boxes"]] for row in found if row["boxes"]}


def drawn(result, config):
    """Boxes of `post_process_localization` by finding."""
    boxes = {}
    for label, box in zip(result["labels"].tolist(), result["boxes"].tolist(), strict=True):
        boxes.setdefault(config.id2label[label], []).append(box)
    return boxes


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/transformers.md"])
def test_the_snippets_of_pages_draw_what_the_pipeline_draws(page, images, pipeline, alone, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text("utf-8"), flags=re.DOTALL)
    [snippet] = [block for block in blocks if "post_process_localization(" in block and "from_pretrained" in block]
    monkeypatch.chdir(tmp_path)
    for image, expected in zip(images, alone, strict=True):
        shutil.copyfile(image, "image.png")
        names = {}
        exec(re.sub(r"draw_phantom\(.*\)\.image", "read_image('image.png')", snippet), names)
        found, wanted = drawn(names["result"], pipeline.model.config), boxes_of(expected)
        assert found.keys() == wanted.keys()
        for label, boxes in found.items():
            np.testing.assert_allclose(boxes, wanted[label], atol=1e-3)


def test_the_three_lines_of_the_readme_give_what_the_pipeline_gives(images, alone, tmp_path, monkeypatch, capfd):
    [snippet] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for image, expected in zip(images, alone, strict=True):
        shutil.copyfile(image, "image.png")
        names = {}
        exec(snippet, names)
        assert_same(names["findings"], expected)
    assert "No model was supplied" not in capfd.readouterr().err


def test_the_stock_classification_pipeline_gives_the_same_scores_in_the_same_order(images, alone):
    classify = transformers.pipeline("image-classification", MODEL, device="cpu", top_k=14)
    for image, expected in zip(images, alone, strict=True):
        found = classify(str(image))
        assert [row["label"] for row in found] == [row["label"] for row in expected]
        assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-5)


def test_the_exported_runner_draws_what_the_pipeline_draws(exported, images, alone):
    for image, expected in zip(images, alone, strict=True):
        assert_same(exported(image), expected)


def test_predicts_lines_are_what_the_pipeline_gives(images, alone, tmp_path):
    words = ["--model", MODEL, "--output-dir", str(tmp_path / "out"), "--device", "cpu", "--batch-size", "3"]
    assert main(["predict", *map(str, images), *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "findings.jsonl").read_text().splitlines()]
    by_name = {line["image"]: line["findings"] for line in lines}
    for image, expected in zip(images, alone, strict=True):
        assert_same(by_name[image.name], expected)


@pytest.mark.parametrize("images", ["phantoms", pytest.param("nih", marks=pytest.mark.slow)], indirect=True)
def test_threads_processes_and_hash_seeds_change_nothing(images, alone):
    processes = [start("-c", IN_A_PROCESS, threads, MODEL, *images, PYTHONHASHSEED=str(threads)) for threads in (1, 2)]
    for process in processes:
        for found, expected in zip(json.loads(printed(process)), alone, strict=True):
            assert_same(found, expected)


TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "class_attention_layers": 2,
    "cam_size": 16,
    "cam_groups": 4,
    "hidden_dropout_prob": 0.1,
}


def test_a_seeded_training_repeats_to_the_last_bit(tmp_path):
    """In two processes started anew, with other hash seeds, one reading for itself and one with two readers."""
    write_phantoms(tmp_path / "images", 60, seed=0, size=48)
    words = [
        *("-m", "clarity_hf", "train", "--data_dir", tmp_path / "images", "--config", json.dumps(TINY)),
        *("--image_size", "32", "--min_positives", "1", "--use_cpu", "--bf16", "False", "--max_steps", "10"),
        *("--per_device_train_batch_size", "8", "--eval_strategy", "no", "--save_strategy", "no"),
        *("--load_best_model_at_end", "False", "--logging_steps", "1", "--learning_rate", "1e-3"),
    ]
    processes = []
    for name, workers in (("one", 0), ("other", 2)):
        options = ("--output_dir", tmp_path / name, "--dataloader_num_workers", workers)
        processes.append(start(*words, *options, PYTHONHASHSEED=str(workers)))
    for process in processes:
        printed(process)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "other"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    curves = []
    for name in ("one", "other"):
        history = json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"]
        curves.append([log["loss"] for log in history if "loss" in log])
    assert curves[0] == curves[1]
    assert len(set(curves[0])) > 5
