# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Write the lists of patients that `clarity_hf.data.named_splits` names, from the tables of the NIH release.

    python examples/write_splits.py RELEASE_FOLDER --subset SUBSET_FOLDER --images IMAGES_FOLDER

RELEASE_FOLDER holds train_val_list.txt and BBox_List_2017.csv; no image is read. SUBSET_FOLDER and IMAGES_FOLDER are
the folders in the release's layout that the packaged checkpoint was trained on: the first stages on the subset, with
the split that `load_nih` gives it, the last two on all images but the patients of clarity-validation. Without them the
lists of the checkpoint are left as they are. The lists go into the package, and into the same bytes on every machine.
Expected output:

    nih-validation.txt: 5,602 patients
    nih-boxes-tuning-0.txt: 363 patients
    ...
    clarity-validation.txt: 5,612 patients
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from clarity_hf.data import named_splits
from clarity_hf.data.nih import TRAIN_VALIDATION_LIST, VALIDATION_FRACTION, read_nih_tables, split_images
from clarity_hf.data.rows import draw_patients

BOX_LIST = "BBox_List_2017.csv"
SEED = 0


def main() -> int:
    """Draw the lists, write them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="folder of the whole release's tables")
    parser.add_argument("--subset", type=Path, help="folder that the checkpoint's first stages were trained on")
    parser.add_argument("--images", type=Path, help="folder that its last stages were trained on; with --subset")
    parser.add_argument("--output_dir", type=Path, default=named_splits.SPLIT_FOLDER)
    arguments = parser.parse_args()
    if (arguments.subset is None) != (arguments.images is None):
        parser.error("arguments --subset and --images: give both or neither")
    try:
        lists = release_lists(arguments.release)
        if arguments.subset:
            lists |= checkpoint_lists(lists[named_splits.NIH_VALIDATION][0], arguments.subset, arguments.images)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for name, (patients, about) in lists.items():
        path = arguments.output_dir / f"{name}.txt"
        path.write_bytes(list_text(name, patients, about).encode())
        print(f"{path.name}: {len(patients):,} patients")
    return 0


def release_lists(folder: Path) -> dict[str, tuple[set[str], str]]:
    """Patients, and what they are, by the name of their list: what the whole release's tables give."""
    listed = patients_of(folder / TRAIN_VALIDATION_LIST)
    boxed = patients_of(folder / BOX_LIST, header_lines=1)
    lists = {
        named_splits.NIH_VALIDATION: (
            draw_patients(listed, VALIDATION_FRACTION, SEED),
            f"Validation patients of NIH ChestX-ray14: {VALIDATION_FRACTION:.0%} of the {len(listed):,} patients of\n"
            f"{TRAIN_VALIDATION_LIST}, those whose SHA-256 of '{SEED}:PATIENT' is lowest.",
        )
    }
    for seed, name in enumerate(named_splits.TUNING_HALVES):
        lists[name] = (
            draw_patients(boxed, 0.5, seed),
            f"Patients on whom map thresholds are tuned: half of the {len(boxed):,} patients of {BOX_LIST},\n"
            f"those whose SHA-256 of '{seed}:PATIENT' is lowest. The other half is scored.",
        )
    return lists


def checkpoint_lists(drawn: set[str], subset: Path, images: Path) -> dict[str, tuple[set[str], str]]:
    """The same of the packaged checkpoint's patients, `drawn` being the validation patients of the whole release."""
    splits = split_images(read_nih_tables(subset)[0])
    first, validation = ({image.patient_id for image in splits[name]} for name in ("train", "validation"))
    held_out = (drawn - first) | validation
    return {
        named_splits.CHECKPOINT_TRAIN: (
            first | (patients_of(images / TRAIN_VALIDATION_LIST) - held_out),
            "Patients of NIH ChestX-ray14 on whom the packaged checkpoint clarity-s16-224 was trained, in any stage.",
        ),
        named_splits.CHECKPOINT_VALIDATION: (
            validation,
            "Patients of NIH ChestX-ray14 on whom the packaged checkpoint clarity-s16-224 was validated; it was\n"
            "never trained on them. All are of the official train list. Patients with boxes of the RSNA\n"
            "challenge's readers are among them by choice: their share of Pneumonia is not the release's.",
        ),
        named_splits.CLARITY_VALIDATION: (
            held_out,
            "Validation patients of NIH ChestX-ray14 for a model that continues from the packaged checkpoint: those\n"
            "of nih-validation without those of clarity-s16-224-train, and those of clarity-s16-224-validation.",
        ),
    }


def patients_of(table: Path, header_lines: int = 0) -> set[str]:
    """Patients of a table whose rows begin with an image's file name, such as `00000061_012.png`."""
    if not table.is_file():
        raise FileNotFoundError(f"`release` must hold {table.name}, got {table.parent}. Pass the tables' folder.")
    rows = table.read_text(encoding="utf-8-sig").splitlines()[header_lines:]
    return {row.split("_")[0] for row in rows if row.strip()}


def list_text(name: str, patients: Iterable[str], about: str) -> str:
    """A list as it is filed: what it is behind `#`, then a patient a line, sorted."""
    patients = sorted(patients)
    command = "python examples/write_splits.py RELEASE_FOLDER"
    if name in (
        named_splits.CHECKPOINT_TRAIN,
        named_splits.CHECKPOINT_VALIDATION,
        named_splits.CLARITY_VALIDATION,
    ):
        command += " --subset SUBSET_FOLDER --images IMAGES_FOLDER"
    head = [name, *about.splitlines(), f"{len(patients):,} patients, one a line. Made by: {command}"]
    return "".join([*(f"# {line}\n" for line in head), *(f"{patient}\n" for patient in patients)])


if __name__ == "__main__":
    sys.exit(main())
