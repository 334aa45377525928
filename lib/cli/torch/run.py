"""Runs plan.csv in PyTorch: checks its gradients against one full-batch pass, then times it beside PyTorch's own 1F1B.

    python run.py                        # starts one process a rank, on this machine
    torchrun --nproc-per-node N run.py   # or under torchrun, on one machine or several
    python run.py --help

The model is a stack of linear layers. For one of your own write a file with the three functions below (stage, batch, loss)
and give it: python run.py --model mine.py

What loads the file, PyTorch's _PipelineScheduleRuntime, begins with an underscore and may change. Needs PyTorch 2.15, where
this was tried, or a version that has the same names.
"""

import argparse
import importlib.util
import os
import socket
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, schedules


# ---- The model: replace these three. ----------------------------------------------------------------------------------


def stage(index, stages, options):
    """The module of one stage of so many. Equal calls must give equal parameters: the check builds each stage twice."""
    layers = options.layers // stages + (index < options.layers % stages)
    torch.manual_seed(1000 + index)
    parts = [part for _ in range(layers) for part in (nn.Linear(options.width, options.width), nn.GELU())]
    return nn.Sequential(*parts)


def batch(samples, options):
    """Inputs of the first stage and targets of the loss, the same on every rank. Both are cut along dimension 0."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(samples, options.width, generator=generator) for _ in range(2))


def loss(output, target):
    """Of one micro-batch, a mean over its samples: PyTorch then takes the mean over the micro-batches."""
    return nn.functional.mse_loss(output, target)


# ---- The schedule. ----------------------------------------------------------------------------------------------------


def facts(path):
    """What the file says: ranks, stages, micro-batches, and which rank has which stage."""
    with open(path) as file:
        rows = [[schedules._Action.from_str(cell) for cell in line.strip().split(",") if cell] for line in file]
    rank_of = {action.stage_index: rank for rank, row in enumerate(rows) for action in row}
    microbatches = 1 + max(a.microbatch_index for row in rows for a in row if a.microbatch_index is not None)
    has_transfers = any(not action.is_compute_op for row in rows for action in row)
    return len(rows), microbatches, [rank_of[each] for each in range(len(rank_of))], has_transfers


def from_file(path, rank, device, model, options):
    """The schedule of the file, with this rank's stages."""
    _, microbatches, placement, has_transfers = facts(path)
    mine = [index for index, at in enumerate(placement) if at == rank]
    modules = [model.stage(index, len(placement), options).to(device) for index in mine]
    made = [PipelineStage(module, index, len(placement), device) for index, module in zip(mine, modules)]
    runtime = schedules._PipelineScheduleRuntime(made, microbatches, loss_fn=model.loss)
    # A file with SEND and RECV is taken as it is; to any other PyTorch adds its own.
    runtime._load_csv(str(path), format="compute_comms" if has_transfers else "compute_only")
    return runtime, dict(zip(mine, modules))


def baseline(ranks, microbatches, rank, device, model, options):
    """PyTorch's 1F1B with one stage a rank, of the same layers. It wants as many micro-batches as ranks: else GPipe."""
    module = model.stage(rank, ranks, options).to(device)
    kind = Schedule1F1B if microbatches >= ranks else ScheduleGPipe
    return kind(PipelineStage(module, rank, ranks, device), microbatches, loss_fn=model.loss), {rank: module}


def step(schedule, modules, inputs, targets, stages):
    """One training step without an optimizer."""
    for module in modules.values():
        module.zero_grad(set_to_none=True)
    arguments = (inputs,) if 0 in modules else ()
    schedule.step(*arguments, target=targets if stages - 1 in modules else None, return_outputs=False)


def difference(modules, inputs, targets, stages, device, model, options):
    """The largest difference of a gradient from that of one pass over the whole batch, over the largest gradient beside it."""
    whole = [model.stage(index, stages, options).to(device) for index in range(stages)]
    model.loss(nn.Sequential(*whole)(inputs), targets).backward()
    worst = 0.0
    for index, module in modules.items():
        for (name, ours), theirs in zip(module.named_parameters(), whole[index].parameters()):
            if not ours.requires_grad:
                continue
            if ours.grad is None:
                raise SystemExit(f"stage {index}: {name} has no gradient")
            largest = theirs.grad.abs().max().item()
            grad = ours.grad.full_tensor() if hasattr(ours.grad, "full_tensor") else ours.grad  # of FSDP: all of it
            gap = (grad - theirs.grad).abs().max().item()
            worst = max(worst, gap if gap != gap else gap / (largest or 1.0))
    return worst


# ---- One process a rank. ----------------------------------------------------------------------------------------------


