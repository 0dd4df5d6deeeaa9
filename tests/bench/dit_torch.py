#!/usr/bin/env python3
"""DiT forward and training step: Sluice against PyTorch, eager and compiled, on the CPU, in turn, on the same weights and inputs.

  pip install torch numpy; tests/bench/dit_torch.py [--model S|B|L|XL|quickstart] [--batch 8] [--compile] [--threads 2] [--pairs 12] [--sluice build/sluice]

The peer is as strong as eager PyTorch gets: scaled_dot_product_attention, fused AdamW, foreach EMA, the same loss (hybrid, MSE
and the variational bound; for the quickstart its weighted error of x0), gradients, clipping where the recipe has it, and EMA on both sides.
Prints the median of the paired ratios with its spread, and both errors against float64.
"""
import argparse, copy, json, math, statistics, struct, subprocess, sys, tempfile, time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SIZES = dict(S=(384, 12, 6), B=(768, 12, 12), L=(1024, 24, 16), XL=(1152, 28, 16), quickstart=(128, 4, 4))
FORMS = dict(latents=(4, 32, 2, 1000, 8), quickstart=(1, 28, 7, 10, 1))  # channels, side, patch, classes, channels out


def read_safetensors(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    head.pop("__metadata__", None)
    dtype = {"F32": np.float32, "I64": np.int64}
    out = {}
    for k, v in head.items():
        a, b = v["data_offsets"]
        out[k] = torch.from_numpy(np.frombuffer(raw[8 + n + a:8 + n + b], dtype[v["dtype"]]).reshape(v["shape"]).copy())
    return out


def masks(d, alpha=4.0, beta=0.8, steps=1000):
    width = int(d * beta)
    m = torch.zeros(steps, d)
    for i in range(steps):
        x = 1.0 if i == steps - 1 else i * (1.0 / (steps - 1))
        s = round(x**alpha * (d - width))
        m[i, s:s + width] = 1
    return m


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(d, 3 * d), nn.Linear(d, d), heads

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.d, self.attn, self.mlp = d, Attention(d, heads), Mlp(d)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))

    def norm(self, x, shift, scale):
        return F.layer_norm(x, (self.d,), eps=1e-6) * (1 + scale) + shift

    def forward(self, z, c, m):
        s1, k1, g1, s2, k2, g2 = self.adaLN_modulation[1](c)[:, None].chunk(6, 2)
        r = z * m
        r = r + g1 * self.attn(self.norm(r, s1, k1))
        r = r + g2 * self.mlp(self.norm(r, s2, k2))
        return r + (1 - m) * z


