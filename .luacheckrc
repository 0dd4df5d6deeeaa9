std = "lua54"
max_line_length = 140
files["tests/lua"] = {std = "lua54+busted"}
files["recipes"] = {globals = {"sluice"}}
