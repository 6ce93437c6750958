# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Every block of code of a page runs here, or is parsed by its program's parser and listed with why it is not run.

    python -m pytest tests/docs/test_code_blocks.py
    python -m pytest tests/docs/test_code_blocks.py -m slow     # trainings of one step, evaluations, exports: minutes

Python runs page by page, from top to bottom, in a folder where the names that pages use are: phantoms as `image.png`,
`IMAGES`, `NIH_FOLDER` and so on, see `furnish`. Commands run in this process, made small by the table `RUN`. What is
no code is in `NO_CODE`. An entry of a table that matches nothing is an error too: it is of a page that has changed.
"""

import ast
import csv
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

markdown_it = pytest.importorskip("markdown_it")

_spec = importlib.util.spec_from_file_location("commands", Path(__file__).with_name("commands.py"))
commands = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(commands)

ROOT = Path(__file__).parents[2]

PLACES = ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/**/*.md", "src/**/*.md")

# Tables --------------------------------------------------------------------------------------------------------------

NO_CODE = {
    ("docs/architecture.md", "a data set ──►"): "a drawing",
    ("docs/architecture.md", "images ──►"): "a drawing",
    ("docs/evaluation.md", "image ──►"): "a drawing",
    ("docs/method.md", "a = softmax("): "a formula",
    ("docs/method.md", "M_c = "): "a formula",
    ("docs/method.md", "L = Σ"): "a formula",
    ("docs/scale.md", "images in a step ="): "a formula",
    ("docs/security.md", "`runs/old` must hold"): "a message",
    ("docs/speed.md", "images a day ="): "a formula",
    ("docs/speed.md", "3,363,600 ×"): "a sum",
    ("src/clarity_hf/reporting/checkpoint_card_template.md", "{{ stage.command"): "a command of another page",
    ("src/clarity_hf/reporting/checkpoint_card_template.md", "{{ report.about"): "a command of another page",
    ("src/clarity_hf/reporting/reports_index_template.md", "{{ report.about"): "a command of another page",
}
"""Blocks that are neither Python nor commands nor data: page and how the block begins → what it is."""

PYTHON_ELSEWHERE = {
    "docs/architecture.md": "tests/docs/test_site.py",
    "docs/concepts.md": "tests/docs/test_site.py",
    "docs/five-minutes.md": "tests/docs/test_site.py",
    "docs/how-to/predict.md": "tests/docs/test_site.py",
    "docs/how-to/train.md": "tests/docs/test_site.py",
    "docs/pictures.md": "tests/docs/test_pictures.py",
    "docs/radiograph-check.md": "tests/test_radiograph_check.py",
}
"""Pages whose Python another test runs from top to bottom, and which."""

PYTHON_COMPILED = {
    ("docs/scale.md", "from torch.distributed.checkpoint"): "FSDP needs several processes and a GPU each",
}
"""Blocks of Python that are compiled alone: page and how the block begins → why."""

PYTHON_REPLACED = {
    "docs/own-labels.md": {'load_imagefolder("images"': 'load_imagefolder("folders"'},
    "docs/teacher.md": {'"cuda"': '"cpu"', "num_workers=8": "num_workers=0"},
    "docs/transformers.md": {'push_to_hub("OWNER/NAME")': 'save_pretrained("runs/pushed")'},
    "src/clarity_hf/reporting/checkpoint_card_template.md": {"{{ facts.name }}": "clarity-s16-224"},
    "src/clarity_hf/reporting/model_card_template.md": {"FOLDER_OR_HUB_ID": "clarity-s16-224"},
}
"""What stands for what in the Python of a page."""

PYTHON_SLOW = {"docs/export.md": "four exports", "docs/publishing.md": "in a process of its own, for its remote code"}
"""Pages whose Python takes too long for every run, and why."""

GIVEN = {
    "docs/dicom.md": {"localizer": "localizer", "pixels": "image"},
    "docs/fhir.md": {"localizer": "localizer", "pixels": "image"},
    "docs/export.md": {"pixel_values": "pixel_values", "torch": "torch"},
    "docs/own-labels.md": {"processor": "processor"},
}
"""Names that the Python of a page takes from its reader → what they are, see `given`."""

PLACEHOLDERS = {
    "images.csv": "table.csv",
    "MODEL": "clarity-s16-224",
    "TEACHER": "runs/teacher",
    "runs/teacher-nano": "runs/teacher",
    "runs/nih": "clarity-s16-224",
}
"""Words of commands → what stands for them where they are run. The other names of pages are made by `furnish`."""

ONE_STEP = "--max_steps 1 --per_device_train_batch_size 2 --eval_strategy no --save_strategy no " + (
    "--load_best_model_at_end False --use_cpu --bf16 False --dataloader_num_workers 0"
)
TINY = f"--size ti16 --image_size 64 --phantom_count 8 {ONE_STEP}"
FEW = "--repeats 5 --min-positives 1"

RUN = {
    "clarity-hf predict IMAGES -r --output-dir results --csv --overlays": {},
    "clarity-hf predict IMAGES -r --output-dir results --fhir --csv --identifiers": {
        "dir results": "dir results-fhir"
    },
    "clarity-hf publish clarity-s16-224 ./to-publish": {},
    "clarity-hf phantom runs/phantoms": {"$": "--count 2 --size 64"},
    "clarity-hf phantom runs/phantoms --count 4": {"$": "--size 128"},
    "clarity-hf predict runs/phantoms/images --output-dir runs/results --overlays": {},
    "clarity-hf calibrate clarity-s16-224 images.csv --output-dir runs/calibrated": {},
}
"""Commands that run → what is replaced in them so that they are short; `$` is the end of the command."""

RUN_SLOW = {
    "accelerate launch -m clarity_hf train --data_dir images.csv --model clarity-s16-224 --output_dir runs/own": {
        "$": ONE_STEP
    },
    "clarity-hf train --data_dir images.csv --model clarity-s16-224 --learning_rate 1e-4 --output_dir runs/own": {
        "$": ONE_STEP
    },
    "clarity-hf train --data_dir images.csv --model clarity-s16-224 --max_steps 4 --output_dir runs/trial": {
        "--max_steps 4": ONE_STEP
    },
    "clarity-hf train --data_dir phantom --phantom_count 64 --num_train_epochs 1 --size ti16 --image_size 64 "
    "--output_dir runs/try": {"--phantom_count 64": "--phantom_count 8"},
    "clarity-hf train --data_dir NIH_FOLDER --output_dir runs/nih": {"$": TINY},
    "clarity-hf train --data_dir NIH_FOLDER --teacher runs/teacher --teacher_cache runs/logits "
    "--output_dir runs/distilled": {"$": TINY},
    "clarity-hf train examples/starter/1-phantoms.yaml --output_dir runs/stage1": {"$": TINY},
    "accelerate launch examples/train_teacher.py --size nano --output_dir runs/teacher": {
        "$": f"--phantom_count 8 --image_size 64 {ONE_STEP}"
    },
    "clarity-hf evaluate clarity-s16-224 phantom --images 1000": {"1000": "12", "$": FEW},
    "clarity-hf evaluate clarity-s16-224 images.csv --split validation": {"$": FEW},
    "clarity-hf evaluate MODEL NIH_FOLDER --split test --baseline random --baseline gradcam++ --teacher TEACHER "
    "--output-dir runs/evaluation-nih": {"$": FEW},
    "clarity-hf calibrate MODEL images.csv --output-dir runs/calibrated": {},
    "clarity-hf calibrate MODEL images.csv --rule sensitivity --sensitivity 0.95 --output-dir runs/calibrated": {},
    "clarity-hf export clarity-s16-224 runs/onnx": {},
    "clarity-hf predict IMAGES --engine onnx": {},
    "clarity-hf publish clarity-s16-224 ./clarity-s16-224 --half": {},
    "python examples/finetune.py images.csv --output_dir runs/mine": {"$": "--epochs 1"},
}
"""Commands that run under the mark `slow`, as `RUN`."""

NOT_RUN = {
    r"pip (install|wheel|download)\b": "fetches packages",
    r"^python3 -m venv|^\. |^cd ": "the shell's environment",
    r"^pip-audit": "asks a database of advisories; tests/security/test_advisories.py",
    r"^make (demo|test|bench|builds .*)$": "installs into .venv; the demo, the tests and the benchmarks",
    r"^mkdocs build": "tests/docs/test_site.py builds the site",
    r"-m pytest": "tests, which run by themselves",
    r"-m timeit": "a measurement",
    r"^python benchmarks/": "measures for minutes",
    r"^python tests/(faults|fuzzing)/": "kills processes or tries inputs for minutes or hours",
    r"^clarity-hf demo": "serves until it is stopped; tests/inference/test_web_page.py",
    r"^python -m run ": "of an export, in an environment of its own; tests/export/test_onnx_runner.py",
    r"(launch|torch\.distributed\.run) .*--(num_processes|nproc-per-node|nproc_per_node|config_file)\b": (
        "several processes or machines; tests/training/test_processes.py, tests/examples/test_accelerate_configs.py"
    ),
    r"examples/starter/.*\.yaml": "trains for hours; tests/examples/test_train.py reads its files",
    r"(facebook|timm)/": "starts from weights of the Hub",
    r"^python examples/ablate\.py": "trains for hours; tests/examples/test_ablate.py",
    r"^python examples/ablate_images\.py": "trains for hours; tests/examples/test_ablate_images.py",
    r"^python examples/reproduce/": "trains for hours or minutes; tests/examples/test_reproduce.py",
    r"^python examples/(build_atlas|write_masks)\.py": "needs weights or packages from elsewhere",
    r"^python examples/(write_card|plot_losses|average_checkpoints)\.py": "tests/examples has tests of each",
    r"NIH_FOLDER|nih-subset": "trains for hours or reads the whole release; shorter commands of its kind are run",
    r"^clarity-hf evaluate clarity-s16-224 .*--baseline": "of a committed report: hundreds of images",
    r"^clarity-hf serve-dicom": "serves until it is stopped; tests/inference/test_dicom_node.py",
    r"^python examples/(fit_thorax_segmenter|convert_timm_weights)\.py": "needs images or weights from elsewhere",
    r"^clarity-hf publish .* OWNER/NAME": "uploads",
}
"""Commands that are parsed alone: a pattern → why they are not run."""

# Blocks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of code of a page: where, its language as the page says, and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def kind(self):
        """`python`, `commands`, `none`, or the language of data."""
        if self.language:
            return {"py": "python", "sh": "commands", "bash": "commands", "text": "none"}.get(
                self.language, self.language
            )
        if any(self.page == page and self.text.startswith(start) for page, start in NO_CODE):
            return "none"
        if is_table(self.text):
            return "csv"
        return "python" if is_python(self.text) else "commands"

    def begins(self, table):
        """Entries of a table by page and beginning that are this block's."""
        return [key for key in table if key[0] == self.page and self.text.startswith(key[1])]


