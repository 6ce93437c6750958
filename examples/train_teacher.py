# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune a ConvNeXtV2 on the same labels as CLARiTy, to be its teacher.

    accelerate launch examples/train_teacher.py --size atto
    accelerate launch examples/train_teacher.py --data_dir NIH_FOLDER --model facebook/convnextv2-base-22k-224
    accelerate launch examples/train_teacher.py --data_dir NIH_FOLDER --model timm/convnextv2_tiny.fcmae

The plain Trainer of transformers with labels that may be unannotated. It evaluates on the validation split of each
data set after every epoch, keeps the best epoch by mean AUROC on the last of them, resumes from the output folder
where it was stopped, and leaves there a model and an image processor for `examples/train.py --teacher FOLDER`, with a
card that names the licence of its weights: those published for ConvNeXtV2 are CC-BY-NC-4.0. Expected at the end of the
output:

    saved runs/teacher: validation AUROC 0.8.. (... images), licence of the weights apache-2.0
"""

from clarity_hf.training.train_teacher import main

if __name__ == "__main__":
    main()