class DiT(nn.Module):
    def __init__(self, size):
        super().__init__()
        d, depth, heads = SIZES[size]
        channels, side, patch, classes, out = self.form = FORMS.get(size, FORMS["latents"])
        self.d = d
        self.x_embedder = nn.ModuleDict(dict(proj=nn.Conv2d(channels, d, patch, patch)))
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch)**2, d), requires_grad=False)
        self.t_embedder = nn.ModuleDict(dict(mlp=nn.Sequential(nn.Linear(256, d), nn.SiLU(), nn.Linear(d, d))))
        self.y_embedder = nn.ModuleDict(dict(embedding_table=nn.Embedding(classes + 1, d)))
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.final_layer = nn.ModuleDict(dict(linear=nn.Linear(d, patch * patch * out), adaLN_modulation=nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))))
        self.register_buffer("mask", masks(d), persistent=False)
        freq = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        self.register_buffer("freq", freq, persistent=False)

    def forward(self, x, t, y):
        h = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        q = t[:, None].to(self.freq.dtype) * self.freq
        c = self.t_embedder.mlp(torch.cat([q.cos(), q.sin()], 1)) + self.y_embedder.embedding_table(y)
        a, m = F.silu(c), self.mask[t][:, None]
        for b in self.blocks:
            h = b(h, a, m)
        s, k = self.final_layer.adaLN_modulation[1](a)[:, None].chunk(2, 2)
        o = self.final_layer.linear(F.layer_norm(h, (self.d,), eps=1e-6) * (1 + k) + s)
        _, side, p, _, out = self.form
        return o.view(-1, side // p, side // p, p, p, out).permute(0, 5, 1, 3, 2, 4).reshape(-1, out, side, side)


class Process:
    """Cosine schedule. eps and learned variance: the hybrid loss of the DTR repo; or x0 with the weight min(snr + 1, 5)."""

    def __init__(self, x0):
        f = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2)**2
        betas = np.array([min(1 - f((i + 1) / 1000) / f(i / 1000), 0.999) for i in range(1000)])
        a = np.cumprod(1 - betas)
        prev = np.append(1.0, a[:-1])
        var = betas * (1 - prev) / (1 - a)
        table = lambda v: torch.tensor(v, dtype=torch.float32)
        self.sa, self.sb = table(np.sqrt(a)), table(np.sqrt(1 - a))
        self.ra, self.rb = table(np.sqrt(1 / a)), table(np.sqrt(1 / a - 1))
        self.log_beta, self.log_var = table(np.log(betas)), table(np.log(np.append(var[1], var[1:])))
        self.c1, self.c2 = table(betas * np.sqrt(prev) / (1 - a)), table((1 - prev) * np.sqrt(1 - betas) / (1 - a))

        self.weight = table(np.minimum(a / (1 - a) + 1, 5)) if x0 else None

    def loss(self, net, x0, t, y, noise):
        at = lambda v: v[t][:, None, None, None]
        xt = at(self.sa) * x0 + at(self.sb) * noise
        if self.weight is not None:
            return (self.weight[t] * ((x0 - net(xt, t, y))**2).mean((1, 2, 3))).mean()
        eps, v = net(xt, t, y).chunk(2, 1)
        x = at(self.ra) * xt - at(self.rb) * eps.detach()
        mean, true = at(self.c1) * x + at(self.c2) * xt, at(self.c1) * x0 + at(self.c2) * xt
        f = (v + 1) / 2
        log2, log1 = f * at(self.log_beta) + (1 - f) * at(self.log_var), at(self.log_var)
        kl = (-1 + log2 - log1 + (log1 - log2).exp() + (true - mean)**2 * (-log2).exp()) / 2
        cdf = lambda z: (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2
        inv, centred = (-log2 / 2).exp(), x0 - mean
        up, down = cdf(inv * (centred + 1 / 255)), cdf(inv * (centred - 1 / 255))
        log = lambda p: p.clamp(min=1e-12).log()
        nll = -torch.where(x0 < -0.999, log(up), torch.where(x0 > 0.999, log(1 - down), log(up - down)))
        vb = torch.where(t == 0, nll.mean((1, 2, 3)), kl.mean((1, 2, 3))) / math.log(2)
        return (((noise - eps)**2).mean((1, 2, 3)) + vb).mean()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="S")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--pairs", type=int, default=12)
    p.add_argument("--sluice", default="build/sluice")
    p.add_argument("--profile", action="store_true")
    p.add_argument("--compile", action="store_true", help="also time the peer under torch.compile")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    worker = subprocess.Popen([o.sluice, "run", "tests/bench/dit_worker.lua"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env={**__import__("os").environ, "OMP_NUM_THREADS": str(o.threads)})

    def ask(line):
        worker.stdin.write(line + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline().strip()
        if not answer:
            sys.exit("the sluice worker stopped")
        return answer

    folder = tempfile.mkdtemp()
    quick = o.model == "quickstart"
    ask(f"setup {o.model if quick else f'DiT-{o.model}/2'} {o.batch} {folder}/weights.safetensors")
    data = read_safetensors(f"{folder}/weights.safetensors")
    inputs = {k[3:]: data.pop(k) for k in list(data) if k.startswith("in.")}
    x, t, y, noise = (inputs[k] for k in ("x", "t", "y", "noise"))
    net = DiT(o.model)
    missing, unexpected = net.load_state_dict(data, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        exact.freq = net.freq.double()
        truth = exact(x.double(), t, y)
        peer = net(x, t, y)
    ask("forward")
    ask(f"output {folder}/out.safetensors")
    mine = read_safetensors(f"{folder}/out.safetensors")["out"]
    rel = lambda a: ((a.double() - truth).norm() / truth.norm()).item()
    blas = "MKL" if torch.backends.mkl.is_available() else "not MKL"
    print(f"torch {torch.__version__} (BLAS: {blas}, oneDNN {torch.backends.mkldnn.is_available()}, "
          f"{torch.backends.cpu.get_cpu_capability()}), {o.threads} threads, {o.model if quick else f'DiT-{o.model}/2'}, batch {o.batch}, f32")
    print(f"error against float64: sluice {rel(mine):.2e}, torch {rel(peer):.2e}")

    ema = copy.deepcopy(net).requires_grad_(False)
    trained = [q for q in net.parameters() if q.requires_grad]
    opt = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0, fused=True)
    process = Process(quick)
    peers = {"eager": (net, process.loss)}
    if o.compile:
        peers["compiled"] = (torch.compile(net), torch.compile(process.loss))

    def forward(net, _):
        with torch.no_grad():
            net(x, t, y)

    def train(net, loss_of):
        loss = loss_of(net, x, t, y, noise)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        if quick:
            torch.nn.utils.clip_grad_norm_(trained, 1)
        opt.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(peers["eager"][0].parameters()), 1e-4)

    for name, f in (("forward", forward), ("train", train)):
        ours, theirs = [], {k: [] for k in peers}
        for i in range(o.pairs + 2):
            a = float(ask(name))
            if i >= 2:
                ours.append(a)
            for k, peer in peers.items():
                start = time.perf_counter()
                f(*peer)
                if i >= 2:
                    theirs[k].append(time.perf_counter() - start)
        for k, times in theirs.items():
            ratio = sorted(b / a for a, b in zip(ours, times))
            q = statistics.quantiles(ratio, n=4)
            print(f"{name}: sluice {statistics.median(ours) * 1e3:.2f} ms ({o.batch / statistics.median(ours):.1f} images/s), "
                  f"torch {k} {statistics.median(times) * 1e3:.2f} ms, torch/sluice {statistics.median(ratio):.3f} "
                  f"(quartiles {q[0]:.3f} to {q[2]:.3f}, {len(ratio)} pairs)", flush=True)
    if o.profile:
        line = ask("profile")
        while line != "end":
            op, seconds, calls = line.split()
            print(f"  {op:28s} {float(seconds) * 1e3:9.2f} ms {calls:>6s} calls")
            line = worker.stdout.readline().strip()
    worker.stdin.close()


if __name__ == "__main__":
    main()
