-- sluice help
local arguments = require "sluice.cli.arguments"

return {
  summary = "Lists the commands, or tells how one is called.",
  declare = function(p)
    local command = p:argument("command", "one of those that `sluice help` lists"):args "?"
    command.words = require("sluice.cli").names() -- for completion; a wrong one is answered with the nearest below
  end,
  run = function(o)
    local cli = require "sluice.cli"
    if o.command then return arguments.say("%s", (cli.parser(o.command):get_help():gsub("\n$", ""))) end
    arguments.say("A prompt: sluice. A Lua file: sluice FILE [ARGS], sluice run FILE [ARGS]. Commands:\n")
    for _, name in ipairs(cli.names()) do arguments.say("  %-11s %s", name, cli.command(name).summary) end
    arguments.say("\n`sluice COMMAND --help` and `sluice help COMMAND` tell more; `sluice man` is the manual.")
  end,
  examples = { "sluice help", "sluice help sample" },
}
