-- TimeOfDay::part at a constant offset from UTC. The hours follow the other arguments: from and to
-- in minutes, and the limit.
local cost, limit, period, offset, count = unpack('>I8I8I8I8I8', arguments)
local DAY, MINUTE, LONGEST_PART = 86400000000, 60000000, 93600000000

local hours = {}
for i = 1, count do
  hours[i] = {unpack('>I8I8I8', arguments, 17 + 24 * i)}
end

-- `offset` is positive: a day was added to it where it was not.
local function local_time(instant)
  return (instant % DAY + offset) % DAY
end

local function hours_at(instant)
  local minute = math.floor(local_time(instant) / MINUTE)
  for i = 1, count do
    local from, to = hours[i][1], hours[i][2]
    if from < to then
      if from <= minute and minute < to then
        return i
      end
    elseif from <= minute or minute < to then
      return i
    end
  end
  return 0
end

-- The next instant at which other hours apply.
local function next_edge(after)
  local before, instant = hours_at(after), after
  while instant < after + 2 * LONGEST_PART do
    local time, ahead = local_time(instant), DAY
    for i = 1, count do
      for side = 1, 2 do
        local edge = hours[i][side] * MINUTE % DAY
        ahead = math.min(ahead, edge > time and edge - time or edge + DAY - time)
      end
    end
    instant = instant + ahead
    if hours_at(instant) ~= before then
      return instant
    end
  end
end

local remembered, taken = words(2)
if not remembered then
  remembered, taken = 0, 0
end
local is_ahead = remembered > now + math.max(period, 1000000)
if is_ahead then
  remembered = now - now % period + period
end
local instant = math.max(now, remembered)
local aligned = instant - instant % period
local start, edge = aligned, next_edge(math.max(aligned, instant - LONGEST_PART))
while edge and edge <= instant do
  start, edge = edge, next_edge(edge)
end
if remembered >= start then
  start = remembered
else
  taken = 0
end