def is_table(text):
    rows = list(csv.reader(io.StringIO(text)))
    return len(rows) > 1 and len(rows[0]) > 2 and all(name and " " not in name for name in rows[0])


def is_python(text):
    try:
        return bool(ast.parse(text).body)
    except SyntaxError:
        return False


def blocks_of(text, page):
    """Blocks of a Markdown text, fenced and indented, in lists too."""
    tokens = markdown_it.MarkdownIt().parse(text)
    return [
        Block(page, token.map[0] + 1, token.info.split()[0] if token.info.split() else "", token.content)
        for token in tokens
        if token.type in ("fence", "code_block")
    ]


PAGES = sorted({path for place in PLACES for path in ROOT.glob(place)})
BLOCKS = [block for path in PAGES for block in blocks_of(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())]
COMMANDS = list(
    dict.fromkeys(
        (block.page, command)
        for block in BLOCKS
        if block.kind == "commands"
        for command in commands.commands_of(block.text)
    )
)
PYTHON_PAGES = list(dict.fromkeys(block.page for block in BLOCKS if block.kind == "python"))


def fate_of(command):
    """Entries of the tables that say what is done with a command."""
    if command in RUN or command in RUN_SLOW:
        return [command]
    return [pattern for pattern in NOT_RUN if re.search(pattern, command)]


