# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Draw the parts of the loss of a run over its epochs, and the validation AUROC.

    python examples/plot_losses.py runs/clarity losses.png

Reads `trainer_state.json`, which `examples/train.py` leaves in its output folder. Needs matplotlib:
`pip install 'clarity_hf[curves]'`. Expected at the end of the output:

    wrote losses.png: 7 parts over 3.0 epochs
"""

import argparse
import json
from pathlib import Path

COLUMNS = 3
PANEL_INCHES = (3.6, 2.4)


def main() -> None:
    """Read the history, draw a panel a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output folder of a run")
    parser.add_argument("picture", type=Path, help="PNG or SVG to write")
    arguments = parser.parse_args()
    state = arguments.run / "trainer_state.json"
    if not state.is_file():
        raise FileNotFoundError(f"`run` must hold trainer_state.json, got {arguments.run}. Let the run end first.")
    history = json.loads(state.read_text(encoding="utf-8"))["log_history"]
    parts = read_curves(history)
    draw(parts, arguments.picture)
    epochs = max(epoch for curve in parts.values() for epoch, _ in curve)
    count = sum(name.startswith("loss_") for name in parts)
    print(f"wrote {arguments.picture}: {count} parts over {epochs:.1f} epochs")


def read_curves(history: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """Points `(epoch, value)` of the whole loss, its parts and every validation AUROC, by name."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name == "loss" or name.startswith("loss_") or (name.startswith("eval_") and name.endswith("auroc")):
                curves.setdefault(name, []).append((entry["epoch"], value))
    if "loss" not in curves:
        raise ValueError("`run` must have logged its training, got a history without a loss. Lower --logging_steps.")
    return curves


def draw(curves: dict[str, list[tuple[float, float]]], picture: Path) -> None:
    """A small panel for each curve, with its own scale."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("matplotlib draws the curves. Run pip install 'clarity_hf[curves]'.") from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    rows = -(-len(curves) // COLUMNS)
    figure, panels = pyplot.subplots(
        rows, COLUMNS, figsize=(COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1]), squeeze=False, sharex=True
    )
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel, (name, curve) in zip(panels.flat, curves.items(), strict=False):
        epochs, values = zip(*curve, strict=True)
        panel.plot(epochs, values, marker="o" if len(curve) < 20 else None, markersize=3, linewidth=1.2)
        panel.set_title(name.removeprefix("loss_").replace("_", " "), fontsize=10)
        panel.grid(alpha=0.3)
        panel.set_xlabel("epoch", fontsize=8)
        panel.tick_params(labelsize=8, labelbottom=True)
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
