-- sluice man: the manual page, from the commands' own declarations.
local arguments = require "sluice.cli.arguments"
local sluice = require "sluice"

local FRONT = [=[
.SH NAME
sluice \- train and sample diffusion models with Denoising Task Routing, in Lua
.SH SYNOPSIS
.B sluice
[\fIOPTIONS\fR] [\fIFILE\fR [\fIARGS\fR]]
.br
.B sluice run
\fIFILE\fR [\fIARGS\fR]
.br
.B sluice
\fICOMMAND\fR [\fIARGS\fR]
.SH DESCRIPTION
Without a command, a prompt, or a Lua file that is run as
.BR lua5.4 (1)
does, with the module \fIsluice\fR inside.
The library, the recipes and the samplers are described in the guide; \fBsluice.help(name)\fR tells of a function in a line.
]=]

local BACK = [[
.SH EXIT STATUS
0: it is done; 1: an error, in words on standard error (the command line, a file, the work itself); 130: interrupted by Ctrl-C.
A script that is run may end with a status of its own.
.SH ENVIRONMENT
.TP
.B SLUICE_DEVICE
where to compute, if no option says it: cpu, cuda, cuda:1
.TP
.B SLUICE_MEMORY
the most memory to take, as 24G
.TP
.B SLUICE_ISA
base, avx2 or avx512: holds the CPU's kernels below what the machine has
.TP
.B OMP_NUM_THREADS
compute threads, if no option says it
.TP
.B LUA_INIT_5_4, LUA_INIT, LUA_PATH, LUA_CPATH
as for
.BR lua5.4 (1)
.TP
.B SLUICE_INIT, SLUICE_HISTORY
the prompt's start-up file and the file of its earlier lines; none if empty
.TP
.B NO_COLOR
if it is not empty, pictures in the terminal are drawn without colours
.SH FILES
.TP
.I runs/NAME\-0001
a run: recipe.lua, code/, run.json, metrics.jsonl, events.jsonl, samples/, checkpoints/
.TP
.I ~/.config/sluice/init.lua, ~/.local/state/sluice/history
of the prompt, where SLUICE_INIT and SLUICE_HISTORY name no others
]]

-- Text as groff takes it, whatever encoding it expects.
local function escape(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("\n([.'])", "\n\\&%1"):gsub("^([.'])", "\\&%1")
  return (text:gsub("[\xc2-\xf4][\x80-\xbf]+", function(c) return ("\\[u%04X]"):format(utf8.codepoint(c)) end))
end

-- What stands for an option's or an argument's values in a usage.
local function value_of(element)
  if element._maxargs == 0 then return "" end
  local names = element:_get_argument_list()
  return " " .. table.concat(names, " ")
end

local function add_item(lines, head, text)
  lines[#lines + 1] = ".TP"
  lines[#lines + 1] = (".B %s"):format(escape(head))
  lines[#lines + 1] = escape(text or "")
end

local function add_command(lines, p)
  lines[#lines + 1] = (".SS sluice %s"):format(p._name)
  lines[#lines + 1] = escape(p._description)
  for _, argument in ipairs(p._arguments) do add_item(lines, argument._name, argument._description) end
  for _, option in ipairs(p._options) do
    if not option._hidden and option._name ~= "--help" and option._name ~= "-h" then
      add_item(lines, table.concat(option._public_aliases, ", ") .. value_of(option), option._description)
    end
  end
  if p._epilog then
    lines[#lines + 1] = ".PP\n.nf"
    lines[#lines + 1] = escape(p._epilog)
    lines[#lines + 1] = ".fi"
  end
end

local function page(whole)
  local lines = { (".TH SLUICE 1 \"\" \"sluice %s\" \"User Commands\""):format(sluice.version), (FRONT:gsub("\n$", "")), ".SH OPTIONS" }
  for _, option in ipairs(whole._options) do
    add_item(lines, table.concat(option._public_aliases, ", ") .. value_of(option), option._description)
  end
  lines[#lines + 1] = ".SH COMMANDS"
  for _, command in ipairs(whole._commands) do add_command(lines, command) end
  lines[#lines + 1] = (BACK:gsub("\n$", ""))
  return table.concat(lines, "\n")
end

return {
  summary = "Prints the manual page sluice(1).",
  declare = function() end,
  run = function() arguments.say("%s", page(require("sluice.cli").whole())) end,
  examples = { "sluice man | man -l -", "sluice man > sluice.1" },
}
