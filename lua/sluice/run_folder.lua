-- The folder of a run:
--   recipe.lua, code/       the recipe as it was run, and the Lua files that it required
--   run.json                parameters, every resolved setting, seeds, machine and versions
--   metrics.jsonl           one record per line, of step, loss and so on
--   events.jsonl            starts, ends, and each checkpoint before and after it is written
--   samples/, checkpoints/  by step
--   .lock                   empty; locked by the process that trains it
local core = require "sluice.core"
local disk = require "sluice.disk"
local sluice = require "sluice"

local json = sluice.json

local Folder = {}
Folder.__index = Folder

local run_folder = {}

function run_folder.is_run(dir)
  return core.exists(dir .. "/run.json")
end

-- An existing run's folder.
function run_folder.open(dir)
  if not run_folder.is_run(dir) then
    error(core.exists(dir) and ("%s is not a run's folder: it has no run.json"):format(dir) or ("there is no run %s"):format(dir), 0)
  end
  return setmetatable({ dir = dir }, Folder)
end

-- A new folder: `out`, or runs/NAME-0001, the first number that is free.
function run_folder.create(out, name)
  if out then
    core.make_dirs(out)
  else
    core.make_dirs "runs"
    for i = 1, 9999 do
      out = ("runs/%s-%04d"):format(name, i)
      if core.make_dir(out) then break end
      out = nil
    end
    if not out then error("train: runs/ holds 9999 runs of this name", 0) end
  end
  core.make_dirs(out .. "/checkpoints")
  return setmetatable({ dir = out }, Folder)
end

-- The run's lock, to be closed: who has it is the only one that writes to the folder. Raises if another process has it.
function Folder:lock()
  local lock, holder = core.lock_folder(self.dir)
  if lock then return lock end
  error(("train: %s is being trained by %s"):format(self.dir, holder > 0 and "process " .. holder or "another process"), 0)
end

-- Whether some process trains it; nil where that cannot be told.
function Folder:is_locked()
  local holder = core.lock_holder(self.dir)
  if holder == false then return nil end
  return holder ~= nil
end

function Folder:info()
  local text, message = disk.read(self.dir .. "/run.json")
  if not text then error(message, 0) end
  local ok, info = pcall(json.decode, text)
  if not ok or type(info) ~= "table" then error(("%s/run.json is damaged: %s"):format(self.dir, tostring(info)), 0) end
  return info
end

function Folder:write_info(info)
  core.write(self.dir .. "/run.json", json.encode(info) .. "\n")
end

-- The recipe's text and the modules that it required.
function Folder:write_code(text, modules)
  core.write(self.dir .. "/recipe.lua", text)
  for _, m in pairs(modules) do
    core.make_dirs(disk.folder_of(self.dir .. "/code/" .. m.path))
    core.write(self.dir .. "/code/" .. m.path, m.text)
  end
end

function Folder:metric(record)
  disk.append(self.dir .. "/metrics.jsonl", record)
end

function Folder:event(record)
  record.time = os.time()
  disk.append(self.dir .. "/events.jsonl", record)
end

-- The records of metrics.jsonl or events.jsonl; a last line that was cut off is none.
function Folder:records(name)
  local list = {}
  for record in disk.records(disk.read(self.dir .. "/" .. name) or "") do list[#list + 1] = record end
  return list
end

-- The last record of metrics.jsonl or events.jsonl that has this field, or nil.
function Folder:last(name, field)
  return disk.last_record(self.dir .. "/" .. name, field)
end

-- Drops the records of steps after `step`, and a last line that was cut off: those steps will be done again.
function Folder:trim_metrics(step)
  local path = self.dir .. "/metrics.jsonl"
  local text = disk.read(path)
  if not text then return end
  local kept = {}
  for record, line in disk.records(text) do
    if type(record.step) == "number" and record.step <= step then kept[#kept + 1] = line end
  end
  local new = #kept > 0 and table.concat(kept, "\n") .. "\n" or ""
  if new ~= text then core.write(path, new) end
end

-- The run's checkpoints, the newest first: { {step, path} … }
function Folder:checkpoints()
  local list = {}
  for _, name in ipairs(core.list(self.dir .. "/checkpoints")) do
    local step = name:match("^step%-(%d+)%.safetensors$")
    if step then list[#list + 1] = { step = tonumber(step), path = self.dir .. "/checkpoints/" .. name } end
  end
  table.sort(list, function(a, b) return a.step > b.step end)
  return list
end

function Folder:checkpoint_path(step)
  return ("%s/checkpoints/step-%07d.safetensors"):format(self.dir, step)
end

-- Keeps the newest `last` checkpoints and those at multiples of `every`.
function Folder:prune(keep)
  for i, c in ipairs(self:checkpoints()) do
    if i > keep.last and not (keep.every > 0 and c.step % keep.every == 0) then os.remove(c.path) end
  end
end

-- What a killed process was writing.
function Folder:remove_leftovers()
  local events = self.dir .. "/events.jsonl"
  local text = disk.read(events)
  if text and not text:match "\n$" and text ~= "" then core.write(events, text:match "^(.*\n)" or "") end
  for _, sub in ipairs { "", "/checkpoints", "/samples" } do
    for _, name in ipairs(core.list(self.dir .. sub)) do
      if name:match("%.tmp%-%d+%-%d+$") then os.remove(self.dir .. sub .. "/" .. name) end
    end
  end
end

-- The path of the picture of a step; the folder is made.
function Folder:sample_path(step)
  core.make_dirs(self.dir .. "/samples")
  return ("%s/samples/step-%07d.png"):format(self.dir, step)
end

return run_folder
