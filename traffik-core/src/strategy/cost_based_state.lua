-- CostBasedTokenBucket::state
local limit, price, price_part, capacity, capacity_part, window, least, cost =
    unpack('>I8I8I8I8I8I8I8I8', arguments)

-- In millionths of the rate.
local function pace(hits, total)
  local average = total > 0 and math.floor(hits * 1000000 / total) or 1000000
  return math.min(math.max(average, least), 1000000)
end

-- The time in which so many µs at the full rate are regained.
local function time_for(pace_now, us, carry)
  local rest = us % pace_now
  local whole, wanted = (us - rest) / pace_now * 1000000, rest * 1000000
  if wanted >= carry then
    return whole + math.ceil((wanted - carry) / pace_now)
  end
  return whole - math.floor((carry - wanted) / pace_now)
end

local since, missing, part, carry, total, hits, costs = now, 0, 0, 0, 0, 0, ''
local word = 0
local stored = (#cell - 57) / 16
if cell:byte() == 29 and stored >= 1 and stored % 1 == 0 then
  local then_since, then_missing, then_part, then_carry, then_total =
      unpack('>I8I8I8I8I8', cell, 10)
  word = then_part
  if math.floor(then_total / stored) <= 4294967295 then
    local pace_then, elapsed = pace(stored, then_total), math.max(0, now - then_since)
    local regained = elapsed % 1000000 * pace_then + math.min(then_carry, 999999)
    carry = regained % 1000000
    regained = math.floor(elapsed / 1000000) * pace_then + (regained - carry) / 1000000
    missing, part = then_missing - regained, math.min(then_part % 1073741824, limit - 1)
    if missing < 0 or missing == 0 and part == 0 then
      missing, part, carry = 0, 0, 0
    else
      since, total, hits, costs = math.max(then_since, now), then_total, stored, cell:sub(58)
    end
  end
end

-- CostBasedTokenBucket::remember
local function remember()
  -- As many as were remembered where the window was longer, and cut off at once: each cut copies the rest.
  local gone = math.max(0, hits - window + 1)
  for i = 1, gone do
    total = math.max(0, total - unpack('>I8', costs, 16 * i - 15))
  end
  total, hits = total + cost, hits - gone + 1
  costs = costs:sub(16 * gone + 1) .. pack('>I8I8', cost, 0)
end

local function store(word)
  local wait = 0
  if missing > 0 or part > 0 then
    wait = time_for(pace(hits, total), part > 0 and missing + 1 or missing, carry)
  end
  admitted, expires = true, math.min(since + wait, 9007199254740991)
  new = pack('>BI8I8I8I8I8I8I8', 29, expires, since, missing, word, carry, total, 0) .. costs
end

