# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The documentation: it builds into a site without a warning or a network, and every link and picture is there.

The site is built once, into a temporary folder, by the command of docs/installation.md; without mkdocs these tests are
skipped. CLARITY_HF_SITE names a folder in which the site is kept, to be looked at.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

import clarity_hf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "clarity_hf"
CARD = PACKAGE / "checkpoints" / "clarity-s16-224" / "README.md"

PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), CARD])
"""What is read on a Git host, and but for a few the pages of the site."""

READING = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "tables"]
"""Pages that a reader is led to; the tables of reports are linked from their report."""

DRAWN_BY = {
    "architecture.svg": "docs/images/draw_architecture.py",
    "favicon.svg": "docs/images/draw_architecture.py",
    "demo.png": "examples/localize.py",
    "growth.png": "benchmarks/growth.py",
    "losses-nih-atlas.png": "examples/plot_losses.py",
    "pictures.png": "docs/images/draw_pictures.py",
    "web-page.png": "docs/images/photograph_web_page.py",
}
"""The script of each picture in docs/images/; those of reports are written by `examples/write_card.py`."""

RUNS = ("five-minutes.md", "concepts.md", "architecture.md", "how-to/predict.md", "how-to/train.md")
"""Pages whose Python runs here, each from top to bottom; other pages have tests of their own beside this one."""

NO_REFERENCE = {
    "deprecated": "old spellings, for one release",
    "__init__": "names of other modules",
    "__main__": "the command line",
    "cli": "the command line",
    "export.onnx_runner": "a script of its own, in docs/export.md",
    "inference.web_page_html": "text of the web page",
    "phantoms": "what draws a phantom: phantom and release are there",
    "plain_card": "what `push_to_hub` and `calibrate` write where there is no card",
    "reporting.calibration_text": "of the command line",
    "reporting.columns": "headings of the tables",
    "reporting.committed_reports": "of examples/write_card.py alone",
    "reporting.figures": "of the report",
    "reporting.published_figures": "of the report",
    "training.vit_sources": "beneath training.initialization",
}
"""Modules, or folders of them, that the reference leaves out, and why."""


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_code(text):
    """Markdown without its blocks of code, whose brackets are not links."""
    return re.sub(r"^(```+).*?^\1[ \t]*$|^ {4}[^\n]*$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def links_of(text):
    """Targets of links and pictures of a Markdown text, those of the web left out."""
    targets = re.findall(r"\]\(([^()\s]+)\)", without_code(text)) + re.findall(r"\b(?:src|href)=\"([^\"]+)\"", text)
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchor(heading):
    """Anchor of a heading on a Git host."""
    words = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\- ]", "", words))


def dead_links(path):
    dead = []
    for target in links_of(path.read_text(encoding="utf-8")):
        name, _, place = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists():
            dead.append(target)
        elif place and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", without_code_blocks(file.read_text(encoding="utf-8")), re.MULTILINE)
            if place not in map(anchor, headings):
                dead.append(target)
    return dead


def without_code_blocks(text):
    return re.sub(r"^(```+).*?^\1[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL)


# As read on a Git host -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_and_picture_is_there(path):
    assert dead_links(path) == []


def test_the_check_sees_dead_links(tmp_path):
    (tmp_path / "there.md").write_text("# Two words, `code`\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#two-words-code) [c](gone.md) ![d](gone.png) [e](there.md#gone) [f](#gone)\n"
        "`[g](code.md)` <img src=\"gone.svg\">\n\n    [h](code.md)\n\n[i](https://host.example/x)\n",
        encoding="utf-8",
    )
    assert dead_links(page) == ["gone.md", "gone.png", "there.md#gone", "#gone", "gone.svg"]


def test_every_picture_has_its_script():
    assert {path.name for path in (DOCS / "images").iterdir() if path.suffix != ".py"} - {"__pycache__"} == set(
        DRAWN_BY
    )
    assert [script for script in DRAWN_BY.values() if not (ROOT / script).is_file()] == []
    for picture, script in DRAWN_BY.items():
        if script.startswith(("docs", "benchmarks")):
            assert picture in (ROOT / script).read_text(encoding="utf-8")


def test_pages_show_pictures_of_the_repository_alone():
    shown = [
        (path, target)
        for path in READING
        for target in re.findall(r"!\[[^\]]*\]\(([^()\s]+)\)", path.read_text(encoding="utf-8"))
    ]
    assert len(shown) > 5
    for path, target in shown:
        picture = (path.parent / target).resolve()
        assert picture.parent == DOCS / "images" or "reports" in picture.parts, f"{path} shows {target}"


def test_the_drawing_of_the_architecture_is_what_its_script_draws(tmp_path, capsys):
    load(DOCS / "images" / "draw_architecture.py").main(["--output_dir", str(tmp_path)])
    for name in ("architecture.svg", "favicon.svg"):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / "images" / name).read_text("utf-8")
    assert capsys.readouterr().out.count("wrote ") == 2


