# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/reproduce: each row is what its script accepts, what is finished is kept, the table is filled."""

import argparse
import ast
import importlib
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
from transformers import (
    AutoModelForImageClassification,
    ConvNextImageProcessor,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    HfArgumentParser,
    TrainingArguments,
)

from clarity_hf import FINDINGS, ClarityConfig, ClarityImageProcessor
from clarity_hf.data.named_splits import named_split
from clarity_hf.data.sources import open_source
from clarity_hf.evaluation.baselines import RandomMapLocalizer
from clarity_hf.evaluation.evaluator import BoxSettings, evaluate_images, read_records
from clarity_hf.evaluation.images import open_images
from clarity_hf.fingerprints import weights_digest
from clarity_hf.metrics.records import data_digest
from clarity_hf.phantoms import write_phantoms
from clarity_hf.reporting.columns import columns, level_columns
from clarity_hf.reporting.schema import Bootstrap, Estimate, Report, Row, Table
from clarity_hf.training import ClarityTrainingArguments, recipes
from clarity_hf.training import train as training
from clarity_hf.training import train_teacher as teacher_recipe
from clarity_hf.training.arguments import to_flags

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDER = EXAMPLES / "reproduce"
MODULES = ("rows", "smoke", "table", "run", "cost", "evaluate_teacher")
ABLATIONS = ("no-segment-cam", "no-dino", "no-orthogonal-loss", "no-attention-pooling")


@pytest.fixture(scope="module")
def example():
    """The modules of the folder, which import one another as scripts do."""
    assert not set(MODULES) & set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield argparse.Namespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def rows(example):
    return example.rows.load_rows()


@pytest.fixture(scope="module")
def scripts():
    """Of each training script the classes of its arguments and their defaults."""
    return {
        "train.py": ((training.TrainingRecipe, ClarityTrainingArguments), training.DEFAULTS),
        "train_teacher.py": ((teacher_recipe.TeacherRecipe, TrainingArguments), teacher_recipe.DEFAULTS),
    }


def parsed(scripts, script, flags):
    """What the script makes of a command line, as its own main does; an unknown argument ends in SystemExit."""
    classes, defaults = scripts[script]
    parser = HfArgumentParser(classes)
    parser.set_defaults(**defaults)
    return parser.parse_args_into_dataclasses(flags)


# Rows ----------------------------------------------------------------------------------------------------------------


def test_every_file_is_a_row_and_every_row_of_the_paper_has_a_file(example):
    assert sorted(path.stem for path in example.rows.CONFIGS.glob("*")) == sorted(example.rows.ORDER)
    assert {"s-16-512", "s-16-224", "convnextv2-b-512", *ABLATIONS} <= set(example.rows.ORDER)


def test_every_row_is_accepted_by_the_parser_of_its_script(example, rows, scripts, tmp_path):
    for row in rows.values():
        flags = [*to_flags(row.arguments), "--output_dir", str(tmp_path), "--use_cpu", "True"]
        script, args = parsed(scripts, row.script, flags)
        for name, value in row.arguments.items():
            got = getattr(script, name) if hasattr(script, name) else getattr(args, name)
            assert (json.loads(got) if name == "config" else got) == value, f"{row.name}: {name}"


def test_an_argument_that_the_script_does_not_have_would_be_refused(example, rows, scripts, capsys):
    flags = to_flags({**rows["s-16-224"].arguments, "drop_rate": 0.1})
    with pytest.raises(ValueError, match="--drop_rate"):
        parsed(scripts, "train.py", flags)


def test_an_epoch_is_picked_by_auroc_on_validation_and_after_every_epoch(example, rows, scripts, tmp_path):
    for row in rows.values():
        flags = [*to_flags(row.arguments), "--output_dir", str(tmp_path), "--use_cpu", "True"]
        _, args = parsed(scripts, row.script, flags)
        assert args.load_best_model_at_end
        assert args.metric_for_best_model == "auroc"
        assert args.greater_is_better
        assert args.eval_strategy == args.save_strategy == "epoch"


def test_the_epoch_of_every_row_is_picked_on_the_committed_list(rows):
    assert {row.arguments["validation_split"] for row in rows.values()} == {"nih-validation"}


