# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
r"""Train CLARiTy on image labels, with anatomical priors and, where there is one, a teacher.

    accelerate launch examples/train.py
    accelerate launch examples/train.py --data_dir NIH_FOLDER --init timm/vit_small_patch16_224.dino \
        --layer_decay 0.65 --teacher TEACHER --teacher_cache runs/logits --augment flip --output_dir runs/nih
    accelerate launch examples/train.py --data_dir phantom NIH_FOLDER --image_repeats 4 --output_dir runs/mixed
    accelerate launch examples/train.py --data_dir images.csv --model clarity-s16-224 --output_dir runs/own
    accelerate launch examples/train.py examples/starter/1-phantoms.yaml --output_dir runs/stage1

Without arguments it trains on synthetic phantoms, drawn as they are read. It evaluates on the validation split of each
data set after every epoch, keeps the best epoch by mean AUROC on the last of them, resumes from the output folder
where it was stopped, and leaves there a model that `pipeline("chest-xray-localization", model=FOLDER)` loads, with
thresholds chosen on validation, the history of the run and a model card. Expected at the end of the output:

    saved runs/clarity: validation AUROC 0.9.. (... images)
"""

from clarity_hf.training.train import main

if __name__ == "__main__":
    main()
