-- sluice bench
local arguments = require "sluice.cli.arguments"
local bench_options = require "sluice.bench_options"
local interrupt = require "sluice.interrupt"

local function declare(p)
  arguments.choice(p:argument("name", "what is measured (without: rates, then a small model trained)"):args "?", bench_options.works)
  arguments.machine_options(p)
  p:option("--model", "as sluice.dit and sluice.adm name them: DiT-S/2 (the default), ADM-64; or quickstart"):argname("NAME")
  p:option("--batch", "images of a step"):argname("N"):convert(arguments.integer)
  arguments.choice(p:option("--precision", "of products (f32)"), { "f32", "tf32", "bf16" })
  arguments.choice(p:option("--residual", "with bf16 (f32)"), { "f32", "bf16" })
  arguments.choice(p:option("--routing", "of the model (dtr)"), { "dtr", "none" })
  arguments.choice(p:option("--recompute", "what backward computes again (auto)"), { "auto", "none", "light", "blocks" })
  p:option("--cfg", "guidance in sampling (1: none)"):argname("SCALE"):convert(arguments.number)
  p:option("--steps", "that are timed"):argname("N"):convert(arguments.integer)
  p:option("--warmup", "steps before them"):argname("N"):convert(arguments.integer)
  p:option("--seconds", "of one sample of a rate, about (0.2)"):argname("S"):convert(arguments.number)
  p:flag("--profile", "a table of operations: time, and the limit that the measured rates set")
  p:option("--limits", "runs nothing: the table at the limits of H100, H200, A100 or TFLOPS,GBYTES"):argname("RATES")
  arguments.json_flag(p)
end

return {
  summary = "Measures the machine, a model on it, and how far each operation is from what the machine can do.",
  declare = declare,
  run = function(o)
    arguments.use_machine(o)
    local bench, given = require "sluice.bench", {}
    for _, key in ipairs(bench_options.names) do given[key] = o[key] end
    interrupt.wait(true)
    local result = bench.run(given)
    interrupt.wait(false)
    if o.json then arguments.say_json(result) else arguments.say("%s", table.concat(bench.lines(result), "\n")) end
    if result.interrupted then error("interrupted: " .. result.interrupted, 0) end -- a Ctrl-C cut it short
  end,
  examples = {
    "sluice bench", "sluice bench train --model DiT-B/2 --precision bf16 --profile", "sluice bench sample --cfg 1.5 --batch 1",
    "sluice bench train --precision bf16 --limits H100",
  },
}
