-- Files and folders for the tests.
local core = require "sluice.core"

local files = {}

function files.read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

function files.write(path, text)
  local f <close> = assert(io.open(path, "wb"))
  assert(f:write(text))
end

-- A new folder.
function files.temporary()
  local path = os.tmpname()
  os.remove(path)
  core.make_dirs(path)
  return path
end

return files