def timed(run, device):
    """Milliseconds of a step, from a common start to the end of the slowest rank."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    dist.barrier()
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    took = torch.tensor([1e3 * (time.perf_counter() - start)], dtype=torch.float64, device=device)
    dist.all_reduce(took, op=dist.ReduceOp.MAX)
    return took.item()


def spread(values):
    """Median and quartiles."""
    middle = statistics.median(values)
    if len(values) < 2:
        return middle, middle, middle
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def work(rank, options):
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    if options.backend == "nccl":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(device)
    ranks, microbatches, placement, has_transfers = facts(options.plan)
    dist.init_process_group(options.backend, rank=rank, world_size=ranks)
    model = load(options.model)
    inputs, targets = (each.to(device) for each in model.batch(microbatches * options.samples, options))
    plan, plan_modules = from_file(options.plan, rank, device, model, options)
    own, own_modules = baseline(ranks, microbatches, rank, device, model, options)
    run_plan = lambda: step(plan, plan_modules, inputs, targets, len(placement))
    run_own = lambda: step(own, own_modules, inputs, targets, ranks)

    run_plan()
    gap = difference(plan_modules, inputs, targets, len(placement), device, model, options)
    worst = torch.tensor([gap if gap == gap else float("inf")], dtype=torch.float64, device=device)
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    run_own()
    run_plan()  # the second step of each is warm
    run_own()
    pairs = []
    for index in range(options.pairs):
        # In turn, each first in every other pair: what changes on the machine meets both.
        first, second = (run_plan, run_own) if index % 2 else (run_own, run_plan)
        times = [timed(first, device), timed(second, device)]
        pairs.append(times if index % 2 == 0 else times[::-1])
    if rank == 0:
        report(pairs, worst.item(), (ranks, len(placement), microbatches, has_transfers), type(own).__name__, options)
    dist.barrier()
    dist.destroy_process_group()
    if not worst.item() <= options.tolerance:
        sys.exit(1)


def report(pairs, worst, sizes, own, options):
    ranks, stages, microbatches, has_transfers = sizes
    form = "with transfers" if has_transfers else "compute only"
    print(
        f"{options.plan.name}: {ranks} ranks, {stages} stages, {microbatches} micro-batches, {form}; "
        f"PyTorch {torch.__version__}, {options.backend}"
    )
    rows = [("schedule", "step ms (quartiles)", f"gain over {own[8:]} (quartiles)", "gradients off by")]
    ratios = [theirs / ours for theirs, ours in pairs]
    cell = lambda values, digits: "{0:.{d}f} ({1:.{d}f} to {2:.{d}f})".format(*spread(values), d=digits)
    if pairs:
        rows.append((f"PyTorch's {own[8:]}", cell([theirs for theirs, _ in pairs], 1), "1", ""))
    times = (cell([ours for _, ours in pairs], 1), cell(ratios, 3)) if pairs else ("", "")
    rows.append((options.plan.name, *times, f"{worst:.1e}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    if not worst <= options.tolerance:
        print(f"The gradients are NOT those of a full-batch pass: off by {worst:.1e}, more than {options.tolerance}")


def load(path):
    """The functions of a file of the user's, or those above."""
    if path is None:
        return sys.modules[__name__]
    spec = importlib.util.spec_from_file_location("model_of_the_user", path)
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("--plan", type=Path, default=here / "plan.csv", help="the schedule (default: plan.csv beside this)")
    parser.add_argument("--model", type=Path, help="a file with stage, batch and loss (default: linear layers)")
    parser.add_argument("--layers", type=int, help="linear layers in all (default: two a stage)")
    parser.add_argument("--width", type=int, default=512, help="features of a layer (default: 512)")
    parser.add_argument("--samples", type=int, default=128, help="samples of a micro-batch (default: 128)")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs of steps, 0 for gradients alone (default: 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default: 1)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of gradients, relative (default: 1e-4)")
    parser.add_argument("--backend", choices=["gloo", "nccl"], help="default: nccl where each rank has a GPU, else gloo")
    options = parser.parse_args()
    if not options.plan.is_file():
        parser.error(f"there is no file {options.plan}")
    ranks, _, placement, _ = facts(options.plan)
    if options.layers is None:
        options.layers = 2 * len(placement)
    if options.layers < len(placement):
        parser.error(f"--layers must be {len(placement)} or more, one for each stage")
    if options.backend is None:
        options.backend = "nccl" if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) else "gloo"
    if "RANK" in os.environ:
        if int(os.environ["WORLD_SIZE"]) != ranks:
            parser.error(f"{options.plan.name} is for {ranks} ranks, and torchrun started {os.environ['WORLD_SIZE']}")
        work(int(os.environ["RANK"]), options)
        return
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, options), daemon=True) for rank in range(ranks)]
    for process in processes:
        process.start()
    # One that fails leaves the others waiting: they are ended with it.
    while any(process.is_alive() for process in processes):
        if any(process.exitcode not in (None, 0) for process in processes):
            for process in processes:
                process.join(timeout=5)
                process.terminate()
            break
        time.sleep(0.05)
    for process in processes:
        process.join()
    sys.exit(0 if all(process.exitcode == 0 for process in processes) else 1)


if __name__ == "__main__":
    main()