# The tables against the pages ----------------------------------------------------------------------------------------


def test_the_pages_are_found():
    names = {block.page for block in BLOCKS}
    assert {"README.md", "docs/evaluation.md", "docs/index.md", "docs/how-to/train.md"} <= names
    assert "src/clarity_hf/checkpoints/clarity-s16-224/README.md" in names
    assert len(BLOCKS) > 100
    assert len(COMMANDS) > 100


def test_every_command_is_run_or_listed():
    assert [(page, command) for page, command in COMMANDS if not fate_of(command)] == [], (
        "run it (RUN, RUN_SLOW), or say why not (NOT_RUN, NO_CODE)"
    )


def test_every_entry_of_the_tables_is_of_a_page():
    starts = {key for block in BLOCKS for key in block.begins(NO_CODE)}
    assert set(NO_CODE) - starts == set()
    compiled = {key for block in BLOCKS if block.kind == "python" for key in block.begins(PYTHON_COMPILED)}
    assert set(PYTHON_COMPILED) - compiled == set()
    assert {*PYTHON_ELSEWHERE, *PYTHON_REPLACED, *PYTHON_SLOW, *GIVEN} - set(PYTHON_PAGES) == set()
    texts = {page: "".join(block.text for block in BLOCKS if block.page == page) for page in PYTHON_PAGES}
    assert [(page, old) for page, words in PYTHON_REPLACED.items() for old in words if old not in texts[page]] == []
    shown = {command for _, command in COMMANDS}
    assert {*RUN, *RUN_SLOW} - shown == set()
    used = {pattern for _, command in COMMANDS for pattern in fate_of(command)}
    assert set(NOT_RUN) - used == set()
    ran = [word for command in (*RUN, *RUN_SLOW) for word in command.split()]
    assert set(PLACEHOLDERS) - {"runs/teacher-nano"} - set(ran) == set()


