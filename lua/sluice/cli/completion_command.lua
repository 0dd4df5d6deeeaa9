-- sluice completion SHELL
local arguments = require "sluice.cli.arguments"

local SHELLS = { "bash", "zsh", "fish" }

return {
  summary = "Prints what makes a shell complete sluice's commands and options.",
  declare = function(p)
    local shell = p:argument("shell", "bash, zsh or fish")
    arguments.choice(shell, SHELLS)
  end,
  run = function(o)
    local whole = require("sluice.cli").whole()
    local text = whole["get_" .. o.shell .. "_complete"](whole):gsub("\n$", "")
    if o.shell == "bash" then text = text:gsub("\ncomplete ", "\ncomplete -o filenames ") end -- a folder's name ends in /
    arguments.say("%s", text)
  end,
  examples = {
    "source <(sluice completion bash)", "sluice completion zsh > ~/.zfunc/_sluice",
    "sluice completion fish > ~/.config/fish/completions/sluice.fish",
  },
}
