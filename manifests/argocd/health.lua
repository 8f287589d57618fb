-- Argo CD's health of a VersionFlag, by its conditions. How to install it: docs/gitops.md in the repository.
-- Argo CD runs it without Lua's library for strings.
local hs = { status = "Progressing", message = "the controller has not looked at it yet" }

-- What is about an earlier edit says nothing of this one.
local found = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.observedGeneration == nil or condition.observedGeneration == obj.metadata.generation then
      found[condition.type] = condition
    end
  end
end

local function is_true(kind)
  return found[kind] ~= nil and found[kind].status == "True"
end

local ready = found["Ready"]
if ready == nil then
  return hs
end

if is_true("Stalled") then
  hs.status = "Degraded"
  hs.message = found["Stalled"].reason .. ": " .. found["Stalled"].message
elseif ready.reason == "Overridden" then
  hs.status = "Degraded"
  hs.message = ready.message
elseif obj.status.blockedBy ~= nil and (ready.reason == "Suspended" or ready.reason == "AwaitingPromotion") then
  -- It is well, and waits for a person.
  hs.status = "Suspended"
  hs.message = ready.message
elseif is_true("Ready") and is_true("Reconciling") and not is_true("Settled") then
  hs.message = found["Settled"] ~= nil and found["Settled"].message or ready.message
elseif is_true("Ready") then
  -- Once traffic has moved nothing is asked of anybody, while the old version stays for a rollback or is removed.
  hs.status = "Healthy"
  hs.message = ready.message
else
  hs.message = ready.message
end
return hs
