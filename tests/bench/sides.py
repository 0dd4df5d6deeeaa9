"""Sluice against PyTorch, each in a process of its own, block by block in turn (A B A B): on a GPU, and on the CPU in any precision.

A block is as many steps as take half a second. Ratios are PyTorch's block over Sluice's block beside it: median and quartiles. With
--apart, and in training where two such models do not fit into one GPU, whole processes alternate instead. Every mode of torch.compile has
a process of its own, is told as soon as it is measured, and one that fails or does not fit is told, too. Compile time is in nothing but
--cold."""
import json, math, os, re, statistics, subprocess, sys, tempfile, threading, time

import peer

BLOCK = 0.5  # seconds
WARM_UP = 10  # steps at least
ROWS = 8  # images of the comparison with float64
NOMINAL = {"H100": 990e12, "H200": 990e12, "A100": 312e12}  # dense bf16, of the data sheets
HERE = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    pass


class Side:
    """A process that answers line by line."""

    def __init__(self, command, limit, **env):
        self.command, self.limit, self.began = command, limit, time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})

    def ask(self, line):
        late = threading.Timer(self.limit, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        slow = not late.is_alive()
        late.cancel()
        if not answer:
            raise Failed(f"{line}: no answer within {self.limit:g} s" if slow else f"{line}: the process ended")
        if answer.startswith("error "):
            raise Failed(f"{line}: {answer[6:]}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.process.stdin.close()
            self.process.wait(20)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


# --- figures ---


def middle(ratios):
    """Ranks of a 95% interval of the median, by the binomial distribution: from 0, of the sorted list."""
    n, k, below = len(ratios), 0, 0.5**len(ratios)
    while n > 5 and below + math.comb(n, k + 1) * 0.5**n < 0.025:
        k += 1
        below += math.comb(n, k) * 0.5**n
    return sorted(ratios)[k], sorted(ratios)[n - 1 - k]


def quartiles(ratios):
    q = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return q[0], q[2]


def gib(n):
    return f"{n / 2**30:.2f} GiB"


def ms(t):
    return f"{t * 1e3:.{3 if t < 0.02 else 1}f} ms"


# --- a comparison ---


class Bench:

    def __init__(self, o, name, apart):
        self.o, self.name, self.large = o, name, apart and o.device != "cpu"
        self.scratch = tempfile.TemporaryDirectory()  # gone with this object
        self.folder = self.scratch.name
        self.file = f"{self.folder}/weights.safetensors"
        self.macs = self.machine = None
        self.missing = 0  # comparisons that gave no figure

    # --- sides ---

    def opened(self, command, *lines):
        """A new side that has been asked these lines, and its last answer."""
        s = Side(command, self.o.limit, OMP_NUM_THREADS=str(self.o.threads))
        try:
            return s, [s.ask(line) for line in lines][-1]
        except Failed:
            s.__exit__()
            raise

    def sluice(self, routing="dtr", batch=None, file="-"):
        o = self.o
        setup = f"setup {self.name} {batch or o.batch} {file} {o.device} {o.precision} {o.residual} {routing} {o.recompute}"
        s, macs = self.opened([o.sluice, "run", f"{HERE}/worker.lua"], setup, "macs")
        self.macs = int(macs)
        return s

    def torch(self, mode, batch=None, file="-"):
        setup = f"setup {self.name} {batch or self.o.batch} {file}"
        s, self.machine = self.opened([sys.executable, sys.argv[0], *sys.argv[1:], "--side", mode], setup, "machine")
        return s

    def apart(self, work):
        """Whether the processes take turns."""
        return self.o.apart or self.large and work == "train"

    def modes(self):
        o = self.o
        named = o.compile if o.compile else ["default"] if o.compile is not None or o.device != "cpu" else []
        return ["eager"] * (not o.no_eager) + named

    # --- blocks ---

    def block(self, side, work):
        """Steps in a block, after warming up. work: "train", or "sample" and what follows the number of steps."""
        verb, *rest = work.split()
        ask = lambda n: float(side.ask(" ".join([verb, str(n), *rest])))
        ask(1)  # compiles
        ask(2)
        once = ask(1)
        warm = WARM_UP if self.o.device != "cpu" else 1
        ask(max(1, min(warm, math.ceil(20 / max(once, 1e-6)))))
        n = max(1, round(BLOCK / max(ask(max(1, round(0.1 / once))), 1e-6)))
        return lambda: ask(n)

    def rest(self):
        if self.o.device == "cpu":
            time.sleep(0.1)  # idle threads spin for a while before they sleep: not into the other's time

    def together(self, a, b, work):
        blocks = [self.block(s, work) for s in (a, b)]
        times = [], []
        self.settle(b)
        for _ in range(self.o.pairs):
            for k in range(2):
                self.rest()
                times[k].append(blocks[k]())
        return times

    def in_turn(self, make, work):
        """make: two functions, each of which opens a side. Whole processes, B A B A: it is the peer that may not fit. -> times of both, and
        the last of what each told."""
        times, told = ([], []), [None, None]
        for _ in range(2):
            for k in (1, 0):
                with make[k]() as side:
                    block = self.block(side, work)
                    self.settle(side)
                    times[k].extend(block() for _ in range(-(-self.o.pairs // 2)))
                    told[k] = self.tell(side)
        return times, told

    def settle(self, side):
        """What PyTorch's allocator took to compile and to warm up does not count."""
        if "--side" in side.command:
            side.ask("settle")

    def tell(self, side):
        told = {"bytes": [int(v) for v in side.ask("memory").split()]}
        if "--side" in side.command:
            told["note"] = side.ask("told")
        return told

    # --- results ---

    def record(self, **fields):
        if self.o.json:
            with open(self.o.json, "a") as f:
                keep = {k: getattr(self.o, k) for k in ("precision", "residual", "recompute", "device")}
                f.write(json.dumps({"model": self.name, "machine": self.machine, **keep, **fields}) + "\n")

    def speed(self, images, passes, t):
        """Text and figures of a step of `images` images in t seconds; passes: forward passes an image."""
        flops = 2 * self.macs * passes * images / t
        top = next((v for k, v in NOMINAL.items() if k in (self.machine or "")), None) if self.o.precision == "bf16" else None
        text = f"{ms(t)}, {images / t:.1f} images/s, {flops / 1e12:.2f} TFLOP/s"
        return text + (f", {100 * flops / top:.1f}% of {top / 1e12:.0f}" if top else ""), dict(
            seconds=t, images_per_second=images / t, tflops=flops / 1e12, mfu=flops / top if top else None)

    def report(self, what, mode, batch, images, passes, apart, times, told):
        ratio = [b / a for a, b in zip(*times)]
        q = quartiles(ratio)
        texts, figures = zip(*(self.speed(images, passes, statistics.median(t)) for t in times))
        ours, theirs = told[0]["bytes"][0], told[1]["bytes"]
        again = "" if what != "train" or self.o.recompute == "auto" else f", recompute {self.o.recompute}"
        print(f"{what}, batch {batch}{again}: sluice {texts[0]}; {gib(ours)}")
        allocated = f" ({gib(theirs[1])} allocated)" if len(theirs) > 1 else ""
        note = "" if told[1]["note"] == "-" else "; " + told[1]["note"]
        print(f"  torch {mode} {texts[1]}; {gib(theirs[0])}{allocated}{note}")
        print(f"  torch/sluice {statistics.median(ratio):.3f} (quartiles {q[0]:.3f} to {q[1]:.3f}, {len(ratio)} pairs"
              f"{', processes in turn' if apart else ''}); memory sluice/torch {ours / theirs[0]:.2f}", flush=True)
        self.record(what=what, mode=mode, batch=batch, pairs=len(ratio), ratio=statistics.median(ratio), quartiles=q, sluice=figures[0],
                    torch=figures[1], sluice_bytes=ours, torch_bytes=theirs[0], apart=apart, note=told[1]["note"])

    # --- what is asked for ---

    def measure(self, mode, work, batch):
        """Times of both sides, in blocks or processes; a batch that one of them has no room for is halved."""
        if self.apart(work):
            return self.in_turn([lambda: self.sluice(batch=batch), lambda: self.torch(mode, batch)], work)
        with self.sluice(batch=batch) as a, self.torch(mode, batch) as b:
            times = self.together(a, b, work)
            return times, [self.tell(s) for s in (a, b)]

    def compare(self, what, mode, work, batch, images=None, passes=1):
        while True:
            try:
                times, told = self.measure(mode, work, batch)
                return self.report(what, mode, batch, images or batch, passes, self.apart(work), times, told)
            except Failed as e:
                print(f"{what}, batch {batch}, torch {mode}: {e}", flush=True)
                self.record(what=what, mode=mode, batch=batch, error=str(e))
                if not re.search("memory|arena needs", str(e)) or images or batch <= 32:
                    self.missing += 1
                    return None
                batch //= 2

    def train(self):
        for mode in self.modes():
            if mode != "graph":
                self.compare("train", mode, "train", self.o.batch, passes=3)

    def forward(self):
        for mode in self.modes():
            if mode != "graph":
                self.compare("forward", mode, "forward", self.o.batch)

    def sample(self):
        for images in (int(v) for v in self.o.images.split(",")):
            for mode in self.modes():
                work = f"sample {images} {self.o.cfg:g}"
                self.compare(f"sampling step, {images} image{'s' * (images > 1)}, guided", mode, work, max(images, 1), images, 2)
            self.trajectory(images)

    def trajectory(self, images):
        """A whole run of the sampler, what Sluice prepares for it included."""
        if 500 * images * self.macs > (1e15 if self.o.device != "cpu" else 1e11):
            return  # it would take seconds, of which preparations are a small part
        with self.sluice(batch=images) as a:
            times = [float(a.ask(f"trajectory {images} {self.o.cfg:g} 250")) for _ in range(4)][1:]
        print(f"  sluice.sample, {images} images, 250 steps, all told: {ms(statistics.median(times))}", flush=True)
        self.record(what="trajectory", images=images, sluice=statistics.median(times))

    def errors(self):
        """Both against float64, on the first images of the batch."""
        rows = min(ROWS, self.o.batch)
        out = f"{self.folder}/out.safetensors"
        with self.sluice(file=self.file, batch=rows) as a:
            a.ask(f"output {out} {rows}")
        with self.torch("eager", rows, self.file) as b:
            ours, theirs = b.ask(f"errors {out} {rows}").split()
        print(f"{self.name}, {self.o.precision}{', residual ' + self.o.residual if self.o.precision == 'bf16' else ''}, "
              f"{self.machine}\nerror against float64, {rows} images: sluice {ours}, torch {theirs}", flush=True)
        self.record(what="error", sluice=float(ours), torch=float(theirs))
        os.remove(self.file)

    def losses(self):
        """Both sides' losses over steps on the same batch, t and noise."""
        n, batch = self.o.losses, min(self.o.batch, 64)
        mode = self.modes()[-1]
        curves = []
        with self.sluice(file=self.file, batch=batch) as a:
            curves.append([float(v) for v in a.ask(f"losses {n}").split()])
        with self.torch("default" if mode == "graph" else mode, batch, self.file) as b:
            curves.append([float(v) for v in b.ask(f"losses {n}").split()])
        os.remove(self.file)
        shown = sorted({0, n // 4, n // 2, 3 * n // 4, n - 1})
        print(f"losses of steps {', '.join(str(i + 1) for i in shown)}, {batch} images:")
        for side, curve in zip(("sluice", "torch"), curves):
            print(f"  {side:6s} " + " ".join(f"{curve[i]:.5f}" for i in shown))
        off = statistics.mean(abs(a - b) / b for a, b in zip(*curves))
        print(f"  mean relative difference over {n} steps: {off:.2e}", flush=True)
        self.record(what="losses", steps=n, sluice=curves[0], torch=curves[1], difference=off)

    def mask_cost(self):
        """Sluice with DTR's masks against Sluice without, nothing skipped."""
        for work in (self.o.what or "train").split(","):
            line = work if work != "sample" else f"sample {self.o.images.split(',')[-1]} {self.o.cfg:g}"
            make = [lambda: self.sluice("none"), lambda: self.sluice("dtr")]
            if self.apart(work):
                times, _ = self.in_turn(make, line)
            else:
                with make[0]() as a, make[1]() as b:
                    times = self.together(a, b, line)
            ratio = [b / a for a, b in zip(*times)]
            low, high = middle(ratio)
            print(f"{self.name} {line}, batch {self.o.batch}, {self.o.precision}: DTR's masks {ms(statistics.median(times[1]))}, none "
                  f"{ms(statistics.median(times[0]))}; ratio {statistics.median(ratio):.4f} (95% interval {low:.4f} to {high:.4f}, "
                  f"{len(ratio)} pairs)", flush=True)
            self.record(what="mask cost", work=work, batch=self.o.batch, ratio=statistics.median(ratio), interval=(low, high),
                        pairs=len(ratio))

    def cold(self):
        """From the start of a process to the end of its first training step, on weights of its own."""
        runs = [("sluice", lambda: self.sluice(file="fresh"), 3)]
        for mode in self.modes():
            if mode != "graph":
                runs.append((f"torch {mode}", lambda mode=mode: self.torch(mode, file="fresh"), 3 if mode == "eager" else 1))
        first = None
        for name, make, n in runs:
            times = []
            for _ in range(n):
                # compiled code that an earlier run left would be found
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=self.folder)
                with make() as side:
                    side.ask("train 1")
                    times.append(time.perf_counter() - side.began)
            t = statistics.median(times)
            first = first or t
            print(f"cold start to the end of the first training step, {self.name}, batch {self.o.batch}: {name} {t:.2f} s "
                  f"({', '.join(f'{v:.2f}' for v in times)})" + (f", {t / first:.1f} times sluice's" if name != "sluice" else ""), flush=True)
            self.record(what="cold", side=name, seconds=t, all=times)


def main(o, make, name, shapes, apart=False, x0=False):
    """make() -> the network; shapes: torch_side.Side's; apart: two of it do not fit into one GPU together in training; x0: it predicts x0,
    and is not sampled."""
    if o.side:
        import torch_side
        return torch_side.serve(o, make, shapes, peer.Process(x0), 1 if x0 else 0)
    b = Bench(o, name, apart)
    if o.mask_cost:
        return b.mask_cost()
    if o.cold:
        return b.cold()
    work = (o.what or ("train,forward" if x0 else "train,forward,sample")).replace("none", "").split(",")
    for what in work:
        if what not in ("train", "forward", "sample", ""):
            sys.exit(f"--what: there is no {what}; there are train, forward, sample, none")
    if not o.no_errors:
        b.errors()
    for what in filter(None, work):
        getattr(b, what)()
    if o.losses:
        b.losses()
    if b.missing:
        sys.exit(1)
