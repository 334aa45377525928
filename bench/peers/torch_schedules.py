"""Schedules in PyTorch's pipeline runtime: their gradients against one full-batch pass, and the times of their steps.

    python bench/peers/torch_schedules.py gradients [--sharded] FILE...   # of any numbers of ranks, both forms
    python bench/peers/torch_schedules.py times CONFIG.json               # what torch_schedules.ts writes

On the processor, gloo, one process a rank, one thread each. `times` runs all schedules of the file in turn, round by round,
PyTorch's own classes among them, and takes the times of F, I, W and B inside the stages of the same steps, where no wait
for a message is in them. What loads the files, `_PipelineScheduleRuntime`, may change: tried with PyTorch 2.15.
"""

import sys
from pathlib import Path

# Started as a script, this file's folder comes first on the path, and it has a torch.py.
here = Path(__file__).resolve().parent
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != here]

import argparse
import importlib.util
import json
import os
import socket
import statistics
import time
from collections import defaultdict
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, schedules
from torch.nn import functional

# The runner that `schedule export` writes: what reads a file, and what compares gradients.
spec = importlib.util.spec_from_file_location("run", here.parents[1] / "lib/cli/torch/run.py")
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


class Block(nn.Module):
    """A transformer block before its norms: attention, then an MLP of four times the width."""

    def __init__(self, width, heads=8):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        samples, length, width = x.shape
        q, k, v = (
            each.view(samples, length, self.heads, width // self.heads).transpose(1, 2)
            for each in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        context = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(context.transpose(1, 2).reshape(samples, length, width))
        return x + self.down(functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


def transformer(index, stages, options):
    blocks = options.layers // stages + (index < options.layers % stages)
    torch.manual_seed(1000 + index)
    return nn.Sequential(*(Block(options.width) for _ in range(blocks)))


def sequences(samples, options):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(samples, options.length, options.width, generator=generator) for _ in range(2))


MODELS = {
    "mlp": run,
    "transformer": SimpleNamespace(stage=transformer, batch=sequences, loss=run.loss),
}


class Clock:
    """What the calls of F, I, W and B of a stage take, in milliseconds, by schedule, stage and kind."""

    def __init__(self):
        self.times = defaultdict(list)
        self.running = None

    def watch(self, name, stage):
        def timed(kind_of, call):
            def run_timed(*args, **kwargs):
                start = time.perf_counter()
                result = call(*args, **kwargs)
                if self.running == name:
                    kind = kind_of(kwargs)
                    self.times[f"{stage.stage_index} {kind}"].append(1e3 * (time.perf_counter() - start))
                return result

            return run_timed

        stage.forward_one_chunk = timed(lambda _: "f", stage.forward_one_chunk)
        stage.backward_one_chunk = timed(
            lambda kwargs: "b" if kwargs.get("full_backward", True) else "i", stage.backward_one_chunk
        )
        stage.backward_weight_one_chunk = timed(lambda _: "w", stage.backward_weight_one_chunk)

    def take(self):
        medians = {key: statistics.median(values) for key, values in self.times.items()}
        self.times.clear()
        return medians


def own(kind, microbatches, ranks, rank, device, model, options):
    """A schedule of PyTorch's own classes, on two stages a rank where it is ZBVZeroBubble."""
    if kind == "ZBVZeroBubble":
        stages, mine = 2 * ranks, [rank, 2 * ranks - 1 - rank]
        modules = [model.stage(index, stages, options) for index in mine]
        made = [PipelineStage(module, index, stages, device) for index, module in zip(mine, modules)]
        return schedules.ScheduleZBVZeroBubble(made, microbatches, loss_fn=model.loss), dict(zip(mine, modules)), stages
    module = model.stage(rank, ranks, options)
    made = PipelineStage(module, rank, ranks, device)
    return {"1F1B": Schedule1F1B, "GPipe": ScheduleGPipe}[kind](made, microbatches, loss_fn=model.loss), {rank: module}, ranks


def measure(rank, config):
    """All schedules of the configuration, round by round, each round in another order."""
    torch.set_num_threads(1)
    device, ranks = torch.device("cpu"), config["ranks"]
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    options = SimpleNamespace(**config)
    model = MODELS[config["model"]]
    clock, contenders = Clock(), {}
    for name, entry in config["schedules"].items():
        path, microbatches = entry["path"], entry["microbatches"]
        inputs, targets = model.batch(microbatches * config["samples"], options)
        if path.startswith("own:"):
            schedule, modules, stages = own(path[4:], microbatches, ranks, rank, device, model, options)
        else:
            schedule, modules = run.from_file(path, rank, device, model, options)
            stages = len(run.facts(path)[2])
        for stage in getattr(schedule, "_stages", None) or [schedule._stage]:
            clock.watch(name, stage)
        contenders[name] = lambda s=schedule, m=modules, n=stages, x=inputs, y=targets: run.step(s, m, x, y, n)
    for name, step in contenders.items():
        step()
        step()  # the second is warm
    steps, inside = defaultdict(list), defaultdict(list)
    names = list(contenders)
    for index in range(config["rounds"]):
        turned = names[index % len(names) :] + names[: index % len(names)]
        for name in turned if index % 2 == 0 else turned[::-1]:
            clock.running = name
            steps[name].append(run.timed(contenders[name], device))
            inside[name].append(clock.take())
        clock.running = None
        for name, folder in config["traces"].items():
            # What a user has: traces of steps that are marked. Some in every round, so that they see what the steps see.
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                for _ in range(config["traced"]):
                    dist.barrier()
                    contenders[name]()
                    profiler.step()
            profiler.export_chrome_trace(f"{folder}/{index}-{rank}.json")
    everybody = [None] * ranks
    dist.all_gather_object(everybody, {name: rounds for name, rounds in inside.items()})
    if rank == 0:
        # By round: the times of all stages, wherever they ran.
        merged = {
            name: [{k: v for each in everybody for k, v in each[name][i].items()} for i in range(config["rounds"])]
            for name in names
        }
        Path(config["out"]).write_text(json.dumps({"torch": torch.__version__, "steps": steps, "inside": merged}))
    dist.barrier()
    dist.destroy_process_group()


def compare(rank, config):
    """The gradients of files of one number of ranks; sharded, with two replicas of each stage that share its parameters."""
    torch.set_num_threads(1)
    options, device = SimpleNamespace(width=64, samples=4), torch.device("cpu")
    ranks, paths, replicas = config["ranks"], config["paths"], 2 if config["sharded"] else 1
    dist.init_process_group("gloo", rank=rank, world_size=ranks * replicas)
    mesh = init_device_mesh("cpu", (ranks, replicas), mesh_dim_names=("pipeline", "data"))
    place = mesh["pipeline"].get_local_rank()
    for path in paths:
        _, microbatches, placement, has_transfers = run.facts(path)
        stages = len(placement)
        options.layers = 2 * stages
        inputs, targets = run.batch(microbatches * options.samples, options)
        modules = {index: run.stage(index, stages, options) for index, at in enumerate(placement) if at == place}
        if config["sharded"]:
            for module in modules.values():
                fully_shard(module, mesh=mesh["data"])
        group = mesh["pipeline"].get_group()
        made = [PipelineStage(module, index, stages, device, group=group) for index, module in modules.items()]
        runtime = schedules._PipelineScheduleRuntime(made, microbatches, loss_fn=run.loss)
        runtime._load_csv(str(path), format="compute_comms" if has_transfers else "compute_only")
        run.step(runtime, modules, inputs, targets, stages)
        gap = run.difference(modules, inputs, targets, stages, device, run, options)
        worst = torch.tensor([gap if gap == gap else float("inf")], dtype=torch.float64)
        dist.all_reduce(worst, op=dist.ReduceOp.MAX)
        if rank == 0:
            form = "with transfers" if has_transfers else "compute only"
            sharded = ", FSDP on two replicas" if config["sharded"] else ""
            print(f"{worst.item():.1e}  {Path(path).name}, {form}, {ranks} ranks, {stages} stages{sharded}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def spawn(target, ranks, argument):
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    torch.multiprocessing.start_processes(target, (argument,), nprocs=ranks, start_method="fork")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    gradients = commands.add_parser("gradients", help="compares them with one full-batch pass, file by file")
    gradients.add_argument("--sharded", action="store_true", help="FSDP stages: twice as many processes")
    gradients.add_argument("files", nargs="+")
    commands.add_parser("times", help="what torch_schedules.ts asks for").add_argument("config")
    options = parser.parse_args()
    if options.command == "times":
        config = json.loads(Path(options.config).read_text())
        spawn(measure, config["ranks"], config)
        return
    by_ranks = defaultdict(list)
    for path in options.files:
        by_ranks[run.facts(path)[0]].append(path)
    for ranks, paths in sorted(by_ranks.items()):
        processes = 2 * ranks if options.sharded else ranks
        spawn(compare, processes, {"ranks": ranks, "paths": paths, "sharded": options.sharded})


if __name__ == "__main__":
    main()
