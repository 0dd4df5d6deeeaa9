-- sluice runs
local arguments = require "sluice.cli.arguments"
local core = require "sluice.core"
local run_folder = require "sluice.run_folder"

local function declare(p)
  p:argument("folder", "where the runs are (runs), or a run"):args "?"
  arguments.json_flag(p)
end

local STATES = { ended = "done", interrupted = "interrupted", failed = "failed" }

local function look(dir, name)
  local folder = run_folder.open(dir)
  local ok, info = pcall(folder.info, folder)
  if not ok then return { name = name, dir = dir, state = "damaged" } end
  local metric, event = folder:last("metrics.jsonl", "loss"), folder:last("events.jsonl", "event")
  local newest, locked = folder:checkpoints()[1], folder:is_locked()
  local steps = math.max(metric and metric.step or 0, event and event.step or 0, newest and newest.step or 0)
  return {
    name = name, dir = dir, recipe = info.name, started = info.started, steps = steps,
    of = info.settings and info.settings["train.steps"], loss = metric and tonumber(metric.loss), checkpoint = newest and newest.step,
    state = locked and "running" or event and STATES[event.event] or (locked == false and "killed" or "unfinished"),
  }
end

local function run(o)
  local root, rows = o.folder or "runs", {}
  if o.folder and not core.exists(root .. "/.") then error(("there is no folder %s"):format(root), 0) end
  if run_folder.is_run(root) then rows[1] = look(root, root) end
  for _, name in ipairs(core.list(root)) do
    if run_folder.is_run(root .. "/" .. name) then rows[#rows + 1] = look(root .. "/" .. name, name) end
  end
  if o.json then return arguments.say_json(rows, "array") end
  if #rows == 0 then return arguments.say("no runs in %s", root) end
  local width = 4
  for _, row in ipairs(rows) do width = math.max(width, #row.name) end
  local layout = ("%%-%ds  %%15s  %%9s  %%-19s  %%s"):format(width)
  arguments.say(layout, "name", "steps", "loss", "started", "state")
  for _, row in ipairs(rows) do
    arguments.say(layout, row.name, ("%d/%s"):format(row.steps or 0, row.of or "?"), row.loss and ("%.4f"):format(row.loss) or "-",
      row.started or "-", row.state)
  end
end

return {
  summary = "Lists the runs in a folder: steps, last loss, when they began, and how they ended.", declare = declare, run = run,
  examples = { "sluice runs", "sluice runs runs/ablation --json" },
}
