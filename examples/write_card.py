# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
r"""Commit the reports of a checkpoint as figures and tables without images of patients, and write its card from them.

    python examples/evaluate_checkpoint.py CHECKPOINT_FOLDER phantom --images 1000 --output_dir runs/report-phantom
    python examples/evaluate_checkpoint.py CHECKPOINT_FOLDER NIH_FOLDER --split validation --output_dir runs/report-nih
    python examples/write_card.py CHECKPOINT_FOLDER --facts docs/reports/clarity-s16-224/training.yaml \
        --reports runs/report-phantom runs/report-nih

`clarity-hf evaluate` makes such reports as well. Each is copied into a folder beside the facts, `phantom-test` and so
on, named by its data and split; README.md there becomes the page over them. The card goes into CHECKPOINT_FOLDER.
Without --reports it is written again from the copies that are there. The form of the facts is in the docstring of
`clarity_hf.reporting.checkpoint_card`. Expected output:

    phantom-test: 876 kB, searched for 0 names, none found
    nih-subset-validation: 333 kB, searched for 556 names, none found
    wrote CHECKPOINT_FOLDER/README.md
"""

import argparse
import sys
from pathlib import Path

from transformers.utils import logging

from clarity_hf.reporting.checkpoint_card import read_facts, write_checkpoint_card
from clarity_hf.reporting.committed_reports import commit_report, write_index


def main() -> int:
    """Copy reports, write their page and the card; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--facts", type=Path, required=True, help="YAML file; reports are committed beside it")
    parser.add_argument("--reports", type=Path, nargs="*", default=[], help="folders of evaluations, records beside")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    try:
        facts = read_facts(arguments.facts)
        folder = arguments.facts.parent
        for report in arguments.reports:
            committed = commit_report(report, folder)
            short = f", {committed.names_too_short} too short to search for" if committed.names_too_short else ""
            print(
                f"{committed.folder.name}: {committed.size / 1e3:.0f} kB, "
                f"searched for {committed.names_searched} names, none found{short}"
            )
        write_index(folder, facts["name"])
        path = write_checkpoint_card(arguments.checkpoint, arguments.facts, [folder / n for n in facts["evaluations"]])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
