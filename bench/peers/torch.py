"""The training step and the products of bench/peers in PyTorch, on the processor and on CUDA where there is one.

Prints JSON rows like those of `deno task bench peers`. Float32 without TF32, eager; with --half products in
float16 as well.

    python bench/peers/torch.py [--threads 1] [--repeats 21] [--sizes 512x512x512,...] [--best] [--half]
"""

import sys
from pathlib import Path

# Started as a script, this file's folder comes first on the path, and the file is called torch.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse
import json
import platform
import time

import torch
from torch import nn
from torch.nn import functional

# As in gpt.ts.
VOCABULARY, WIDTH, BLOCKS, HEADS, HIDDEN, LENGTH, BATCH, RATE = 256, 128, 2, 4, 512, 64, 8, 1e-3
# As in command.ts: rows, columns, inner dimension.
SIZES = "512x512x512,1024x1024x1024,512x384x128,512x128x128,512x704x128,512x128x352,512x256x128"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        q, k, v = (
            each.view(BATCH, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
            for each in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        context = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(context.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))
        return x + self.down(functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.kind = nn.Embedding(1, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids):
        positions = torch.arange(LENGTH, device=ids.device)
        x = self.token(ids) + self.position(positions) + self.kind.weight[0]
        return self.head(self.norm(self.blocks(x)))


def times(run, device, repeats):
    """Milliseconds of each run, to the moment when the device has finished."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        run()
    wait()
    measured = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        wait()
        measured.append(1000 * (time.perf_counter() - start))
    return measured


def row(job, device, measured, **more):
    ordered = torch.tensor(measured, dtype=torch.float64)
    quartiles = torch.quantile(ordered, torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)).tolist()
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "job": job,
        "contender": f"PyTorch {torch.__version__}, {name}",
        "ms": {"median": quartiles[0], "quartiles": quartiles[1:], "min": min(measured)},
        "runs": len(measured),
        **more,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default 1, like the peers)")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--sizes", default=SIZES, help="of the products, MxNxK")
    parser.add_argument("--best", action="store_true", help="not on the processor where there is CUDA")
    parser.add_argument("--half", action="store_true", help="products in float16 besides, with CUDA")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    rows = []
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices[-1:] if options.best else devices:
        dtypes = [torch.float32, torch.float16] if options.half and device == "cuda" else [torch.float32]
        for size, dtype in [(size, dtype) for size in options.sizes.split(",") for dtype in dtypes]:
            m, n, k = map(int, size.split("x"))
            a, b = torch.rand(m, k, device=device).to(dtype), torch.rand(k, n, device=device).to(dtype)
            inner = max(1, round((2**32 if device == "cuda" else 2**27) / (m * n * k)))  # so that waiting does not count
            measured = [t / inner for t in times(lambda: [a @ b for _ in range(inner)], device, options.repeats)]
            rate = 2e-6 * m * n * k / sorted(measured)[len(measured) // 2]
            job = f"matmul {size}" + (" f16" if dtype == torch.float16 else "")
            rows.append(row(job, device, measured, gflops=rate))
        torch.manual_seed(1)
        model = Gpt().to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        ids = torch.randint(VOCABULARY, (BATCH, LENGTH + 1), device=device)
        losses = []

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(model(ids[:, :-1]).view(-1, VOCABULARY), ids[:, 1:].reshape(-1))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

        measured = times(step, device, options.repeats)
        rows.append(row("training step", device, measured, loss=[losses[0], losses[-1]]))
    print(json.dumps({"schema": 1, "threads": options.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
