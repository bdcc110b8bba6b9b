-- AdaptiveThrottle::windows, without a gauge: the one in force
local function next_limit(taken, of)
  if taken * 1000000 > of * threshold then
    return math.max(math.floor(of * reduction / 1000000), least)
  end
  return math.min(of + regained, limit)
end

local start, taken, current = words(3)
local late = start and start % period or 0
if not start then
  start, taken, current = now - now % period, 0, limit
else
  start, current = start - late, math.max(limit - current, least)
  local passed = math.floor(math.max(0, now - start) / period)
  if passed > 0 then
    current = math.min(next_limit(taken, current) + regained * (passed - 1), limit)
    start, taken, late = now - now % period, 0, 0
  end
end

-- Kept until the limit has recovered.
local function store(start, taken)
  local lost = math.max(0, limit - next_limit(taken, current))
  take(start + (1 + math.ceil(lost / regained)) * period, start + late, taken, limit - current)
end
