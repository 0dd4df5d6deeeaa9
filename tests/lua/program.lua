-- The program under test: its path, a run of it, and scripts to run.
local program = { path = os.getenv "SLUICE_BINARY" or "build/sluice" }

-- The name of a file with this text.
function program.script(text)
  local name = os.tmpname()
  local file <close> = assert(io.open(name, "w"))
  file:write(text)
  return name
end

-- stdout and stderr together, and the exit status.
function program.run(arguments)
  local pipe = assert(io.popen(program.path .. " " .. arguments .. " 2>&1"))
  local text = pipe:read "a"
  local _, _, code = pipe:close()
  return text, code
end

return program