@pytest.mark.parametrize(("page", "test"), PYTHON_ELSEWHERE.items())
def test_what_runs_elsewhere_is_named_there(page, test):
    assert page.removeprefix("docs/") in (ROOT / test).read_text("utf-8")


# What stands on pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", list(dict.fromkeys(page for page, _ in COMMANDS)))
def test_its_commands_are_taken_by_their_programs(page, room, monkeypatch):
    monkeypatch.chdir(room)
    refused, missing = [], []
    for command in (command for of, command in COMMANDS if of == page):
        try:
            commands.parse(command)
        except commands.RefusedError as error:
            refused.append(str(error))
        except commands.MissingError as error:
            missing.append(str(error))
    assert refused == []
    if missing:
        pytest.skip("; ".join(missing))


def test_data_on_pages_can_be_read():
    kinds = {block.kind for block in BLOCKS}
    assert kinds <= {"python", "commands", "none", "csv", "yaml", "json", "toml", "bibtex"}, "give the language a test"
    for block in BLOCKS:
        if block.kind == "csv":
            rows = list(csv.reader(io.StringIO(block.text)))
            assert {len(row) for row in rows} == {len(rows[0])}, f"{block.page}, line {block.line}"
        elif block.kind == "yaml":
            yaml.safe_load(block.text)
        elif block.kind == "json":
            json.loads(block.text)
        elif block.kind == "bibtex":
            assert block.text.count("{") == block.text.count("}")


def shown_tables():
    return [block.text for block in BLOCKS if block.page == "docs/own-labels.md" and block.kind == "csv"]


