-- Opened::of, given `tat` and `part`, or nil if the cell has not two words. While something is out on
-- lease, there is an `epoch`.
local epoch, out, before, length, is_late, price_of, pinned, advanced
if not tat then
  tat, part, epoch, out, before, length = words(6)
end
if epoch or lends then
  local rest = math.fmod(period, limit)
  local interval = (period - rest) / limit
  -- Rate::time_for; count × rest ÷ limit in digits of 20 bits, so that nothing exceeds 2^53.
  price_of = function(count)
    local quotient, remainder = 0, 0
    for _, unit in ipairs({1099511627776, 1048576, 1}) do
      local value = remainder * 1048576 + rest * (math.floor(count / unit) % 1048576)
      remainder = math.fmod(value, limit)
      quotient = quotient * 1048576 + (value - remainder) / limit
    end
    local micros = count * interval + quotient
    if micros >= 4503599627370496 then
      return 4503599627370496, 0
    end
    return micros, remainder
  end
  pinned = function(micros, word, at)
    local owed, owed_part = price_of(out + before)
    if owed > capacity or owed == capacity and owed_part > capacity_part then
      owed, owed_part = capacity, capacity_part
    end
    local floor, fraction = at + owed, math.min(word % 1073741824, limit - 1)
    if micros < floor or micros == floor and fraction < owed_part then
      return floor, owed_part
    end
    return micros, word
  end
  advanced = function(micros, word, till)
    while epoch and epoch <= till do
      micros, word = pinned(micros, word, epoch)
      epoch, out, before = epoch + length, 0, out
      if before == 0 then
        epoch = nil
      end
    end
    return micros, word
  end
end
if epoch then
  length = math.min(length, 3600000000)
  out, before = math.min(out, 1099511627776), math.min(before, 1099511627776)
  is_late = epoch > now + length + 1000000
  if is_late then
    epoch = now + length
  end
  tat, part = advanced(tat, part, now)
  if epoch and out + before == 0 then
    epoch = nil
  end
  if epoch then
    tat, part = pinned(tat, part, now)
  end
end