@pytest.mark.parametrize("path", [training.__file__, teacher_recipe.__file__], ids=["train", "train_teacher"])
def test_a_training_script_never_looks_at_test_images(path):
    """The Trainer is given `source.train` and `source.validation`; neither script nor skeleton reads another split."""
    trees = [ast.parse(Path(file).read_text(encoding="utf-8")) for file in (path, recipes.__file__)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert {"train", "validation"} <= read
    assert not read & {"test", "splits"}
    assert not [node for node in nodes if isinstance(node, ast.Constant) and node.value == "test"]


def test_images_in_a_step_and_epochs_of_warm_up_are_as_documented(rows):
    wanted = {"s-16-224": (1024, 5), "s-16-512": (256, 5), "convnextv2-b-224": (64, 1), "convnextv2-b-512": (64, 1)}
    for name, (images, warm_up) in wanted.items():
        arguments = rows[name].arguments
        assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == images
        assert arguments["warmup_steps"] * arguments["num_train_epochs"] == pytest.approx(warm_up, rel=0.01)


def test_a_student_has_a_teacher_of_its_own_size_that_comes_before_it(example, rows):
    for row in rows.values():
        if row.script == "train.py":
            assert rows[row.teacher].script == "train_teacher.py"
            assert rows[row.teacher].arguments["image_size"] == row.arguments["image_size"]
            assert example.rows.ORDER.index(row.teacher) < example.rows.ORDER.index(row.name)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("no-segment-cam", {"segment_cam", "map_fusion", "background_suppression"}),
        ("no-dino", {"init", "layer_decay"}),
        ("no-orthogonal-loss", {"orthogonal_loss_weight"}),
        ("no-attention-pooling", {"pooling"}),
    ],
)
def test_an_ablation_differs_from_its_base_in_the_stated_fields_alone(rows, name, fields):
    row, base = rows[name], rows["s-16-224"]
    assert row.base == base.name
    assert (row.script, row.teacher) == (base.script, base.teacher)

    def flat(arguments):
        config = ClarityConfig(**arguments["config"]).to_dict()
        return {**{key: value for key, value in arguments.items() if key != "config"}, **config}

    own, other = flat(row.arguments), flat(base.arguments)
    assert {key for key in own.keys() | other.keys() if own.get(key) != other.get(key)} == fields


def test_fields_of_config_are_merged_and_none_leaves_an_argument_out(example):
    base = {"init": "a", "config": {"pooling": "attention", "segment_cam": True}, "seed": 1}
    change = {"init": None, "config": {"pooling": "mean"}}
    merged = example.rows.changed(base, change)
    assert merged == {"config": {"pooling": "mean", "segment_cam": True}, "seed": 1}
    assert base["config"]["pooling"] == "attention"


def test_a_key_that_is_not_known_is_refused(example, tmp_path):
    (tmp_path / "odd.yaml").write_text("text: odd\nscript: train.py\nargument: {}\n")
    with pytest.raises(ValueError, match=r"must have keys of .*, got \['argument'\]"):
        example.rows.load_row("odd", tmp_path)


def test_figures_of_the_paper_are_those_that_are_known(rows):
    assert {name: row.paper for name, row in rows.items() if row.paper} == {
        "convnextv2-b-512": {"auroc": 0.825},
        "s-16-512": {"auroc": 0.818, "t_iou": {0.1: 0.81, 0.2: 0.69, 0.3: 0.59, 0.4: 0.47, 0.5: 0.32}},
    }


# Smoke ---------------------------------------------------------------------------------------------------------------


def test_a_smoke_test_keeps_what_makes_a_row_itself(example, rows, scripts, tmp_path):
    for row in rows.values():
        small = example.smoke.short_row(row, tmp_path)
        flags = [*to_flags(small), "--output_dir", str(tmp_path), "--use_cpu", "True"]
        _, args = parsed(scripts, row.script, flags)
        assert args.max_steps == 4
        for name in ("layer_decay", "learning_rate", "augment", "prior", "drop_path_rate", "num_train_epochs"):
            assert small.get(name) == row.arguments.get(name)
        assert ("init" in small) is ("init" in row.arguments)
        assert "validation_split" not in small  # it is of the release's patients
        assert row.arguments.get("config", {}).items() <= small.get("config", {}).items()


def test_few_images_of_a_release_are_read_as_a_release(example, tmp_path, monkeypatch):
    write_phantoms(tmp_path / "release", 60, size=32)
    monkeypatch.setattr(example.smoke, "IMAGES", {"train": 6, "validation": 4, "test": 5})
    example.smoke.write_images(tmp_path / "few", tmp_path / "release")
    source = open_source(str(tmp_path / "few"))
    assert len(source.train) + len(source.validation) == 10
    assert len(source.test) == 5
    assert source.has_prior
    assert any(len(boxes) for boxes in source.test["boxes"])
    assert not source.messages
    before = sorted(path.name for path in (tmp_path / "few" / "images").iterdir())
    example.smoke.write_images(tmp_path / "few", tmp_path / "release")
    assert sorted(path.name for path in (tmp_path / "few" / "images").iterdir()) == before


