"""PyTorch's half of the comparisons, as a process: worker.lua's commands on standard input, and its answers.

Under --precision bf16 it is autocast, whose residual stream stays f32 (with --residual bf16 the network casts it). Products and
convolutions hold bf16 weights where nothing is trained. Of scaled_dot_product_attention's flash and cuDNN backends the faster one on the model's own
shapes is kept. AdamW is fused, EMA one foreach call, the loss compiled with the network; latents, t, y and noise lie on the device, whereas
Sluice's training step also reads a batch, draws t and noise and brings them there. Modes: eager, those of torch.compile, and graph."""
import contextlib, copy, gc, os, resource, sys, time

import torch
import torch.nn as nn
import torch.nn.functional as F

import peer

BACKENDS = ("flash", "cudnn")


def age():
    """Seconds since the process began."""
    with open("/proc/self/stat") as f:
        ticks = int(f.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def use_backend(name):
    """name: of BACKENDS, alone; None: PyTorch's own choice."""
    b = torch.backends.cuda
    b.enable_flash_sdp(name in (None, "flash"))
    b.enable_cudnn_sdp(name in (None, "cudnn"))
    b.enable_mem_efficient_sdp(name is None)
    b.enable_math_sdp(name is None)


class Side:
    """make() -> the network, f(x, t, y) with the reference's names; shapes: (heads, tokens, channels of a head) of its attention, or None;
    clip: the largest norm of the gradient, or 0."""

    def __init__(self, o, mode, make, shapes, process, clip):
        self.o, self.mode, self.make, self.shapes, self.process, self.clip = o, mode, make, shapes, process, clip
        self.device = torch.device(o.device)
        self.gpu = self.device.type == "cuda"
        self.bf16 = o.precision == "bf16"
        self.state, self.data, self.note = {}, None, ""
        if self.gpu:
            torch.cuda.set_device(self.device)
            torch.set_float32_matmul_precision("high" if self.bf16 else "highest")  # f32 is f32 on both sides
        else:
            torch.set_num_threads(o.threads)
        torch.manual_seed(0)

    # --- what everything needs ---

    def cast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def wait(self):
        if self.gpu:
            torch.cuda.synchronize()

    def compiled(self, f):
        if self.mode == "eager":
            return f
        mode = "max-autotune-no-cudagraphs" if self.mode == "graph" else self.mode
        return torch.compile(f, mode=None if mode == "default" else mode, dynamic=False)

    def begin(self):
        """Before each run of what may hold CUDA graphs: results of the run before may be overwritten."""
        if self.gpu and self.mode in ("max-autotune", "reduce-overhead"):
            torch.compiler.cudagraph_mark_step_begin()

    def setup(self, name, batch, file, *_):
        self.net = self.make()
        n, side, channels = int(batch), *((28, 1) if name == "quickstart" else (32, 4) if name.startswith("DiT") else
                                          (int(name[4:]), 3))
        if file in ("-", "fresh"):
            x = torch.randn(n, channels, side, side)
            t, y, noise = torch.randint(0, 1000, (n,)), torch.randint(0, self.net.null, (n,)), torch.randn_like(x)
        else:
            data = peer.read_safetensors(file)
            x, t, y, noise = (data.pop("in." + k) for k in ("x", "t", "y", "noise"))
            missing, unexpected = self.net.load_state_dict(data, strict=False)
            if missing or unexpected:
                raise RuntimeError(f"the state has other names: {missing} {unexpected}")
            del data
        last = torch.channels_last if name.startswith("ADM") else torch.contiguous_format
        self.net = self.net.to(self.device, memory_format=last)
        self.net.residual = torch.bfloat16 if self.bf16 and self.o.residual == "bf16" else None
        self.process.to(self.device)
        x, noise = (v.to(self.device, memory_format=last) for v in (x, noise))
        self.data = x, t.to(self.device), y.to(self.device), noise
        return str(self.device)

    def choose_attention(self, rows, train):
        """Times both backends on the model's shapes and keeps the faster one."""
        if not (self.gpu and self.bf16 and self.shapes):
            return
        times, (heads, tokens, d) = {}, self.shapes
        qkv = torch.randn(rows, tokens, 3, heads, d, device=self.device, dtype=torch.bfloat16, requires_grad=train)
        for name in BACKENDS:
            use_backend(name)
            try:
                times[name] = self.time_attention(qkv, train)
            except RuntimeError:  # this backend does not take these shapes
                pass
        best = min(times, key=times.get) if times else None
        use_backend(best)
        told = ", ".join(f"{k} {v * 1e6:.0f} us" for k, v in times.items())
        self.note = f"attention {best or 'as PyTorch chooses'} ({told or 'neither backend takes it'})"

    def time_attention(self, qkv, train):
        def once():
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            with torch.set_grad_enabled(train):
                out = F.scaled_dot_product_attention(q, k, v)
                if train:
                    torch.autograd.grad(out, qkv, torch.ones_like(out))
        for _ in range(5):
            once()
        best = float("inf")
        for _ in range(5):
            self.wait()
            start = time.perf_counter()
            for _ in range(10):
                once()
            self.wait()
            best = min(best, (time.perf_counter() - start) / 10)
        return best

    def seconds(self, n, f):
        self.wait()
        start = time.perf_counter()
        for _ in range(n):
            f()
        self.wait()
        return f"{(time.perf_counter() - start) / n:.9f}"

    # --- training ---

    def make_step(self):
        net, process = self.net.train(), self.process
        trained = [q for q in net.parameters() if q.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0, fused=True)
        kept, now = [list(m.parameters()) for m in (copy.deepcopy(net).requires_grad_(False), net)]
        self.choose_attention(len(self.data[0]), True)

        def loss_of(x, t, y, noise):
            with self.cast():
                return process.loss(lambda *a: net(*a).float(), x, t, y, noise)

        loss_of = self.compiled(loss_of)

        def step():
            self.begin()
            loss = loss_of(*self.data)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip:
                nn.utils.clip_grad_norm_(trained, self.clip)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(kept, now, 1e-4)
            return loss

        return step

    def train(self, n=1):
        if "step" not in self.state:
            self.state["step"] = self.make_step()
        return self.seconds(int(n), self.state["step"])

    def losses(self, n):
        step, list_ = self.make_step(), []
        for _ in range(int(n)):
            list_.append(step().detach().clone())
        return " ".join(f"{v:.9g}" for v in torch.stack(list_).tolist())

    # --- passes without gradients ---

    def lowered(self):
        """The network as it is run without training: what autocast would cast at every call is cast once."""
        if "net" not in self.state:
            net = self.state["net"] = self.net.eval().requires_grad_(False)
            for m in net.modules():
                if self.bf16 and isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                    m.to(torch.bfloat16)
        return self.state["net"]

    def quiet(self):
        stack = contextlib.ExitStack()
        stack.enter_context(torch.no_grad())
        stack.enter_context(self.cast())
        return stack

    def forward(self, n=1):
        if "forward" not in self.state:
            self.choose_attention(len(self.data[0]), False)
            self.state["forward"] = self.compiled(self.lowered())

        def once():
            self.begin()
            self.state["forward"](*self.data[:3])

        with self.quiet():
            return self.seconds(int(n), once)

    def make_sample(self, images, cfg):
        net, process = self.lowered(), self.process
        self.choose_attention(2 * images, False)
        labels = self.data[2].repeat(-(-images // len(self.data[2])))[:images]
        y = torch.cat([labels, torch.full_like(labels, net.null)])
        x = torch.randn(images, *self.data[0].shape[1:], device=self.device)
        f = self.compiled(lambda x, t: process.step(lambda *a: net(*a).float(), x, None, t, y, cfg))
        if self.mode == "graph":
            return self.captured(f, x)
        steps = list(torch.arange(999, -1, -4, device=self.device)[:, None])  # as many as respacing to 250 has
        state = {"x": x, "i": 0}

        def once():
            self.begin()
            x = f(state["x"], steps[state["i"]])
            state["x"] = x.clone() if self.mode in ("max-autotune", "reduce-overhead") else x
            state["i"] = (state["i"] + 1) % len(steps)

        return once

    def captured(self, f, x):
        """A step, its result copied over its input and the timestep counted down, as one CUDA graph."""
        t = torch.full((1,), 999, device=self.device)

        def step():
            x.copy_(f(x, t))
            t.sub_(4).remainder_(1000)

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        self.state["graph"] = graph
        return graph.replay

    def sample(self, n, images, cfg):
        key = f"sample {images} {cfg}"
        with self.quiet():
            if key not in self.state:
                self.state[key] = self.make_sample(int(images), float(cfg))
            return self.seconds(int(n), self.state[key])

    def trajectory(self, images, cfg, steps):
        return f"{float(self.sample(steps, images, cfg)) * int(steps):.9f}"

    # --- figures ---

    def errors(self, file, rows):
        """Relative errors against float64 over the first rows: of the output in the file, and of the network's own."""
        k = int(rows)
        x, t, y = (v[:k] for v in self.data[:3])
        exact = copy.deepcopy(self.net).double().eval()
        exact.residual, exact.freq = None, self.net.freq.double()
        with torch.no_grad():
            truth = exact(x.double(), t, y)
            del exact
            with self.cast():
                own = self.net.eval()(x, t, y)
        theirs = peer.read_safetensors(file)["out"].to(self.device)
        self.settle()
        return " ".join(f"{((a.double() - truth).norm() / truth.norm()).item():.4g}" for a in (theirs, own))

    def settle(self):
        """Memory is counted from here on: without what preparations took and the allocator still holds."""
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return "ok"

    def memory(self):
        if self.gpu:
            return f"{torch.cuda.max_memory_reserved()} {torch.cuda.max_memory_allocated()}"
        return str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    def age(self):
        return f"{age():.2f}"

    def told(self):
        return self.note or "-"

    def machine(self):
        where = torch.cuda.get_device_name(self.device) if self.gpu else torch.backends.cpu.get_cpu_capability()
        return f"{where}; torch {torch.__version__}"


COMMANDS = ("setup", "train", "forward", "sample", "trajectory", "losses", "errors", "settle", "memory", "age", "told", "machine")


def serve(o, make, shapes, process, clip):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    side = Side(o, o.side, make, shapes, process, clip)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "quit":
            break
        try:
            if words[0] not in COMMANDS:
                raise ValueError(f"there is no command {words[0]}")
            answer = getattr(side, words[0])(*words[1:])
        except Exception as e:  # the driver tells of it and goes on with the next mode
            kind = "out of memory: " if isinstance(e, torch.OutOfMemoryError) else type(e).__name__ + ": "
            answer = "error " + kind + " | ".join(str(e).split("\n"))[:600]
            del e
            gc.collect()
        print(answer, file=answers, flush=True)
