-- SlidingWindowLog::step and PriorityQueue::step: hits count for a period, and up to `most` of them.
local cost, limit, period, most, tag, merged = unpack('>I8I8I8I8I8I8', arguments)
local left, before = departed(now - period)
local last, total = 0, before
if left < size then
  last, total = pair(size - 1)
end
local taken = (total - before) % WRAP

-- A shorter log that decides alike: what matters of the rest is the last pair, and the one that has
-- to leave for this hit to fit; but all of them if there are about too many.
cell = ''
if left < size then
  cell = pack('>BI8I8I8', 25, 0, before, 0)
end
local whole = size - left >= most - 1
if whole and left < size then
  cell = cell .. call('GETRANGE', key, base + 16 * left, -1)
end

if size - left < most and cost <= limit - taken then
  local instant = math.max(last, now)
  append(left, before, instant, cost, tag, merged == 1, instant + period)
elseif not whole and cost <= limit then
  local leaving = search(left, function(i)
    local _, total_there = pair(i)
    return (total_there - before) % WRAP >= taken + cost - limit
  end)
  if leaving < size - 1 then
    local instant, total_there = pair(leaving)
    cell = cell .. pack('>I8I8', instant, total_there * 4)
  end
end
if not whole and left < size then
  cell = cell .. pack('>I8I8', last, total * 4)
end
