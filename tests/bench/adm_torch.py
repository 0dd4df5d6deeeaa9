#!/usr/bin/env python3
"""ADM forward, training step and guided sampling: Sluice against PyTorch, eager and compiled, in turn, on the same weights and inputs.

  pip install torch numpy; tests/bench/adm_torch.py [--model ADM-32|ADM-64] [--batch 16] [--only forward] [--compile] [--threads 2] [--pairs 12]
                            [--sluice build/sluice]
  tests/bench/adm_torch.py --device cuda … as tests/bench/dit_torch.py does

ADM-32 is a small model for 32 x 32 images (64 base channels), ADM-64 the paper's and guided-diffusion's 64 x 64 model: time its forward with
--batch 1 --only forward. Both with task routing. The peer is as strong as eager PyTorch gets: channels_last, scaled_dot_product_attention, fused AdamW, foreach
EMA; attention is not recomputed, as guided-diffusion does. Sampling: six ancestral steps with guidance.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import peer
import sides

# side, base channels, blocks, multipliers, sides with attention, channels of a head, dropout
MODELS = {"ADM-32": (32, 64, 2, (1, 2, 2), (16, 8), 32, 0.1), "ADM-64": (64, 192, 3, (1, 2, 3, 4), (32, 16, 8), 64, 0.1)}
CLASSES = {"ADM-32": 10, "ADM-64": 1000}


class Res(nn.Module):
    def __init__(self, c, out, width, dropout, resample=None):
        super().__init__()
        self.resample = resample or (lambda x: x)
        self.in_layers = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * out))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if c == out else nn.Conv2d(c, out, 1)
        self.register_buffer("mask", peer.masks(c), persistent=False)

    def forward(self, x, emb, t):
        h = F.silu(self.in_layers[0](x)) * self.mask[t][:, :, None, None]
        h = self.in_layers[2](self.resample(h))
        scale, shift = self.emb_layers[1](emb)[:, :, None, None].chunk(2, 1)
        h = F.silu(self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(self.resample(x)) + self.out_layers[3](self.out_layers[2](h))


class Attention(nn.Module):
    def __init__(self, c, head):
        super().__init__()
        self.head = head
        self.norm, self.qkv, self.proj_out = nn.GroupNorm(32, c), nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1)
        self.register_buffer("mask", peer.masks(c), persistent=False)

    def forward(self, x, emb, t):
        n, c, height, width = x.shape
        z = (self.norm(x) * self.mask[t][:, :, None, None]).permute(0, 2, 3, 1).reshape(n, height * width, c)
        q, k, v = F.linear(z, self.qkv.weight[:, :, 0], self.qkv.bias).view(n, -1, 3, c // self.head, self.head).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c)
        a = F.linear(a, self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + a.view(n, height, width, c).permute(0, 3, 1, 2)


class Block(nn.ModuleList):
    def forward(self, x, emb, t):
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, emb, t)
        return x


class ADM(nn.Module):
    def __init__(self, name):
        super().__init__()
        side, base, blocks, mult, attend, head, dropout = MODELS[name]
        width, self.null = 4 * base, CLASSES[name]
        self.time_embed = nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))
        self.label_emb = nn.Embedding(self.null + 1, width)
        self.register_buffer("freq", torch.exp(-math.log(10000) * torch.arange(base // 2, dtype=torch.float32) / (base // 2)), persistent=False)
        down, up = (lambda x: F.avg_pool2d(x, 2)), (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"))
        res = lambda c, out, f=None: Res(c, out, width, dropout, f)
        c, skips = base, [base]
        self.input_blocks = nn.ModuleList([Block([nn.Conv2d(3, base, 3, padding=1)])])
        for level, m in enumerate(mult):
            for _ in range(blocks):
                self.input_blocks.append(Block([res(c, m * base)] + [Attention(m * base, head)] * (side >> level in attend)))
                c = m * base
                skips.append(c)
            if level < len(mult) - 1:
                self.input_blocks.append(Block([res(c, c, down)]))
                skips.append(c)
        self.middle_block = Block([res(c, c), Attention(c, head), res(c, c)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(mult))):
            for i in range(blocks + 1):
                layers = [res(c + skips.pop(), mult[level] * base)]
                c = mult[level] * base
                layers += [Attention(c, head)] * (side >> level in attend)
                layers += [res(c, c, up)] * (level > 0 and i == blocks)
                self.output_blocks.append(Block(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, 6, 3, padding=1))

    def forward(self, x, t, y):
        q = t[:, None].to(self.freq.dtype) * self.freq
        emb = F.silu(self.time_embed(torch.cat([q.cos(), q.sin()], 1)) + self.label_emb(y))
        skips = []
        for b in self.input_blocks:
            x = b(x, emb, t)
            skips.append(x)
        x = self.middle_block(x, emb, t)
        for b in self.output_blocks:
            x = b(torch.cat([x, skips.pop()], 1), emb, t)
        return self.out(x)


def main():
    o = peer.options([*MODELS], "ADM-32", 16)
    if o.sides:
        return sides.main(o, lambda: ADM(o.model), o.model, None)
    peer.run(o, lambda: ADM(o.model).eval(), o.model, ("forward", "train", "sample"), channels_last=True)


if __name__ == "__main__":
    main()
