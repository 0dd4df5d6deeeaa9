-- The pages of the reference: which names stand where, and in which order.
--   id, title, intro, sections { {title, text, names…} … }: a name is one of an entry, or a pattern of names ("^sluice%.io%."); a class
-- brings its methods and fields, "operations" the operations in groups.
local areas = {
  {
    id = "tensors", title = "Tensors and operations",
    intro = "A tensor holds numbers of one dtype in a shape of up to eight dimensions. Dimensions and positions count from 1, or from the "
      .. "end with -1; ranges include both ends.",
    sections = {
      { "Making tensors", nil, "sluice.tensor", "sluice.zeros", "sluice.ones", "sluice.full", "sluice.arange", "sluice.randn",
        "sluice.rand", "sluice.randint", "sluice.eye", "sluice.linspace", "sluice.seed", "sluice.is_tensor" },
      { "Tensors", nil, "sluice.Tensor" },
      { "Gradients", nil, "sluice.value_and_grad" },
      { "Operations", "Each is a function and, where its first argument is a tensor, a method: `sluice.softmax(x, 1)` and `x:softmax(1)`. "
        .. "Arguments stand in the order below, or the last of them by name in a table: `x:sum { keepdim = true }`. Operands broadcast as "
        .. "numpy's, and a number stands for a tensor; dtypes promote u8 < i32 < i64 < bf16 < f32. A list argument also takes one number. "
        .. "`dims = {}` means all dimensions; with `keepdim` the result keeps them, of size 1.", "operations" },
    },
  },
  {
    id = "models", title = "Models",
    intro = "A model is a description until it computes: its weights come into being at first use, with `model:init(seed)` or with "
      .. "`model:load_state`.",
    sections = { { "Making models", nil, "sluice.dit", "sluice.adm" }, { "Models", nil, "sluice.Model" },
      { "Blocks in Lua", nil, "sluice.Builder" } },
  },
  {
    id = "routing", title = "Routing",
    intro = "A routing says which channels of each block work at timestep t; when a model is made, it becomes tables of zeros and ones.",
    sections = { { "Making routings", nil, "sluice.routing", "^sluice%.routing%." }, { "Routings", nil, "sluice.Routing" } },
  },
  {
    id = "diffusion", title = "Diffusion",
    intro = "The diffusion process: its schedule, its functions of tensors, and the weights of its loss.",
    sections = {
      { "The process", nil, "sluice.diffusion", "sluice.Diffusion" },
      { "Loss weights", nil, "sluice.weight", "^sluice%.weight%.", "sluice.Weight" },
    },
  },
  {
    id = "sampling", title = "Sampling",
    intro = "Images from a model, by itself or with what a checkpoint stores.",
    sections = {
      { "Drawing images", nil, "sluice.sample", "sluice.Made", "sluice.sampler", "sluice.Sampler", "sluice.slerp" },
      { "Samplers in Lua", nil, "sluice.Step" },
      { "What training left", nil, "sluice.load", "sluice.Loaded" },
    },
  },
  {
    id = "training", title = "Training and recipes",
    intro = "A recipe describes a run; `sluice.train` runs it. `sluice.trainer` is the trainer below, a step at a time.",
    sections = {
      { "Recipes", nil, "sluice.recipe", "sluice.Recipe", "sluice.Description" },
      { "Runs", nil, "sluice.train", "sluice.Run", "^sluice%.sweep" },
      { "Learning-rate schedules", nil, "sluice.schedule", "^sluice%.schedule%." },
      { "How training draws timesteps", nil, "sluice.timesteps", "^sluice%.timesteps%.", "sluice.Timesteps" },
      { "The trainer", nil, "sluice.trainer", "sluice.Trainer" },
    },
  },
  {
    id = "data", title = "Data and files",
    intro = "Images to train on, pictures, files of tensors, JSON.",
    sections = {
      { "Data sets", nil, "sluice.data", "^sluice%.data%.", "sluice.Dataset" },
      { "Pictures", nil, "sluice.load_image", "sluice.png_text", "sluice.save_png", "sluice.show", "sluice.center_crop" },
      { "Files of tensors", nil, "sluice.io", "^sluice%.io%." },
      { "JSON", nil, "sluice.json", "^sluice%.json%." },
    },
  },
  {
    id = "program", title = "Program and system",
    intro = "What Sluice tells of itself and of the machine. The program's commands tell of themselves: `sluice train --help`.",
    sections = { { "The module", nil, "sluice.version", "sluice.help" }, { "The machine", nil, "sluice.devices", "sluice.memory",
      "sluice.threads", "sluice.set_threads" },
      { "The prompt", nil, "sluice.repl", "^sluice%.repl%." }, { "Other names", nil, "^sluice%." } },
  },
}

-- The names of objects in examples and before methods, by class: "sluice.Tensor" -> "tensor".
local function receiver(class)
  return class:match "%.(%u[%w_]*)$":lower()
end

local function by_name(entries)
  local map = {}
  for _, e in ipairs(entries) do map[e.name] = e end
  return map
end

-- Methods and fields of a class, as they stand in the source.
local function members(entries, class)
  local list, prefix = {}, receiver(class)
  for _, kind in ipairs { "field", "method" } do
    for _, e in ipairs(entries) do
      if e.kind == kind and e.name:match "^([%w_]+)[.:]" == prefix then list[#list + 1] = e end
    end
  end
  return list
end

-- An entry, and the members of a class, unless they stand somewhere already.
local function add(list, e, taken, entries)
  if taken[e.name] then return end
  taken[e.name] = true
  list[#list + 1] = e
  if e.kind ~= "class" then return end
  for _, m in ipairs(members(entries, e.name)) do add(list, m, taken, entries) end
end

local function section_of(row, entries, operations, map, taken)
  local section = { title = row[1], text = row[2], entries = {} }
  for i = 3, #row do
    local name = row[i]
    if name == "operations" then
      section.operations = operations
    elseif map[name] then
      add(section.entries, map[name], taken, entries)
    elseif name:sub(1, 1) == "^" then
      for _, e in ipairs(entries) do
        if e.name:match(name) then add(section.entries, e, taken, entries) end
      end
    end
  end
  return section
end

-- Fields of the entry that a table's @fields names; an empty list without one.
local function fields_of(source, p)
  local other = p.fields.of and source.by_name[p.fields.of]
  if p.fields.of and not other then error(("@fields: there is no %s"):format(p.fields.of), 0) end
  for _, q in ipairs(other and other.params or {}) do
    if #q.fields > 0 then return q.fields end
  end
  return other and other.fields or {}
end

-- The pages with their entries; the last one takes what no other one names.
local function collect(entries, operations)
  local pages, map, taken = {}, by_name(entries), {}
  for _, area in ipairs(areas) do
    local page = { id = area.id, title = area.title, intro = area.intro, sections = {} }
    for _, row in ipairs(area.sections) do
      local section = section_of(row, entries, operations, map, taken)
      if #section.entries > 0 or section.operations then page.sections[#page.sections + 1] = section end
    end
    pages[#pages + 1] = page
  end
  for _, e in ipairs(entries) do -- members of a class without a comment
    if not taken[e.name] then
      local last = pages[#pages].sections
      add(last[#last].entries, e, taken, entries)
    end
  end
  return pages
end

return { collect = collect, receiver = receiver, members = members, fields_of = fields_of }