def test_the_drawing_names_files_that_are_there():
    script = load(DOCS / "images" / "draw_architecture.py")
    words = [part for stage in script.STAGES for part in stage[1:]]
    joined = " ".join(words).replace("_ ", "_") + " ".join(part for room in script.ROOMS for part in room[1])
    named = set(re.findall(r"\w+\.py", joined))
    assert {"image_reading.py", "pipeline_chest_xray_localization.py", "losses_clarity.py"} <= named
    assert [name for name in sorted(named) if not (PACKAGE / name).is_file()] == []
    assert all((PACKAGE / room[0]).is_dir() for room in script.ROOMS)


@pytest.mark.slow
def test_the_picture_of_the_home_page_is_what_the_demo_draws(tmp_path):
    command = [sys.executable, "examples/localize.py", "--output_dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with Image.open(tmp_path / "phantom.overlay.png") as made, Image.open(DOCS / "images" / "demo.png") as committed:
        difference = ImageChops.difference(made.convert("RGB"), committed.convert("RGB"))
    assert max(ImageStat.Stat(difference).mean) < 0.5  # of 255; other processors round otherwise


def test_the_home_page_has_the_figures_of_the_readme():
    home, readme = ((path / name).read_text("utf-8") for path, name in ((DOCS, "index.md"), (ROOT, "README.md")))
    rows = [row for row in home.splitlines() if row.startswith("|") and re.search(r"\.\d", row)]
    assert len(rows) >= 6
    assert [row for row in rows if row not in readme.splitlines()] == [], "copy the rows of the README"


@pytest.mark.parametrize("name", RUNS)
def test_its_code_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    if name == "architecture.md":
        assert names["inputs"].pixel_values.shape == (1, 3, 224, 224)
        assert names["encoded"].last_hidden_state.shape == (1, 210, 384)
        assert names["outputs"].localization_maps.shape == (1, 14, 14, 14)
        assert names["processor"].letterbox((2500, 2048)).content == (224, 184)


def test_what_the_concepts_say_of_the_packaged_thresholds_is_so():
    config = clarity_hf.ClarityConfig.from_pretrained("clarity-s16-224")
    text = (DOCS / "concepts.md").read_text("utf-8")
    for finding in ("Pneumothorax", "Pneumonia"):
        threshold = config.per_finding("score_thresholds")[config.label2id[finding]]
        assert f"{threshold:.3f}".lstrip("0") + f" for {finding}" in text
    assert config.is_calibrated


# As a site -----------------------------------------------------------------------------------------------------------


def nav_pages():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    return re.findall(r"^ +- (?:.*: )?([\w/.-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)


def shown_modules():
    pages = (DOCS / "reference").glob("*.md")
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)]


def test_every_page_has_its_place_in_the_navigation():
    pages = nav_pages()
    assert len(pages) == len(set(pages))
    written = {str(path.relative_to(DOCS)) for path in READING}
    assert sorted(written - set(pages)) == []
    mirrored = re.findall(r'^    "\S+": "(\S+)",$', (DOCS / "site" / "links.py").read_text("utf-8"), re.MULTILINE)
    assert sorted(set(pages) - written) == sorted(mirrored)