@pytest.mark.parametrize("text", shown_tables(), ids=lambda text: text.split("\n")[0])
def test_a_table_of_a_page_loads_as_own_images(text, room, monkeypatch):
    from clarity_hf.data.tables import load_table

    monkeypatch.chdir(room)
    Path("shown.csv").write_text(text, encoding="utf-8")
    images = load_table("shown.csv")
    assert "Cardiomegaly" in images.findings
    assert sum(len(rows) for rows in images.splits().values()) == 3


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in PYTHON_SLOW else [])
        for page in PYTHON_PAGES
        if page not in PYTHON_ELSEWHERE
    ],
)
def test_its_python_runs_from_top_to_bottom(page, room, monkeypatch):
    monkeypatch.chdir(room)
    monkeypatch.setattr(sys, "path", [str(room), *sys.path])
    code = python_of(page)
    if page == "docs/publishing.md":  # what remote code registers would stay in this process
        publish_small(room)
        done = subprocess.run([sys.executable, "-c", "".join(code)], cwd=room, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return
    names = {"__name__": "__main__", **{name: given(what) for name, what in GIVEN.get(page, {}).items()}}
    try:
        for text in code:
            exec(compile(text, page, "exec"), names)
    finally:
        sys.modules.pop("run", None)  # of an export


def python_of(page):
    """Python of a page to be run, each block at its own line numbers; the rest is compiled alone."""
    code = []
    for block in BLOCKS:
        if block.page == page and block.kind == "python":
            text = "\n" * block.line + block.text
            for old, new in PYTHON_REPLACED.get(page, {}).items():
                text = text.replace(old, new)
            compile(text, page, "exec")
            if not block.begins(PYTHON_COMPILED):
                code.append(text)
    return code


def run_commands(page, table):
    """Run those commands of a page that a table has, in their order; give back what was run."""
    done = []
    for of, command in COMMANDS:
        first = next(shown for shown, other in COMMANDS if other == command)
        if of != page or command not in table or (first != page and command not in RUN):
            continue
        short = command
        for old, new in table[command].items():
            short = f"{short} {new}" if old == "$" else short.replace(old, new)
        short = " ".join(PLACEHOLDERS.get(word, word) for word in short.split())
        commands.run(short)
        for path in commands.outputs_of(short):
            assert any(path.iterdir()), f"nothing in {path} after {short}"
        done.append(command)
    return done


def pages_of(table):
    """Pages on which commands of a table stand first."""
    firsts = {}
    for page, command in COMMANDS:
        firsts.setdefault(command, page)
    return sorted({firsts[command] for command in table if command in firsts})


@pytest.mark.parametrize("page", pages_of(RUN))
def test_its_short_commands_run(page, room, monkeypatch):
    monkeypatch.chdir(room)
    assert run_commands(page, RUN)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", pages_of(RUN_SLOW))
def test_its_long_commands_run(page, room, monkeypatch):
    monkeypatch.chdir(room)
    assert run_commands(page, RUN_SLOW)


# What pages take for granted -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A folder with all that pages name; read only."""
    folder = tmp_path_factory.mktemp("pages")
    furnish(folder)
    return folder


@pytest.fixture
def room(furnished, tmp_path):
    """A copy of it, to write to."""
    folder = tmp_path / "room"
    shutil.copytree(furnished, folder, symlinks=True)
    return folder


def furnish(folder):
    """Make the images, tables, data sets and the teacher that pages name."""
    from PIL import Image

    from clarity_hf.phantoms import draw_phantom, write_phantoms

    for name in ("examples", "benchmarks", "tests", "docs", "mkdocs.yml"):
        (folder / name).symlink_to(ROOT / name)
    image = Image.fromarray(draw_phantom(11, size=256, findings=["Cardiomegaly", "Effusion"]).image)
    places = [
        "image.png",
        *(f"IMAGES/{number}.png" for number in range(3)),
        *(f"images/000{n}.png" for n in (1, 2, 3)),
    ]
    places += [f"folders/{name}/{n}.png" for name in ("kardiomegalie", "No Finding") for n in range(3)]
    places += [f"CheXpert-v1.0-small/train/patient0000{n}/study1/view1_frontal.jpg" for n in range(3)]
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / place)
    write_phantoms(folder / "NIH_FOLDER", count=60, size=96, test_fraction=0.3)
    (folder / "images.csv").write_text(shown_tables()[0], encoding="utf-8")
    write_chexpert(folder / "CheXpert-v1.0-small" / "train.csv")
    write_own_table(folder / "table.csv", folder / "NIH_FOLDER")
    write_hub(folder / "owner" / "name", folder / "image.png")
    write_dicom(folder / "image.dcm", np.asarray(image))
    write_teacher(folder / "runs" / "teacher")


