# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One of the processes of a run whose weights are sharded by FSDP version 2, without the Trainer.

    python -m torch.distributed.run --nproc_per_node 2 tests/training/sharded_run.py FOLDER PLAN [PLAN ...]

Plans: `layers` shards each ClarityLayer and then the rest; `accelerate` is what accelerate makes of
examples/accelerate/fsdp.yaml, without a GPU; `bf16` is the same with parameters gathered in bfloat16; `checkpointing`
recomputes the activations of the layers. Process 0 leaves a checkpoint and FOLDER/PLAN.pt.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from tiny_run import random_rows, tiny_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

CONFIG = Path(__file__).parents[2] / "examples" / "accelerate" / "fsdp.yaml"
STEPS = 3
IMAGES = 8


def batches():
    """The joined batch of every step: 8 images, some labels and priors unannotated."""
    rows = random_rows(STEPS * IMAGES)
    for start in range(0, len(rows), IMAGES):
        yield {name: torch.stack([row[name] for row in rows[start : start + IMAGES]]) for name in rows[0]}


def train(model, share=slice(None)):
    """A step of SGD on this process's share of every batch; gives the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    losses = []
    for batch in batches():
        loss = model.train()(**{name: tensor[share] for name, tensor in batch.items()}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def shard(model, plan):
    """Shard in place."""
    if plan in ("layers", "checkpointing"):
        for layer in model.clarity.layers:
            fully_shard(layer)
        fully_shard(model)
        return
    settings = load_config_from_file(str(CONFIG)).fsdp_config
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=settings["fsdp_version"],
        reshard_after_forward=settings["fsdp_reshard_after_forward"],
        auto_wrap_policy=settings["fsdp_auto_wrap_policy"].lower(),
        transformer_cls_names_to_wrap=settings["fsdp_transformer_layer_cls_to_wrap"].split(","),
        cpu_ram_efficient_loading=settings["fsdp_cpu_ram_efficient_loading"],
        state_dict_type=settings["fsdp_state_dict_type"],
    )
    precision = "bf16" if plan == "bf16" else "no"
    if precision == "bf16":
        plugin.set_mixed_precision("bf16")
    # As much of an Accelerator as this needs: a real one runs FSDP on an accelerator only.
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision=precision,
        is_main_process=dist.get_rank() == 0,
        device=torch.device("cpu"),
    )
    fsdp2_prepare_model(accelerator, model)


def main(folder, *plans):
    """The plans, one after the other."""
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    share = slice(rank * IMAGES // processes, (rank + 1) * IMAGES // processes)
    for plan in plans:
        model = tiny_model()
        if plan == "checkpointing":
            model.gradient_checkpointing_enable()
        shard(model, plan)
        losses = train(model, share)
        dist.all_reduce(losses)
        weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if rank == 0:
            model.save_pretrained(Path(folder) / plan, state_dict=weights)
            result = {
                "processes": processes,
                "losses": losses / processes,
                "sharded": sorted(name for name, weight in model.named_parameters() if isinstance(weight, DTensor)),
                "units": sorted(name for name, module in model.named_modules() if isinstance(module, FSDPModule)),
            }
            torch.save(result, Path(folder) / f"{plan}.pt")
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
