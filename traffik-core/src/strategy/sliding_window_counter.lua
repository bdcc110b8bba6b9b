-- SlidingWindowCounter::step
local cost, limit, period = unpack('>I8I8I8', arguments)
local start, current, previous = words(3)
local late = start and start % period or 0
start = start and start - late
if not start then
  start, current, previous = now - now % period, 0, 0
elseif now >= start + period then
  local aligned = now - now % period
  previous = aligned < start + 2 * period and current or 0
  start, current, late = aligned, 0, 0
end

-- a × b as multiples of 2^48 and of 1: neither part, nor any step, exceeds 2^53.
local function product(a, b)
  local a_low, b_low = a % 16777216, b % 16777216
  local a_high, b_high = (a - a_low) / 16777216, (b - b_low) / 16777216
  local one, two = a_high * b_low, a_low * b_high
  local one_low, two_low = one % 16777216, two % 16777216
  local low = a_low * b_low + (one_low + two_low) * 16777216
  local low_low = low % 281474976710656
  return a_high * b_high + (one - one_low + two - two_low) / 16777216
      + (low - low_low) / 281474976710656, low_low
end

local rest = math.max(0, period - math.max(0, now - start))
local room = limit - current - cost
if room >= 0 then
  -- Whether what lingers, previous × rest ÷ period rounded up, is at most the room.
  local high, low = product(previous, rest)
  local high_room, low_room = product(room, period)
  if high < high_room or high == high_room and low <= low_room then
    take(start + 2 * period, start + late, current + cost, previous)
  end
end
