-- sluice doctor
local arguments = require "sluice.cli.arguments"
local core = require "sluice.core"
local sluice = require "sluice"

return {
  summary = "Tells what Sluice sees of this machine.",
  declare = arguments.json_flag,
  run = function(o)
    local lines = core.doctor()
    if not o.json then
      for _, line in ipairs(lines) do arguments.say("%s", line) end
      return
    end
    local seen = {}
    for _, line in ipairs(lines) do
      local name, text = line:match "^(%S+ ?%S*)%s%s+(.*)$"
      if name then seen[name:match "^(.-)%s*$"] = text end
    end
    arguments.say_json { machine = core.machine(), devices = sluice.devices(), seen = seen }
  end,
  examples = { "sluice doctor", "sluice doctor --json" },
}
