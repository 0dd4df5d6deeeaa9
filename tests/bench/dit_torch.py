#!/usr/bin/env python3
"""DiT's training step, forward pass and guided sampling: Sluice against PyTorch, eager and compiled, in turn, on the same weights and
inputs.

  pip install torch numpy; tests/bench/dit_torch.py [--model S|B|L|XL|quickstart] [--batch 8] [--compile] [--threads 2] [--pairs 12]
                            [--sluice build/sluice]                     on the CPU in float32: forward and training step
  tests/bench/dit_torch.py --device cuda [--model S] [--batch 256] [--precision bf16] [--residual f32] [--what train,forward,sample]
                            [--compile MODE ...] [--no-eager] [--pairs 20] [--apart] [--losses] [--json FILE]
                            [--mask-cost | --cold]                      on a GPU, or with --precision and the like on the CPU: sides.py

The peer is as strong as eager PyTorch gets: scaled_dot_product_attention, fused AdamW, foreach EMA, the same loss (hybrid, MSE
and the variational bound; for the quickstart its weighted error of x0), gradients, clipping where the recipe has it, and EMA on both sides.
Prints the median of the paired ratios with its spread, and both errors against float64.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import peer
import sides

SIZES = dict(S=(384, 12, 6), B=(768, 12, 12), L=(1024, 24, 16), XL=(1152, 28, 16), quickstart=(128, 4, 4))
FORMS = dict(latents=(4, 32, 2, 1000, 8), quickstart=(1, 28, 7, 10, 1))  # channels, side, patch, classes, channels out


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
        self.d, self.null, self.heads = d, classes, heads
        self.residual = None  # dtype of the stream between blocks; None: as the arithmetic gives it
        self.x_embedder = nn.ModuleDict(dict(proj=nn.Conv2d(channels, d, patch, patch)))
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch)**2, d), requires_grad=False)
        self.t_embedder = nn.ModuleDict(dict(mlp=nn.Sequential(nn.Linear(256, d), nn.SiLU(), nn.Linear(d, d))))
        self.y_embedder = nn.ModuleDict(dict(embedding_table=nn.Embedding(classes + 1, d)))
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.final_layer = nn.ModuleDict(dict(linear=nn.Linear(d, patch * patch * out), adaLN_modulation=nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))))
        self.register_buffer("mask", peer.masks(d), persistent=False)
        freq = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        self.register_buffer("freq", freq, persistent=False)

    def forward(self, x, t, y):
        h = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        h = h if self.residual is None else h.to(self.residual)
        q = t[:, None].to(self.freq.dtype) * self.freq
        c = self.t_embedder.mlp(torch.cat([q.cos(), q.sin()], 1)) + self.y_embedder.embedding_table(y)
        a, m = F.silu(c), self.mask[t][:, None].to(h.dtype)
        for b in self.blocks:
            h = b(h, a, m)
        s, k = self.final_layer.adaLN_modulation[1](a)[:, None].chunk(2, 2)
        o = self.final_layer.linear(F.layer_norm(h, (self.d,), eps=1e-6) * (1 + k) + s)
        _, side, p, _, out = self.form
        return o.view(-1, side // p, side // p, p, p, out).permute(0, 5, 1, 3, 2, 4).reshape(-1, out, side, side)


def main():
    o = peer.options([*SIZES], "S")
    quick = o.model == "quickstart"
    name = o.model if quick else f"DiT-{o.model}/2"
    if not o.sides:
        return peer.run(o, lambda: DiT(o.model), name, ("forward", "train"), x0=quick, clip=1 if quick else 0)
    d, _, heads = SIZES[o.model]
    _, side, patch, *_ = FORMS.get(o.model, FORMS["latents"])
    sides.main(o, lambda: DiT(o.model), name, (heads, (side // patch)**2, d // heads), apart=o.model in ("L", "XL"), x0=quick)


if __name__ == "__main__":
    main()
