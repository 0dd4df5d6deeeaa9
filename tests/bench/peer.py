"""What the PyTorch peers share: files, masks, the process, options, and the driver that times Sluice and PyTorch's eager mode in turn on
the CPU, on the same weights and inputs. GPUs, precisions, modes of torch.compile and whole processes: torch_side.py and sides.py."""
import argparse, copy, json, math, os, statistics, struct, subprocess, sys, tempfile, time

import numpy as np
import torch
import torch.nn.functional as F


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

    def to(self, device):
        for name, v in vars(self).items():
            if v is not None:
                setattr(self, name, v.to(device))
        return self

    def step(self, net, x, i, t, y, scale):
        """One ancestral step of half as many images as y has labels, guided over all channels; t: the original timestep, all steps kept; a
        number, or a tensor [1] (of none it would be read as a number, for which a GPU must be waited for)."""
        o = net(torch.cat([x, x]), torch.full((len(y),), t) if isinstance(t, int) else t.expand(len(y)), y)
        k = x.shape[1]
        cond, null = o[:, :k].chunk(2)
        e, v = null + scale * (cond - null), o[:len(x), k:]
        x0 = (self.ra[t] * x - self.rb[t] * e).clamp(-1, 1)
        f = (v + 1) / 2
        log_variance = f * self.log_beta[t] + (1 - f) * self.log_var[t]
        mean = self.c1[t] * x0 + self.c2[t] * x
        return mean + (t > 0) * (log_variance / 2).exp() * torch.randn_like(x)

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


def options(models, default, batch=8):
    """What the command was given. `sides`: sides.py's comparison is asked for, as whatever this module's own driver cannot do does."""
    p = argparse.ArgumentParser()
    p.add_argument("--model", default=default, choices=models)
    p.add_argument("--batch", type=int, help=f"{batch}; on a GPU 256")
    p.add_argument("--threads", type=int, help="2; on a GPU all, 16 at most")
    p.add_argument("--pairs", type=int, help="12; on a GPU 20")
    p.add_argument("--sluice", default="build/sluice")
    p.add_argument("--compile", nargs="*", metavar="MODE",
                   help="also time the peer under torch.compile: in its default mode, or in each of the modes named (default, max-autotune, "
                   "max-autotune-no-cudagraphs, reduce-overhead; graph: the second in a CUDA graph of our own, for sampling)")
    p.add_argument("--only", default="", help="forward, train or sample alone")
    p.add_argument("--profile", action="store_true")
    g = p.add_argument_group("in processes of their own, with --device or any of these")
    g.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    g.add_argument("--what", default="", help="of train, forward, sample, with commas between; or none")
    g.add_argument("--precision", default="", choices=["f32", "bf16"])
    g.add_argument("--residual", default="f32", choices=["f32", "bf16"], help="the stream between blocks, on both sides, under bf16")
    g.add_argument("--recompute", default="auto", choices=["auto", "none", "light", "blocks"], help="what Sluice's backward computes again")
    g.add_argument("--no-eager", action="store_true", help="only the modes of --compile")
    g.add_argument("--images", default="1,64", help="lots that are sampled together")
    g.add_argument("--cfg", type=float, default=1.5)
    g.add_argument("--apart", action="store_true", help="one process at a time, as L and XL are trained")
    g.add_argument("--mask-cost", action="store_true", help="Sluice with routing against Sluice without")
    g.add_argument("--cold", action="store_true", help="from the start of a process to the end of its first training step")
    g.add_argument("--no-errors", action="store_true", help="both sides are not compared with float64 first")
    g.add_argument("--losses", type=int, metavar="STEPS", nargs="?", const=200, default=0, help="both sides' losses on fixed data")
    g.add_argument("--json", metavar="FILE", help="one line a measurement is added to it")
    g.add_argument("--limit", type=float, default=600, help="seconds that one answer of a process may take")
    g.add_argument("--side", help=argparse.SUPPRESS)  # torch_side.py's process, in this mode
    o = p.parse_args()
    o.sides = o.device != "cpu" or bool(o.what or o.precision or o.apart or o.mask_cost or o.cold or o.losses or o.json or o.side)
    if not o.sides and o.compile not in (None, []):
        p.error("--compile with modes needs --what")
    gpu = o.device != "cpu"
    o.device = "cuda:0" if o.device == "cuda" else o.device
    o.threads = o.threads or (min(os.cpu_count(), 16) if gpu else 2)
    o.batch = o.batch or (256 if gpu else batch)
    o.pairs = o.pairs or (20 if gpu else 12)
    o.precision = o.precision or "f32"
    return o


