# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/accelerate: accelerate's own parser and launcher read each file as its comments say; cpu.yaml runs."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import _filter_args, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from torch.distributed import run as torch_launch
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from clarity_hf.modeling_clarity import ClarityLayer

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "examples" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))


def launched(name, *arguments):
    """The launcher's arguments and environment for `accelerate launch --config_file NAME ...`; nothing is started."""
    command = ["--config_file", str(FOLDER / name), *arguments, "examples/train.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    if args.multi_gpu or args.use_fsdp:
        return args, prepare_multi_gpu_env(args)
    return args, prepare_simple_launcher_cmd_env(args)[1]


def test_every_file_is_here():
    assert [path.stem for path in FILES] == ["cpu", "fsdp", "one_gpu", "one_node", "several_nodes"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_are_accelerates_own(path):
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(settings) <= {field.name for field in dataclasses.fields(ClusterConfig)}
    flags = {action.dest for action in launch_command_parser()._actions}
    assert set(settings.get("fsdp_config", {})) <= flags


@pytest.mark.parametrize(
    ("name", "distributed_type", "mixed_precision", "machines", "processes"),
    [
        ("cpu.yaml", "NO", "no", 1, 1),
        ("one_gpu.yaml", "NO", "bf16", 1, 1),
        ("one_node.yaml", "MULTI_GPU", "bf16", 1, 8),
        ("several_nodes.yaml", "MULTI_GPU", "bf16", 2, 16),
        ("fsdp.yaml", "FSDP", "bf16", 1, 8),
    ],
)
def test_accelerate_reads_it_as_it_says(name, distributed_type, mixed_precision, machines, processes):
    config = load_config_from_file(str(FOLDER / name))
    assert config.distributed_type == distributed_type
    assert config.mixed_precision == mixed_precision
    assert (config.num_machines, config.num_processes) == (machines, processes)
    assert config.use_cpu is (name == "cpu.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_has_the_command_what_to_change_and_whether_it_was_run(path):
    text = path.read_text(encoding="utf-8")
    assert f"accelerate launch --config_file examples/accelerate/{path.name}" in text
    assert "# Change:" in text
    header = text[: text.index("compute_environment")]
    assert ("Run by the tests" in header) is (path.name == "cpu.yaml")
    assert ("Not run here" in header) is (path.name != "cpu.yaml")


@pytest.mark.parametrize(("name", "cpu"), [("cpu.yaml", "True"), ("one_gpu.yaml", "False")])
def test_one_process_starts_without_a_launcher(name, cpu):
    args, environment = launched(name)
    assert not args.multi_gpu
    assert not args.use_fsdp
    assert environment["ACCELERATE_USE_CPU"] == cpu
    assert environment["ACCELERATE_MIXED_PRECISION"] == ("no" if name == "cpu.yaml" else "bf16")


def test_one_node_starts_a_process_for_each_gpu():
    args, environment = launched("one_node.yaml", "--num_processes", "4", "--main_process_port", "0")
    assert args.multi_gpu
    assert args.nproc_per_node == "4"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_several_nodes_share_the_processes_and_meet_at_the_first():
    """As torch is told to start the second machine, with rank and address from the command line over the file's."""
    args, _ = launched("several_nodes.yaml", "--machine_rank", "1", "--main_process_ip", "10.0.0.7")
    torch_args = _filter_args(args, torch_launch.get_args_parser(), [args.training_script, "--output_dir"])
    config, _, _ = torch_launch.config_from_args(torch_args)
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (2, 2, 8)
    assert config.rdzv_configs["rank"] == 1
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("static", "10.0.0.7:29500")


def test_fsdp_is_version_2_with_a_unit_for_each_layer(tiny_model, monkeypatch):
    args, environment = launched("fsdp.yaml", "--num_processes", "2", "--main_process_port", "0")
    assert args.use_fsdp
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    # What transformers asks before it loads a teacher as empty weights on all processes but one.
    assert environment["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    for key, value in environment.items():
        if key.startswith("FSDP_"):
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    plugin.set_auto_wrap_policy(tiny_model)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {ClarityLayer}


@pytest.mark.slow
def test_the_cpu_file_trains(tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "cpu.yaml")]
    script = REPOSITORY / "tests" / "training" / "tiny_run.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*launch, str(script), str(tmp_path), "4x1"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = torch.load(tmp_path / "4x1.pt")
    assert (result["processes"], result["distributed_type"]) == (1, "NO")
    assert [log["step"] for log in result["logs"] if "loss" in log] == [1, 2, 3, 4]