def write_chexpert(path):
    """`train.csv` as CheXpert's begins."""
    rows = ["Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Pleural Effusion,Support Devices"]
    for number, labels in enumerate((",1.0,-1.0,", "1.0,,,1.0", ",,1.0,0.0")):
        rows.append(
            f"CheXpert-v1.0-small/train/patient0000{number}/study1/view1_frontal.jpg,Female,60,Frontal,AP,{labels}"
        )
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_own_table(path, release):
    """A table of own images with a column a finding, of the phantoms of a release."""
    from clarity_hf import FINDINGS

    rows = [f"path,patient_id,split,{','.join(FINDINGS)}"]
    with (release / "Data_Entry_2017_v2020.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            present = row["Finding Labels"].split("|")
            labels = ",".join(str(int(finding in present)) for finding in FINDINGS)
            split = ("train", "validation")[int(row["Patient ID"]) % 2]
            rows.append(f"NIH_FOLDER/images/{row['Image Index']},{row['Patient ID']},{split},{labels}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_hub(folder, image):
    """A data set as the Hub has it: parquet, a column of images and one of lists of class labels."""
    import datasets

    folder.mkdir(parents=True)
    names = datasets.Features(
        image=datasets.Image(), labels=datasets.List(datasets.ClassLabel(names=["Effusion", "Mass"]))
    )
    rows = {"image": [str(image)] * 6, "labels": [[0], [1], [0, 1], [], [0], [1]]}
    datasets.Dataset.from_dict(rows, features=names).to_parquet(folder / "train-00000-of-00001.parquet")


def write_dicom(path, pixels):
    """A digital radiograph as a DICOM file, with what results need of it."""
    pydicom = pytest.importorskip("pydicom")
    image = pydicom.Dataset()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    values = {
        "SOPClassUID": pydicom.uid.DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "2.25.1001",
        "StudyInstanceUID": "2.25.1002",
        "SeriesInstanceUID": "2.25.1003",
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "Modality": "DX",
        "PatientName": "Phantom^A",
        "PatientID": "P1",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": pixels.tobytes(),
    }
    for name, value in values.items():
        setattr(image, name, value)
    image.save_as(path, enforce_file_format=True)


def write_teacher(folder):
    """A ConvNeXtV2 of a few thousand weights with the 14 findings."""
    from transformers import ConvNextImageProcessor, ConvNextV2Config, ConvNextV2ForImageClassification

    from clarity_hf import FINDINGS

    config = ConvNextV2Config(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        id2label=dict(enumerate(FINDINGS)),
        label2id={finding: index for index, finding in enumerate(FINDINGS)},
    )
    ConvNextV2ForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)


def publish_small(folder):
    """The packaged checkpoint, published into a folder by the name that the page gives a repository."""
    commands.run(f"clarity-hf publish clarity-s16-224 {folder}/OWNER/NAME")


def given(what):
    """What a name stands for that a page takes from its reader."""
    import torch
    from PIL import Image
    from transformers import pipeline

    import clarity_hf

    if what == "torch":
        return torch
    if what == "localizer":
        return pipeline(clarity_hf.TASK)
    if what == "processor":
        return clarity_hf.ClarityImageProcessor()
    if what == "image":
        return np.asarray(Image.open("image.png"))
    return clarity_hf.ClarityImageProcessor()("image.png", return_tensors="np").pixel_values


# The checks themselves -----------------------------------------------------------------------------------------------


def test_kinds_of_blocks_are_distinguished():
    text = "```python\nx = 1\n```\n\n"
    text += "text\n\n    make test   # a word\n    python a.py \\\n        --b\n\n```yaml\na: 1\n```\n"
    text += "\n- a list\n\n  ```\n  clarity-hf demo\n  ```\n\ntext\n\n    a,b,c\n    1,,3\n\ntext\n"
    text += "\n    from a import b\n"
    found = blocks_of(text, "page.md")
    assert [block.kind for block in found] == ["python", "commands", "yaml", "commands", "csv", "python"]
    assert [block.line for block in found[:2]] == [1, 7]
    assert commands.commands_of(found[1].text) == ["make test", "python a.py --b"]


@pytest.mark.parametrize(
    "command",
    [
        "clarity-hf predict IMAGES --no-such-option",
        "clarity-hf predict",
        "clarity-hf evaluate clarity-s16-224 phantom --split all",
        "clarity-hf evaluate clarity-s16-224 phantom --images many",
        "clarity-hf localize IMAGES",
        "clarity-hf train --no_such_field 1 --output_dir runs/x",
        "clarity-hf train --prior none-such --output_dir runs/x",
        "clarity-hf train examples/starter/none.yaml",
        "accelerate launch --no_such_option examples/train.py",
        "accelerate launch --config_file none.yaml examples/train.py",
        "accelerate launch examples/train.py --no_such_field 1",
        "python -m torch.distributed.run --no-such-option 2 examples/train.py",
        "python examples/none.py",
        "python examples/evaluate_checkpoint.py runs/x",
        "python benchmarks/growth.py --no_such_option",
        "python -m pytest tests/none.py",
        "python -m none",
        "pip install --no-such-option x",
        "mkdocs build --no-such-option",
        "make none",
        "none --at all",
    ],
)
def test_a_wrong_command_is_refused(command, furnished, monkeypatch):
    monkeypatch.chdir(furnished)
    with pytest.raises(commands.RefusedError):
        commands.parse(command)


def test_a_command_that_fails_does_not_count_as_success(room, monkeypatch):
    monkeypatch.chdir(room)
    with pytest.raises(commands.RefusedError, match="nowhere"):
        commands.run("clarity-hf predict nowhere --output-dir results")