class Worker:
    """Sluice's half: worker.lua, one answer for each line."""

    def __init__(self, o):
        self.process = subprocess.Popen([o.sluice, "run", "tests/bench/worker.lua"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "OMP_NUM_THREADS": str(o.threads)})

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("error "):
            sys.exit(answer[6:] or "the sluice worker stopped")
        return answer

    def profile(self):
        line = self.ask("profile")
        while line != "end":
            op, seconds, calls = line.split()
            print(f"  {op:28s} {float(seconds) * 1e3:9.2f} ms {calls:>6s} calls")
            line = self.process.stdout.readline().strip()


def compare(name, o, worker, peers, f):
    """Times `name`, worker's and each peer's f(*peer), in turn; prints medians and the median of the paired ratios."""
    ours, theirs = [], {k: [] for k in peers}
    rest = lambda: time.sleep(0.1)  # idle threads spin for a while before they sleep: not into the other's time
    for i in range(o.pairs + 2):
        rest()
        a = float(worker.ask(name))
        if i >= 2:
            ours.append(a)
        for k, peer in peers.items():
            rest()
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


def run(o, make, name, work, x0=False, clip=0, channels_last=False):
    """make() -> a module f(x, t, y) with the reference's names; name: for worker.lua; work: of forward, train, sample."""
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    worker, folder = Worker(o), tempfile.mkdtemp()
    worker.ask(f"setup {name} {o.batch} {folder}/weights.safetensors")
    data = read_safetensors(f"{folder}/weights.safetensors")
    inputs = {k[3:]: data.pop(k) for k in list(data) if k.startswith("in.")}
    x, t, y, noise = (inputs[k] for k in ("x", "t", "y", "noise"))
    net = make()
    missing, unexpected = net.load_state_dict(data, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    exact = copy.deepcopy(net).double()
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        x, noise = (v.contiguous(memory_format=torch.channels_last) for v in (x, noise))
    with torch.no_grad():
        exact.freq = net.freq.double()
        truth, peer = exact(x.double(), t, y), net(x, t, y)
    del exact
    worker.ask("forward")
    worker.ask(f"output {folder}/out.safetensors")
    mine = read_safetensors(f"{folder}/out.safetensors")["out"]
    rel = lambda a: ((a.double() - truth).norm() / truth.norm()).item()
    print(f"torch {torch.__version__} (BLAS: {'MKL' if torch.backends.mkl.is_available() else 'not MKL'}, oneDNN "
          f"{torch.backends.mkldnn.is_available()}, {torch.backends.cpu.get_cpu_capability()}), {o.threads} threads, {name}, batch {o.batch}, f32")
    print(f"error against float64: sluice {rel(mine):.2e}, torch {rel(peer):.2e}")

    process = Process(x0)
    peers = {"eager": (net, process.loss)}
    if o.compile is not None:
        peers["compiled"] = (torch.compile(net), torch.compile(process.loss))
    trained = [q for q in net.parameters() if q.requires_grad]
    state = {}  # made when training begins: forward alone needs no second copy of a large model

    def forward(net, _):
        with torch.no_grad():
            net(x, t, y)

    def train(net, loss_of):
        if not state:
            state["opt"] = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0, fused=True)
            state["ema"] = copy.deepcopy(peers["eager"][0]).requires_grad_(False)
        loss = loss_of(net.train(), x, t, y, noise)
        state["opt"].zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(trained, clip)
        state["opt"].step()
        with torch.no_grad():
            torch._foreach_lerp_(list(state["ema"].parameters()), list(peers["eager"][0].parameters()), 1e-4)

    def sample(net, _):
        with torch.no_grad():
            net.eval()
            z, labels = torch.randn_like(x), torch.cat([y, torch.full_like(y, net.null)])
            for i, at in enumerate((999, 777, 555, 333, 111, 0)):
                z = process.step(net, z, i, at, labels, 1.5)

    for name, f in (("forward", forward), ("train", train), ("sample", sample)):
        if name in work and o.only in ("", name):
            compare(name, o, worker, peers, f)
    if o.profile:
        worker.profile()
    worker.process.stdin.close()