def test_every_module_is_in_the_reference_once_or_left_out_for_a_reason():
    shown = [name.removeprefix("clarity_hf.") for name in shown_modules()]
    assert len(shown) == len(set(shown))
    files = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files}
    left_out = {
        module
        for module in modules - set(shown)
        if not any(module == name or module.startswith(f"{name}.") for name in NO_REFERENCE)
        and not (PACKAGE / module.replace(".", "/")).is_dir()
    }
    assert left_out == set(), "give the module its `:::` line in docs/reference/, or a reason in NO_REFERENCE"
    assert set(shown) - modules == set()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    folder = Path(os.environ.get("CLARITY_HF_SITE") or tmp_path_factory.mktemp("site"))
    settings = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


class Html(HTMLParser):
    """What a page loads, its anchors, and its text outside code."""

    LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
    NEVER_CLOSED = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}

    def __init__(self, text):
        super().__init__()
        self.loads, self.anchors, self.texts, self.open = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if attributes.get("id"):
            self.anchors.add(attributes["id"])
        if attributes.get(self.LOADS.get(tag)):
            self.loads.append(attributes[self.LOADS[tag]])
        if tag not in self.NEVER_CLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"code", "pre", "script", "style", "svg"} & set(self.open):
            self.texts.append(data)


@pytest.fixture(scope="module")
def pages(site):
    """The pages of the site as they are read, by their paths."""
    return {str(path.relative_to(site)): Html(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


UNRENDERED = re.compile(
    r"```|\]\(|\]\[|\*\*|^ *\| ?-|>>> |\.\. \w+::|\n *- |\n *\d+\. |`\w[^`\n]*`|^#+ ", re.MULTILINE
)
"""What Markdown leaves in the text of a page where it was not understood."""


def test_no_page_loads_anything_from_another_host(site, pages):
    assert len(pages) > 40
    loaded = {target for page in pages.values() for target in page.loads}
    assert any(target.endswith(".css") for target in loaded)
    assert sorted(target for target in loaded if re.match(r"(?:\w+:)?//", target)) == []
    for sheet in site.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import )[\"']?([^\"')]+)", sheet.read_text("utf-8"))
        assert [url for url in urls if re.match(r"(?:\w+:)?//", url)] == [], sheet
    # Its scripts fetch mermaid from a host for pages that hold such a drawing.
    assert [name for name in pages if 'class="mermaid' in (site / name).read_text("utf-8")] == []


def test_markdown_of_pages_and_docstrings_is_understood(pages):
    texts = [(name, text) for name, page in pages.items() for text in page.texts]
    left = [(name, text.strip()[:80]) for name, text in texts if UNRENDERED.search(text)]
    assert left == []


@pytest.mark.parametrize("text", ["a\n- b", "[a](b)", "**a**", "[`a`][b]", "| --- |", "```", "a `b` c", ">>> 1"])
def test_the_check_sees_markdown_that_was_not_understood(text):
    assert UNRENDERED.search(text)


def test_what_the_rooms_export_has_its_place_in_the_reference(pages):
    anchors = set().union(*(page.anchors for name, page in pages.items() if name.startswith("reference/")))
    missing = []
    for room in ("", ".phantoms", ".metrics", ".evaluation", ".reporting", ".export", ".training"):
        module = importlib.import_module(f"clarity_hf{room}")
        for name in module.__all__:
            if not any(place.startswith("clarity_hf.") and place.split(".")[-1] == name for place in anchors):
                missing.append(f"{module.__name__}.{name}")
    assert missing == []


def test_the_search_is_on_the_site_itself(site):
    index = (site / "search" / "search_index.json").read_text("utf-8")
    assert "post_process_localization" in index
    assert "tables/wang.html" not in index


# What the hooks do ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def links():
    pytest.importorskip("mkdocs")
    return load(DOCS / "site" / "links.py")


@pytest.mark.parametrize(
    ("origin", "page", "markdown", "expected"),
    [
        ("docs/dicom.md", "dicom.md", "[a](scale.md#x)", "[a](scale.md#x)"),
        ("docs/how-to/train.md", "how-to/train.md", "[a](../scale.md)", "[a](../scale.md)"),
        ("CONTRIBUTING.md", "contributing.md", "[two\nlines](docs/dicom.md#codes)", "[two\nlines](dicom.md#codes)"),
        ("docs/index.md", "index.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/how-to/train.md", "how-to/train.md", "[a](../../README.md)", "[a](../index.md)"),
        ("docs/dicom.md", "dicom.md", "[`a`](../src/clarity_hf/boxes.py)", "[`a`][clarity_hf.boxes]"),
        (
            "docs/dicom.md",
            "dicom.md",
            "[`Letterbox.fit`](../src/clarity_hf/boxes.py)",
            "[`Letterbox.fit`][clarity_hf.boxes.Letterbox]",
        ),
        ("docs/dicom.md", "dicom.md", "[`examples/`](../examples)", "`examples`"),
        ("docs/dicom.md", "dicom.md", "[the script](../examples/train.py)", "the script (`examples/train.py`)"),
        ("docs/dicom.md", "dicom.md", "    [a](../examples)", "    [a](../examples)"),
        ("docs/dicom.md", "dicom.md", "```\n[a](../examples)\n```", "```\n[a](../examples)\n```"),
        ("docs/dicom.md", "dicom.md", "[a](https://host.example/b)", "[a](https://host.example/b)"),
    ],
)
def test_links_lead_to_their_place_on_the_site(links, origin, page, markdown, expected):
    assert links.rewritten(markdown, origin, page, {"clarity_hf.boxes"}) == expected


def test_with_an_address_of_the_repository_links_lead_there(links):
    for target, kind in (("examples/train.py", "blob"), ("examples", "tree")):
        text = links.rewritten(f"[a](../{target})", "docs/a.md", "a.md", set(), "https://host.example/us/it/")
        assert text == f"[a](https://host.example/us/it/{kind}/HEAD/{target})"


def test_a_link_that_leads_nowhere_is_a_warning(links, caplog):
    assert links.rewritten("[a](../gone.py)", "docs/a.md", "a.md", set()) == "[a](../gone.py)"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "docs/a.md: the link to ../gone.py leads nowhere: there is no gone.py")
    ]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("See [`Letterbox`].", "See [`Letterbox`][clarity_hf.boxes.Letterbox]."),
        ("See [`clarity_hf.Letterbox`].", "See [`clarity_hf.Letterbox`][clarity_hf.boxes.Letterbox]."),
        ("See [`transformers.Trainer`].", "See `transformers.Trainer`."),
        ("See [`Letterbox`](there.md).", "See [`Letterbox`](there.md)."),
        (".. math:: a = b\n    + c\n\nd", "```text\na = b\n+ c\n```\n\nd"),
        ("Example:\n    >>> f()  # doctest: +SKIP\n    1", "Example:\n    ```pycon\n    >>> f()\n    1\n    ```"),
        ("It has\n- a\n  b\n- c\nEnd", "It has\n\n- a\n  b\n- c\n\nEnd"),
        ("It has:\n\n- a\n\nEnd", "It has:\n\n- a\n\nEnd"),
    ],
)
def test_docstrings_become_markdown(docstring, expected):
    pytest.importorskip("griffe")
    rewritten = load(DOCS / "site" / "docstrings.py").rewritten
    assert rewritten(docstring, {"Letterbox": "clarity_hf.boxes.Letterbox"}) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("`int`, defaults to 384", ("int", "384")),
        ("`float` or list of F, *optional*", ("float or list of F", "None")),
        ("`bool`, *optional*, defaults to `True`", ("bool", "True")),
        ("`(B, F)`", ("(B, F)", None)),
    ],
)
def test_a_parameter_has_its_type_and_its_default_apart(written, expected):
    pytest.importorskip("griffe")
    assert load(DOCS / "site" / "docstrings.py").type_and_default(written) == expected


def test_the_reference_shows_defaults_and_helps(site):
    config = (site / "reference" / "configuration.html").read_text("utf-8")
    row = re.search(r"<code>hidden_size</code>.*?</tr>", config, re.DOTALL)[0]
    assert re.findall(r"<code>(.*?)</code>", row)[1:] == ["int", "num_attention_heads", "384"]
    training = (site / "reference" / "training.html").read_text("utf-8")
    assert 'id="clarity_hf.training.train.TrainingRecipe.teacher"' in training
    assert "Image classifier with the same findings." in training
    assert "metadata" not in re.sub(r"<p>.*?</p>", "", training, flags=re.DOTALL)
