# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Training over processes: equal steps however images are cut, sharded weights, and killed runs that resume.

All on CPUs through gloo. Each launch costs some ten seconds of imports, so tests share what one leaves.
"""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clarity_hf import ClarityForMultiLabelLocalization
from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training.checkpoint_manifest import damage_of, last_checkpoint, last_intact_checkpoint

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "train.py"
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def load(path):
    """A script as a module; those of this folder import each other as the interpreter that runs them does."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


tiny_run = load(HERE / "tiny_run.py")
sharded_run = load(HERE / "sharded_run.py")
killed_run = load(HERE / "killed_run.py")


def launch(*arguments):
    """Run Python to its end."""
    run = subprocess.run(
        [sys.executable, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def mean_difference(one, other):
    assert one.keys() == other.keys()
    return torch.cat([(one[name].float() - other[name].float()).abs().flatten() for name in one]).mean().item()


def assert_same_weights(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


# Two processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Results of one process that sees each step's eight images at once."""
    folder = tmp_path_factory.mktemp("one")
    for cut in ("8x1", "8x1-bare", "8x1-muon"):
        tiny_run.run_cut(folder, cut)
    return {path.stem: torch.load(path) for path in folder.glob("*.pt")}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Results of two processes with four images a step each, at once and in passes of two and one."""
    folder = tmp_path_factory.mktemp("two")
    launch(*TWO_PROCESSES, HERE / "tiny_run.py", folder, "4x1", "2x2", "1x4", "4x1-bare", "4x1-muon", "4x1-unshared")
    return {path.stem: torch.load(path) for path in folder.glob("*.pt")}


@pytest.mark.parametrize(("cut", "whole"), [("4x1", "8x1"), ("2x2", "8x1"), ("1x4", "8x1"), ("4x1-bare", "8x1-bare")])
def test_two_processes_train_as_one_with_all_their_images(two_processes, one_process, cut, whole):
    """With a teacher, unannotated labels and missing priors in unequal numbers; or without any prior."""
    two, one = two_processes[cut], one_process[whole]
    assert (two["processes"], one["processes"]) == (2, 1)
    assert (two["distributed_type"], one["distributed_type"]) == ("MULTI_CPU", "NO")
    assert largest_difference(one["weights"], tiny_run.tiny_model().state_dict()) > 1e-2
    assert_same_weights(one["weights"], two["weights"], rtol=1e-5, atol=1e-6)


def test_processes_that_share_muons_work_step_bit_for_bit_as_if_each_did_all_of_it(two_processes):
    shared, alone = two_processes["4x1-muon"]["copies"], two_processes["4x1-unshared"]["copies"]
    assert len(shared) == 2
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared, alone)


def test_two_processes_with_muon_train_about_as_one(two_processes, one_process):
    one, two = one_process["8x1-muon"]["weights"], two_processes["4x1-muon"]["weights"]
    assert largest_difference(one, tiny_run.tiny_model().state_dict()) > 1e-2
    assert mean_difference(one, two) < 1e-3  # it iterates in bfloat16, which sums of gradients in another order move


@pytest.mark.parametrize(
    ("cut", "whole", "parts"), [("4x1", "8x1", 7), ("2x2", "8x1", 7), ("4x1-bare", "8x1-bare", 5)]
)
def test_logs_of_two_processes_cover_all_images(two_processes, one_process, cut, whole, parts):
    for alone, together in zip(one_process[whole]["logs"][:4], two_processes[cut]["logs"][:4], strict=True):
        losses = [name for name in alone if name.startswith("loss")]
        assert len(losses) == 1 + parts
        for name in losses:
            assert together[name] == pytest.approx(alone[name], abs=2e-4), name


@pytest.mark.slow
def test_fsdp_under_the_trainer_is_plain_ddp_on_a_cpu(tmp_path):
    """What docs/scale.md says of it. When this fails, FSDP runs here: compare its weights and correct the page."""
    launch(*TWO_PROCESSES, HERE / "tiny_run.py", tmp_path, "4x1-fsdp")
    assert torch.load(tmp_path / "4x1-fsdp.pt")["distributed_type"] == "MULTI_CPU"


# Sharded weights -----------------------------------------------------------------------------------------------------

PLANS = ("layers", "accelerate", "checkpointing", "bf16")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Folder of checkpoints and results of two processes with sharded weights."""
    folder = tmp_path_factory.mktemp("sharded")
    launch(*TWO_PROCESSES, HERE / "sharded_run.py", folder, *PLANS)
    return folder


@pytest.fixture(scope="module")
def unsharded():
    """Weights and losses of one process on the joined batches."""
    model = tiny_run.tiny_model()
    losses = sharded_run.train(model)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, losses


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_sharded_weights_train_like_unsharded_ones_and_load_from_their_checkpoint(sharded, unsharded, plan):
    weights, losses = unsharded
    result = torch.load(sharded / f"{plan}.pt")
    assert result["processes"] == 2
    assert result["sharded"] == sorted(name for name, _ in tiny_run.tiny_model().named_parameters())
    assert [path.name for path in (sharded / plan).glob("*.safetensors")] == ["model.safetensors"]
    loaded = ClarityForMultiLabelLocalization.from_pretrained(sharded / plan)
    assert type(loaded) is ClarityForMultiLabelLocalization
    assert loaded.dtype == torch.float32
    assert largest_difference(weights, tiny_run.tiny_model().state_dict()) > 1e-2
    if plan == "bf16":  # gathered, multiplied and given out in bfloat16, kept and stepped in float32: 2 to 3 digits
        assert result["losses"].dtype == torch.bfloat16
        torch.testing.assert_close(result["losses"].float(), losses, rtol=1e-2, atol=0)
        moved = mean_difference(weights, tiny_run.tiny_model().state_dict())
        # How much depends on the processor, which sums bfloat16 in its own way; 13 % of the way on one.
        assert 0 < mean_difference(weights, loaded.state_dict()) < 0.25 * moved
    else:
        torch.testing.assert_close(result["losses"], losses, rtol=1e-5, atol=1e-6)
        assert_same_weights(weights, loaded.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_accelerates_plan_shards_each_layer_and_the_rest(sharded):
    layers = {"", "clarity.layers.0", "clarity.layers.1"}
    assert set(torch.load(sharded / "layers.pt")["units"]) == layers
    # Of itself it gives the library's input embedding and last norm units of their own.
    of_its_own = {"clarity.embeddings.patch_projection", "clarity.layernorm"}
    assert set(torch.load(sharded / "accelerate.pt")["units"]) == layers | of_its_own


# Killed --------------------------------------------------------------------------------------------------------------


def chosen_seed():
    """A new seed on every run, printed; CLARITY_HF_KILL_SEED repeats one."""
    seed = int(os.environ.get("CLARITY_HF_KILL_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CLARITY_HF_KILL_SEED={seed}")
    return random.Random(seed)


def records(folder, rank=0):
    """What each pass of a process saw, in the order of the passes."""
    path = folder / f"record-{rank}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def wait_until(condition, process, seconds=120.0):
    """Wait until something is so while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended with {process.returncode} before it was killed"
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.002)


def kill_when(condition, command, folder, delay=0.0, rank=0):
    """Start a command and kill its process `rank` some seconds after something is so."""
    with (folder / "output.txt").open("a", encoding="utf-8") as output:
        process = subprocess.Popen([sys.executable, *map(str, command)], env=ENVIRONMENT, stdout=output, stderr=output)
        try:
            wait_until(condition, process)
            time.sleep(delay)
            os.kill(records(folder, rank)[-1]["pid"] if records(folder, rank) else process.pid, signal.SIGKILL)
            process.wait(60)
        finally:
            process.kill()
            process.wait()
    assert process.returncode != 0
    assert not (folder / "result.pt").exists(), "the run ended before it was killed"


def kill_at_a_random_moment(command, folder, chance, rank=0):
    """Start a command and kill it at any moment of any step but the last ones."""
    step, earlier = chance.randint(1, killed_run.STEPS - 2), len(records(folder, rank))
    kill_when(
        lambda: any(record["step"] >= step for record in records(folder, rank)[earlier:]),
        command,
        folder,
        delay=chance.uniform(0, 0.1),
        rank=rank,
    )


def without_process(record):
    return {name: value for name, value in record.items() if name != "pid"}


def assert_same_run(folder, whole, ranks=1):
    """Every step was taken on the same images with the same loss, and those after the kill lead to the same
    weights.
    """
    for rank in range(ranks):
        expected = {record["step"]: without_process(record) for record in records(whole, rank)}
        seen = records(folder, rank)
        assert [record for record in map(without_process, seen) if record != expected[record["step"]]] == []
        last = [record for record in seen if record["pid"] == seen[-1]["pid"]]
        steps = [record["step"] for record in last]
        assert steps == list(range(steps[0], killed_run.STEPS + 1))
        assert len(seen) > len(last), "nothing was killed"
    one, other = torch.load(whole / "result.pt"), torch.load(folder / "result.pt")
    assert other["from"] == (f"checkpoint-{steps[0] - 1}" if steps[0] > 1 else None)
    curves = [[log for log in result["logs"] if "loss" in log] for result in (one, other)]
    assert curves[0] == curves[1]
    assert len({log["loss"] for log in curves[0]}) > killed_run.STEPS / 2  # a curve, not a line
    assert_same_weights(one["weights"], other["weights"], rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Folder of the run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    killed_run.main(folder)
    assert len(records(folder)) == killed_run.STEPS
    return folder


def test_a_killed_run_resumes_as_if_it_had_not_been_killed(tmp_path, whole_run):
    """Same images, crops and losses in every step, same weights at the end, to the last bit."""
    command = [HERE / "killed_run.py", tmp_path]
    kill_at_a_random_moment(command, tmp_path, chosen_seed())
    launch(*command)
    assert_same_run(tmp_path, whole_run)


@pytest.mark.slow
@pytest.mark.parametrize(("save_steps", "workers"), [(1, 0), (3, 0), (5, 1), (4, 2)])
def test_a_run_that_is_killed_twice_resumes(tmp_path, whole_run, save_steps, workers):
    """At whatever distance from a save, and whatever reads the images."""
    chance = chosen_seed()
    command = [HERE / "killed_run.py", tmp_path, save_steps, workers]
    kill_at_a_random_moment(command, tmp_path, chance)
    kill_at_a_random_moment(command, tmp_path, chance)
    launch(*command)
    assert_same_run(tmp_path, whole_run)


@pytest.mark.slow
def test_a_run_that_is_killed_during_a_save_resumes_from_the_save_before(tmp_path, whole_run):
    command = [HERE / "killed_run.py", tmp_path, 2]

    def unfinished():
        return [path for path in tmp_path.glob("checkpoint-*") if not (path / "trainer_state.json").exists()]

    def is_saving():
        return any(int(path.name.split("-")[1]) > 4 for path in unfinished())

    for _attempt in range(5):  # a save takes some hundredths of a second: the kill may come too late
        kill_when(is_saving, command, tmp_path)
        if unfinished():
            break
    torn = unfinished()
    assert len(torn) == 1
    launch(*command)
    assert_same_run(tmp_path, whole_run)
    step = int(torn[0].name.split("-")[1])
    assert torch.load(tmp_path / "result.pt")["from"] == f"checkpoint-{step - 2}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_resume_after_one_was_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    launch(*TWO_PROCESSES, HERE / "killed_run.py", whole)
    chance = chosen_seed()
    command = [*TWO_PROCESSES, HERE / "killed_run.py", killed]
    kill_at_a_random_moment(command, killed, chance, rank=chance.randint(0, 1))
    launch(*command)
    assert_same_run(killed, whole, ranks=2)


def test_checkpoints_that_a_kill_left_unfinished_are_seen(tmp_path, whole_run):
    checkpoint = last_intact_checkpoint(whole_run, processes=1)
    assert checkpoint.name == f"checkpoint-{killed_run.STEPS}"
    assert damage_of(checkpoint, processes=2)  # no random states of two processes
    torn = tmp_path / "checkpoint-99"
    torn.mkdir()
    assert last_intact_checkpoint(tmp_path, processes=1) is None
    (torn / "trainer_state.json").write_text('{"epoch": 1.0,')
    assert last_intact_checkpoint(tmp_path, processes=1) is None


def test_the_scripts_resume_from_the_last_intact_checkpoint(tmp_path, whole_run):
    args = ClarityTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert last_checkpoint(args, {}) is None
    for name in ("checkpoint-16", "checkpoint-18"):
        shutil.copytree(whole_run / name, tmp_path / name)
    (tmp_path / "checkpoint-18" / "trainer_state.json").unlink()  # written last
    assert Path(last_checkpoint(args, {})).name == "checkpoint-16"


# examples/train.py ---------------------------------------------------------------------------------------------------

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "class_attention_layers": 2,
    "cam_size": 16,
    "cam_groups": 4,
    "hidden_dropout_prob": 0.1,
}
EXAMPLE_SETTINGS = [
    *("--config", json.dumps(TINY), "--image_size", "32", "--phantom_count", "48", "--min_positives", "1"),
    *("--use_cpu", "--bf16", "False", "--per_device_eval_batch_size", "50", "--num_train_epochs", "3"),
    *("--eval_strategy", "no", "--load_best_model_at_end", "False", "--save_strategy", "steps", "--save_steps", "4"),
    *("--logging_steps", "1", "--learning_rate", "1e-3"),
]


def example(folder, batch_size, *settings):
    """Arguments of examples/train.py for 18 steps of 8 images."""
    return [EXAMPLE, "--output_dir", folder, "--per_device_train_batch_size", batch_size, *EXAMPLE_SETTINGS, *settings]


def curve(folder):
    """Logs of every step, without what a clock measures."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    timed = ("runtime", "per_second")
    logs = [{name: value for name, value in log.items() if not name.endswith(timed)} for log in history]
    return [log for log in logs if "loss" in log]


@pytest.fixture(scope="module")
def whole_example(tmp_path_factory):
    """Folder of examples/train.py, undisturbed in one process."""
    folder = tmp_path_factory.mktemp("example") / "run"
    launch(*example(folder, 8))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_resumes_after_a_kill_by_the_same_command(tmp_path, whole_example):
    folder, chance = tmp_path / "run", chosen_seed()
    step = chance.randint(5, 16)

    def steps_logged():
        return len(re.findall(r"'loss': ", (tmp_path / "output.txt").read_text(encoding="utf-8")))

    kill_when(lambda: steps_logged() >= step, example(folder, 8), tmp_path, delay=0.02)
    launch(*example(folder, 8))
    assert [log["step"] for log in curve(folder)] == list(range(1, 19))
    assert curve(folder) == curve(whole_example)
    assert_same_weights(*(load_file(each / "model.safetensors") for each in (whole_example, folder)), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_trains_in_two_processes_as_in_one(tmp_path):
    """Without dropout, which each process draws for itself."""
    folders = [tmp_path / "one", tmp_path / "two"]
    still = ("--config", json.dumps(TINY | {"hidden_dropout_prob": 0.0}))
    launch(*example(folders[0], 8, *still))
    launch(*TWO_PROCESSES, *example(folders[1], 4, *still, "--ddp_backend", "gloo"))
    assert len(curve(folders[0])) == 18
    for one, two in zip(*(curve(folder) for folder in folders), strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], abs=2e-3), (one["step"], name)
    one, two = (load_file(folder / "model.safetensors") for folder in folders)
    assert_same_weights(one, two, rtol=1e-3, atol=1e-4)
