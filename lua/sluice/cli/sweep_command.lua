-- sluice sweep
local arguments = require "sluice.cli.arguments"
local fields = require "sluice.fields"
local sluice = require "sluice"

local function declare(p)
  p:argument("file", "a Lua file that returns a table for sluice.sweep, or calls it")
  p:flag("--dry", "only checks and lists the runs")
  p:option("--out", "folder of the runs, in place of the file's"):argname("DIR")
  p:option("--set", "changes one of the recipe's defaults, for all runs"):argname("key=value"):count("*")
  p:flag("--retry", "takes up runs that failed, too")
  arguments.machine_options(p)
  p:flag("--quiet", "no progress line")
  arguments.json_flag(p)
end

local function run(o)
  arguments.use_machine(o)
  local file = require("sluice.sweep").load(o.file)
  local options = fields.merged(file, { set = fields.merged(file.set, arguments.settings(o.set)), out = o.out, device = o.device })
  for _, flag in ipairs { "dry", "retry", "quiet" } do options[flag] = o[flag] or options[flag] end
  if options.dry then options.quiet = true end -- the list goes to standard output
  local rows = sluice.sweep(options)
  if o.json then
    arguments.say_json { out = options.out, dry = options.dry or false, runs = rows }
  else
    arguments.say("%s", tostring(rows))
    if not options.dry then arguments.say("%s/results.csv", options.out) end
  end
end

return {
  summary = "Trains every combination of a grid of parameters with every seed, or goes on with that.", declare = declare, run = run,
  examples = { "sluice sweep recipes/sweep-digits.lua --dry", "sluice sweep recipes/sweep-digits.lua --out sweeps/first" },
}