# Running -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(example, monkeypatch, tmp_path):
    """The runner with commands that leave what the scripts leave, and the commands that were run."""
    commands, trainings = [], itertools.count()

    def fake(command, offline=False):
        commands.append(command)
        folder = Path(command[command.index("--output_dir") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        if any(word.endswith(("train.py", "train_teacher.py")) for word in command):
            (folder / "model.safetensors").write_bytes(f"weights {next(trainings)}".encode())
            write_state(folder, [0.6, 0.7, 0.65], best=2)
        else:
            weights = (folder.parent / "model" / "model.safetensors").read_text()
            for records in (folder / "records.jsonl", folder.with_name("evaluation-records") / "records.jsonl"):
                records.parent.mkdir(exist_ok=True)
                if records.is_file() and records.read_text() != weights:
                    raise ValueError("records of other weights, which differ in about")
                records.write_text(weights)
            (folder / "report.json").write_text(report(0.75).to_json())

    monkeypatch.setattr(example.run, "run", fake)
    release = tmp_path / "release"
    release.mkdir()
    for name in ("test_list.txt", "BBox_List_2017.csv"):
        (release / name).touch()

    def call(*words):
        commands.clear()
        monkeypatch.setattr(sys, "argv", ["run.py", *words, "--output_dir", str(tmp_path / "out")])
        example.run.main()
        return [next(Path(word).name for word in command if word.endswith(".py")) for command in commands]

    return argparse.Namespace(call=call, commands=commands, release=release, out=tmp_path / "out")


def write_state(folder, aurocs, best):
    history = [{"step": step, "epoch": float(step), "eval_auroc": auroc} for step, auroc in enumerate(aurocs, 1)]
    state = {"best_global_step": best, "log_history": [{"step": 1, "loss": 0.3}, *history]}
    (folder / "trainer_state.json").write_text(json.dumps(state))


def report(auroc, t_iou=(0.5, 0.4, 0.3, 0.2, None), protocol="model/clarity"):
    """A report with the tables that the example reads."""
    areas = [Row("Mass", (Estimate(0.1, 0.1, 0.1),)), Row("mean", (Estimate(auroc, 0.7, 0.8),))]
    tables = {"classification": Table("classification", "", columns("auroc"), tuple(areas))}
    if t_iou:
        rows = (Row("model/half", (0.9,) * 5), Row(protocol, t_iou))
        tables["halves"] = Table("halves", "", level_columns([0.1, 0.2, 0.3, 0.4, 0.5]), rows)
    return Report(
        about={},
        caveats={},
        findings=("Mass",),
        images=25596,
        patients=1,
        score_thresholds={},
        min_positives=20,
        tuning_split=None,
        bootstrap=Bootstrap(1000, 0),
        records_sha256="",
        versions={},
        tables=tables,
    )


def test_a_row_trains_its_teacher_first_and_evaluates_on_test(begun, capsys):
    ran = begun.call("s-16-512", "--data_dir", str(begun.release))
    assert ran == ["train_teacher.py", "evaluate_teacher.py", "train.py", "evaluate_checkpoint.py"]
    training, evaluation = begun.commands[2:]
    assert training[training.index("--teacher") + 1] == str(begun.out / "convnextv2-b-512" / "model")
    assert "test" not in training
    assert evaluation[evaluation.index("--split") + 1] == "test"
    assert "--images" not in evaluation
    assert "epoch 2 was picked on validation, AUROC 0.700" in capsys.readouterr().out


def test_what_is_finished_is_not_run_again(begun, capsys):
    begun.call("no-dino", "--data_dir", str(begun.release))
    assert begun.call("no-dino", "--data_dir", str(begun.release)) == []
    assert capsys.readouterr().out.count("trained before") == 2
    (begun.out / "no-dino" / "evaluation" / "report.json").unlink()
    assert begun.call("no-dino", "--data_dir", str(begun.release)) == ["evaluate_checkpoint.py"]
    (begun.out / "no-dino" / "trained.json").unlink()  # as where training was stopped
    assert begun.call("no-dino", "--data_dir", str(begun.release)) == ["train.py", "evaluate_checkpoint.py"]


def test_a_row_that_is_trained_again_is_evaluated_afresh(begun, capsys):
    """Records of the weights before would be refused."""
    begun.call("convnextv2-b-224", "--data_dir", str(begun.release))
    folder = begun.out / "convnextv2-b-224"
    (folder / "trained.json").unlink()
    ran = begun.call("convnextv2-b-224", "--data_dir", str(begun.release))
    assert ran == ["train_teacher.py", "evaluate_teacher.py"]
    assert capsys.readouterr().out.count("of the weights before") == 2
    assert (folder / "evaluation-records" / "records.jsonl").read_text() == "weights 1"


def test_an_evaluation_that_was_stopped_keeps_its_records(begun):
    begun.call("convnextv2-b-224", "--data_dir", str(begun.release))
    folder = begun.out / "convnextv2-b-224"
    (folder / "evaluated.json").unlink()
    (folder / "evaluation-records" / "other.jsonl").touch()
    assert begun.call("convnextv2-b-224", "--data_dir", str(begun.release)) == ["evaluate_teacher.py"]
    assert (folder / "evaluation-records" / "other.jsonl").is_file()


def test_a_folder_of_another_run_is_refused(begun):
    begun.call("convnextv2-b-224", "--data_dir", str(begun.release))
    other = begun.release.rename(begun.release.with_name("other"))
    with pytest.raises(ValueError, match=r"`output_dir` must be of the same run, got .*differs in \['arguments'\]"):
        begun.call("convnextv2-b-224", "--data_dir", str(other))


def test_a_student_of_another_teacher_is_refused(begun):
    begun.call("s-16-224", "--data_dir", str(begun.release))
    teacher = begun.out / "convnextv2-b-224"
    (teacher / "trained.json").unlink()
    with pytest.raises(ValueError, match=r"s-16-224.trained.json of another one \(it differs in \['weights'\]\)"):
        begun.call("s-16-224", "--data_dir", str(begun.release))


def test_an_evaluation_without_a_report_is_refused(example, begun, monkeypatch):
    fake = example.run.run

    def only_train(command, offline=False):
        if not command[1].endswith("evaluate_teacher.py"):
            fake(command)

    monkeypatch.setattr(example.run, "run", only_train)
    with pytest.raises(FileNotFoundError, match=r"must write .*report.json, got none"):
        begun.call("convnextv2-b-512", "--data_dir", str(begun.release))


def test_images_are_asked_for(begun):
    with pytest.raises(ValueError, match=r"`data_dir` must be the folder of the NIH release, got None\. Give --"):
        begun.call("s-16-224")


@pytest.mark.parametrize("name", ["test_list.txt", "BBox_List_2017.csv"])
def test_a_release_without_its_test_list_or_boxes_is_refused(begun, name):
    (begun.release / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"`data_dir` must hold {name}, .* Copy it from the release"):
        begun.call("s-16-224", "--data_dir", str(begun.release))


def test_a_row_that_is_not_known_is_refused(begun, capsys):
    with pytest.raises(SystemExit):
        begun.call("s-16-1024")
    assert "invalid choice: 's-16-1024'" in capsys.readouterr().err


# Evaluation of a teacher ---------------------------------------------------------------------------------------------


@pytest.fixture
def teacher(tmp_path):
    """A classifier of random weights whose findings come in another order than those of the images."""
    config = ConvNextV2Config(
        hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, image_size=32, id2label=dict(enumerate(reversed(FINDINGS)))
    )
    ConvNextV2ForImageClassification(config).save_pretrained(tmp_path / "teacher")
    ClarityImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def images(tmp_path):
    write_phantoms(tmp_path / "images", 40, size=32)
    return tmp_path / "images"


def evaluated(example, monkeypatch, *words):
    """The report of the teacher's evaluation."""
    monkeypatch.setattr(sys, "argv", ["evaluate_teacher.py", *map(str, words), "--repeats", "20"])
    example.evaluate_teacher.main()
    return Report.read(words[words.index("--output_dir") + 1])


def test_a_teachers_report_says_what_was_evaluated(example, teacher, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "report"
    found = evaluated(
        example, monkeypatch, teacher, images, "--min_positives", 1, "--seed", 3, "--output_dir", out
    )
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {out / 'report.json'}"
    model = AutoModelForImageClassification.from_pretrained(teacher)
    assert found.about["weights_hash"] == weights_digest(model)
    assert {"clarity_hf", "torch", "transformers"} <= found.versions.keys()
    assert (found.bootstrap.repeats, found.bootstrap.seed) == (20, 3)
    assert str(tmp_path) not in found.to_json()
    assert found.images == len(open_source(str(images)).test)
    assert 0 < found.tables["classification"]["mean"]["auroc"].value < 1


def test_a_teachers_scores_are_its_logits_for_the_image_by_name(example, teacher, images):
    classifier = example.evaluate_teacher.Classifier(str(teacher))
    assert classifier.findings == tuple(reversed(FINDINGS))
    image = open_images(str(images), "test", 1, wanted=classifier.findings)[0]
    own = open_images(str(images), "test", 1)[0]
    assert image.labels.tolist() == own.labels[::-1].tolist()
    inputs = ClarityImageProcessor.from_pretrained(teacher)([image.pixels], return_tensors="pt")
    logits = AutoModelForImageClassification.from_pretrained(teacher).eval()(**inputs).logits
    assert classifier([image.pixels]).scores == pytest.approx(logits.sigmoid().detach().numpy(), abs=1e-6)


def test_teacher_and_student_are_evaluated_on_the_same_images(
    example, teacher, images, tmp_path, monkeypatch, capsys, caplog
):
    """One does not decode: both leave it out and name it."""
    bad = open_images(str(images), "test").names[2]
    (images / "images" / f"{bad}.png").write_bytes(b"no image")
    out = tmp_path / "report"
    found = evaluated(example, monkeypatch, teacher, images, "--min_positives", 1, "--output_dir", out)
    findings = tuple(reversed(FINDINGS))  # a student with the teacher's order
    of_student = open_images(str(images), "test", wanted=findings)
    settings = BoxSettings([0.5] * len(findings), [0.5] * len(findings))
    student = evaluate_images(RandomMapLocalizer(findings), of_student, settings, tmp_path / "s.jsonl", progress=False)
    assert list(student.unreadable) == [bad]
    assert found.images == len(student.records) == len(of_student) - 1
    assert found.about["unreadable images"] == 1
    assert found.about["data_hash"] == data_digest(student.records)
    assert f"{bad} cannot be read and is left out" in caplog.text
    assert f"{len(student.records)} images, 1 could not be read" in capsys.readouterr().out


def test_a_teacher_is_evaluated_on_a_committed_list(example, teacher, images, tmp_path, monkeypatch):
    words = (teacher, images, "--split", "validation", "--validation_split", "nih-validation")
    found = evaluated(example, monkeypatch, *words, "--output_dir", tmp_path / "report")
    _, stored = read_records(tmp_path / "report-records" / "teacher.jsonl")
    patients = {record.patient for record in stored.records}
    assert len(patients) == found.patients > 0
    assert patients <= named_split("nih-validation")  # the numbers of the phantoms' patients are among its own


def test_a_teacher_with_another_librarys_image_processor_is_refused(example, teacher):
    ConvNextImageProcessor().save_pretrained(teacher)
    with pytest.raises(TypeError, match=r"must come with a ClarityImageProcessor, got ConvNextImageProcessor\w* of"):
        example.evaluate_teacher.Classifier(str(teacher))


# Table ---------------------------------------------------------------------------------------------------------------


def finished(folder, row, *, auroc=0.75, best=2, smoke=False, **parts):
    (folder / row / "model").mkdir(parents=True)
    (folder / row / "evaluation").mkdir()
    write_state(folder / row / "model", [0.6, 0.7, 0.65], best)
    (folder / row / "evaluation" / "report.json").write_text(report(auroc, **parts).to_json())
    (folder / row / "trained.json").write_text(json.dumps({"smoke": smoke}))


def test_the_table_has_the_papers_figures_beside_what_was_run(example, rows, tmp_path):
    finished(tmp_path, "s-16-512")
    finished(tmp_path, "convnextv2-b-512", t_iou=None)
    lines = example.table.write_table(rows, tmp_path).read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[2] == (
        "| ConvNeXtV2-B at 512, teacher of S-16-512 | 0.825 | 0.750 (0.700–0.800) | not known here | no maps | 25,596 "
        "| 2, validation AUROC 0.700 |"
    )
    assert lines[3] == (
        "| CLARiTy-S-16-512 | 0.818 | 0.750 (0.700–0.800) | 0.81 / 0.69 / 0.59 / 0.47 / 0.32 "
        "| 0.50 / 0.40 / 0.30 / 0.20 / – | 25,596 | 2, validation AUROC 0.700 |"
    )
    assert lines[-1] == (
        "| no attention pooling | not known here | not run | not known here | not run | not run | not run |"
    )


def test_a_figure_that_is_undefined_is_said_to_be(example, rows, tmp_path):
    finished(tmp_path, "s-16-224", auroc=math.nan, t_iou=(None,) * 5)
    line = example.table.table_line(rows["s-16-224"], tmp_path / "s-16-224")
    assert line.split(" | ")[2] == "undefined"
    assert line.split(" | ")[4] == "undefined"


def test_a_smoke_test_is_never_taken_for_a_result(example, rows, tmp_path):
    finished(tmp_path, "s-16-224", smoke=True)
    assert example.table.write_table(rows, tmp_path).read_text().startswith("**From a smoke test")


def test_an_epoch_that_validation_did_not_pick_is_refused(example, rows, tmp_path):
    finished(tmp_path, "s-16-224", best=3)
    with pytest.raises(ValueError, match="must keep the step with the best AUROC on validation, got step 3"):
        example.table.table_line(rows["s-16-224"], tmp_path / "s-16-224")


def test_a_report_without_the_papers_protocol_is_refused(example):
    with pytest.raises(ValueError, match="The table `halves` must have the row 'model/clarity', got"):
        example.table.figures_of(report(0.7, protocol="model/wang"))


# Cost ----------------------------------------------------------------------------------------------------------------


def test_flops_of_a_matrix_product_and_its_gradients_are_counted(example):
    class Product(example.cost.torch.nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1))

    model = example.cost.without_data(Product(3 * 4 * 4, 14, bias=False))
    forward, both = example.cost.flops_of(model, 4)
    assert forward * 1e9 == pytest.approx(2 * 48 * 14)
    assert both * 1e9 == pytest.approx(2 * forward * 1e9)  # the image itself needs no gradient


def test_a_depthwise_convolution_and_its_gradients_are_counted(example):
    class Depthwise(example.cost.torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = example.cost.torch.nn.Conv2d(3, 14, 1)
            self.second = example.cost.torch.nn.Conv2d(14, 14, 3, padding=1, groups=14)

        def forward(self, images):
            return self.second(self.first(images)).mean((2, 3))

    forward, both = example.cost.flops_of(example.cost.without_data(Depthwise()), 8)
    first, second = 2 * 64 * 14 * 3, 2 * 64 * 14 * 9
    assert forward * 1e9 == pytest.approx(first + second)
    assert both * 1e9 == pytest.approx(2 * first + 3 * second)  # the image itself needs no gradient


def test_what_is_kept_grows_with_the_images_and_not_with_the_weights(example):
    class Product(example.cost.torch.nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1).exp())  # kept in bfloat16 for the product, in fp32 for exp

    model = example.cost.without_data(Product(3 * 4 * 4, 14))
    kept = example.cost.kept_bytes(model, 4)
    assert 48 * 2 <= kept <= 48 * 2 + 14 * 50
    wide = example.cost.kept_bytes(example.cost.without_data(Product(3 * 8 * 8, 14)), 8)
    assert wide - kept == (192 - 48) * 2


def test_a_folder_without_images_is_refused(example, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`images` must be a folder with PNG files, got .* Name NIH_FOLDER"):
        example.cost.reading_seconds(tmp_path, 32)


def test_hours_follow_from_flops(example):
    cost = example.cost.Cost(forward=10, both=30, teacher=20, kept=1, state=1, epochs=2)
    images = example.cost
    expected = 2 * (images.TRAIN_IMAGES * 50 + images.VALIDATION_IMAGES * 10) + images.TEST_IMAGES * 10
    assert cost.total == pytest.approx(expected / 1e6)
    assert cost.hours(cost.total * 1e3 / 3600) == pytest.approx(1)


# All of it -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_step_of_a_row_runs_and_the_table_is_filled(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "no-dino", "--smoke", "--output_dir", str(tmp_path)])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    example.run.main()
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path / 'table.md'}"
    lines = (tmp_path / "table.md").read_text().splitlines()
    (teacher,) = [line for line in lines if line.startswith("| ConvNeXtV2-B at 224")]
    (student,) = [line for line in lines if line.startswith("| no DINO pretraining")]
    assert "no maps | 24 |" in teacher
    assert "| 24 |" in student
    assert "undefined" not in student
    assert lines[0].startswith("**From a smoke test")
    example.run.main()
    assert capsys.readouterr().out.count("evaluated before") == 2
