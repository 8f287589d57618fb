-- Has health.lua judge what the controller writes: health_cases.lua, which is made from its code.
-- `make test-argocd`, or here: lua5.4 health_test.lua

-- The status, and how the message begins.
local expected = {
  ["Adopting"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["Stable"] = { "Healthy", "v2 serves" },
  ["Coexisting"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["AwaitingPromotion"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["ProvingRoutes"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["Holding"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["Committing"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["Switching"] = { "Progressing", "v2 is asked for and does not serve everywhere yet" },
  ["Settling"] = { "Progressing", "v1 has to be unused for 10s" },
  ["Retaining"] = { "Healthy", "v2 serves" },
  ["Removing"] = { "Healthy", "v2 serves" },
  ["switched and cleaned up"] = { "Healthy", "v2 serves" },
  ["waits for a promotion"] = { "Suspended", "a sentence about it" },
  ["suspended in a switch"] = { "Suspended", "a sentence about it" },
  ["suspended at rest"] = { "Suspended", "a sentence about it" },
  ["blocked before the flip"] = { "Degraded", "HeadroomShort: a sentence about it" },
  ["blocked after the flip"] = { "Degraded", "Laggards: a sentence about it" },
  ["blocked while it settles"] = { "Degraded", "QuietUnknown: a sentence about it" },
  ["a route leads past it"] = { "Degraded", "RouteConflict: a VirtualService has its host too" },
  ["the active version is not ready"] = { "Degraded", "ActiveNotReady: a sentence about it" },
  ["goes back"] = { "Degraded", "v1 is held although the spec asks for v2: rollback by request" },
  ["taken back"] = { "Degraded", "v1 is held although the spec asks for v2: check errors failed for v2" },
  ["not understood"] = { "Degraded", "UnreadableSpec: the spec is not one that this controller understands" },
  ["an edit that nobody has looked at"] = { "Progressing", "the controller has not looked at it yet" },
  ["a flag that nobody has looked at"] = { "Progressing", "the controller has not looked at it yet" },
}

local cases = dofile("health_cases.lua")
local script = assert(io.open("health.lua")):read("a")
local sub = string.sub

-- What Argo CD opens, and no more.
local function judge(resource)
  local sandbox = { obj = resource, ipairs = ipairs, pairs = pairs, type = type, tostring = tostring, table = table }
  local chunk = assert(load(script, "health.lua", "t", sandbox))
  local strings = getmetatable("").__index
  getmetatable("").__index = nil
  local fine, hs = pcall(chunk)
  getmetatable("").__index = strings
  assert(fine, hs)
  return hs
end

local wrong, judged = 0, 0
for name, want in pairs(expected) do
  local hs = cases[name] and judge(cases[name]) or { status = "no such case", message = "" }
  judged = judged + 1
  if hs.status ~= want[1] or sub(hs.message, 1, #want[2]) ~= want[2] then
    print(name .. ": " .. hs.status .. ", " .. hs.message .. "; expected " .. want[1] .. ", " .. want[2])
    wrong = wrong + 1
  end
end
for name in pairs(cases) do
  if expected[name] == nil then
    print(name .. ": nobody has said what is expected of it")
    wrong = wrong + 1
  end
end
print(judged .. " cases judged, " .. wrong .. " wrong")
os.exit(wrong == 0 and judged > 20)
