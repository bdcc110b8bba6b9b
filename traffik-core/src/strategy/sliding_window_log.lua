-- SlidingWindowLog::step
local cost, limit, period = unpack('>I8I8I8', arguments)
local left, before = departed(now - period)
local last, total = 0, before
if left < size then
  last, total = pair(size - 1)
end
local taken = (total - before) % WRAP

-- A shorter log that decides alike: of what is left only the last pair matters, and the one that
-- has to leave for this hit to fit.
cell = ''
if left < size then
  cell = pack('>BI8I8I8', 25, 0, before, 0)
end
if cost <= limit - taken then
  local instant = math.max(last, now)
  append(left, before, instant, cost, instant + period)
elseif cost <= limit then
  local leaving = search(left, function(i)
    local _, total_there = pair(i)
    return (total_there - before) % WRAP >= taken + cost - limit
  end)
  if leaving < size - 1 then
    local instant, total_there = pair(leaving)
    cell = cell .. pack('>I8I8', instant, total_there * 4)
  end
end
if left < size then
  cell = cell .. pack('>I8I8', last, total * 4)
end
