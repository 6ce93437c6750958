#!/usr/bin/env bash
# transformers 5.23.0, TimmWrapperConfig: a timm checkpoint with classes of its own, such as ImageNet's, is given a new head
# the documented way (`from_pretrained(..., num_labels=2, id2label=..., label2id=...)`) and saved after fine-tuning.
# `to_dict` drops `id2label` and writes `label_names` by `setdefault`: the `label_names` of the old checkpoint are still
# there and win. Loading sees 2 classes and 5 names and makes LABEL_0 and LABEL_1 of them: Mass and Nodule are lost, with
# a warning that speaks of `num_labels` alone. With other model types the labels that were given are saved.
#
# Seen with Python 3.11:
#   transformers 5.23.0
#   given {0: 'Mass', 1: 'Nodule'}
#   in the file ['tench', 'goldfish', 'shark', 'ray', 'cock']
#   saved and loaded {0: 'LABEL_0', 1: 'LABEL_1'}
#   resnet: saved and loaded {0: 'Mass', 1: 'Nodule'}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.23.0
export HF_HUB_OFFLINE=1
venv/bin/python - <<'PY'
import json
import pathlib
import sys

import transformers
from transformers import AutoConfig

print("transformers", transformers.__version__)
labels = {0: "Mass", 1: "Nodule"}
new = {"num_labels": 2, "id2label": labels, "label2id": {name: index for index, name in labels.items()}}
classes = ["tench", "goldfish", "shark", "ray", "cock"]
start = pathlib.Path("start")
start.mkdir()
(start / "config.json").write_text(
    json.dumps({"model_type": "timm_wrapper", "architecture": "resnet18", "num_classes": 5, "label_names": classes})
)
config = AutoConfig.from_pretrained("start", **new)
print("given", config.id2label)
config.save_pretrained("tuned")
written = json.loads(pathlib.Path("tuned/config.json").read_text())["label_names"]
print("in the file", written)
loaded = AutoConfig.from_pretrained("tuned")
print("saved and loaded", loaded.id2label)

other = pathlib.Path("other")
other.mkdir()
(other / "config.json").write_text(
    json.dumps({"model_type": "resnet", "id2label": {str(i): name for i, name in enumerate(classes)}})
)
AutoConfig.from_pretrained("other", **new).save_pretrained("other-tuned")
resnet = AutoConfig.from_pretrained("other-tuned")
print("resnet: saved and loaded", resnet.id2label)
lost = written == classes and list(loaded.id2label.values()) == ["LABEL_0", "LABEL_1"]
sys.exit(0 if config.id2label == labels and lost and resnet.id2label == labels else 1)
PY
