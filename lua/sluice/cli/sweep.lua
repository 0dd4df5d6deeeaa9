-- sluice sweep: the runs of a file's grid. shared: the program's parser, settings, machine_options and use_machine.
local sluice = require "sluice"

-- What JSON has no numbers for is text.
local function json_rows(rows)
  local list = {}
  for i, row in ipairs(rows) do
    list[i] = {}
    for k, v in pairs(row) do
      local finite = type(v) ~= "number" or (v == v and math.abs(v) < math.huge)
      list[i][k] = finite and v or tostring(v)
    end
  end
  return list
end

return function(args, shared)
  local p = shared.parser("sweep", "Trains every combination of a grid of parameters with every seed, or goes on with that.")
  p:argument("file", "a Lua file that returns a table for sluice.sweep, or calls it")
  p:flag("--dry", "only checks and lists the runs")
  p:option("--out", "folder of the runs, in place of the file's"):argname("DIR")
  p:option("--set", "changes one of the recipe's defaults, for all runs"):argname("key=value"):count("*")
  p:flag("--retry", "takes up runs that failed, too")
  shared.machine_options(p)
  p:flag("--quiet", "no progress line")
  p:flag("--json", "one JSON object: out, dry, runs")
  p:epilog("Examples:\n  sluice sweep recipes/sweep-digits.lua --dry\n  sluice sweep recipes/sweep-digits.lua --out sweeps/first")
  local o = p:parse(args)
  shared.use_machine(o)
  local options = require("sluice.sweep").load(o.file)
  local all = {}
  for k, v in pairs(options) do all[k] = v end
  local set = shared.settings(o.set)
  if next(set) then
    all.set = {}
    for _, t in ipairs { options.set or {}, set } do
      for k, v in pairs(t) do all.set[k] = v end
    end
  end
  all.out, all.device = o.out or all.out, o.device or all.device
  for _, flag in ipairs { "dry", "retry", "quiet" } do all[flag] = o[flag] or all[flag] end
  if all.dry then all.quiet = true end -- the list goes to standard output
  local rows = sluice.sweep(all)
  if o.json then
    print(sluice.json.encode { out = all.out, dry = all.dry or false, runs = json_rows(rows) })
  else
    print(tostring(rows))
    if not all.dry then print(all.out .. "/results.csv") end
  end
end
