-- schedule::settle, given the stored arrival time as `tat` and `word`. It becomes `after` and
-- `after_word`, unless it is as it was: then `after` is nil. A price to give back is what is left of it.
if not tat or tat < now then
  tat, word = now, 0
end
local upper, stored_tat = word - word % 1073741824, tat
local part, mark = math.min(word % 1073741824, limit - 1), math.fmod(limit * 31 + capacity, 65521)
local ahead = is_late or false
if tat > now + capacity + 1000000 then
  local owed, owed_part = capacity, capacity_part
  if word >= 4503599627370496 and math.floor(word / 68719476736) % 65536 == mark then
    local most = 2 ^ (math.floor(word / 1073741824) % 64)
    if most > owed then
      owed, owed_part = most, 0
    end
  end
  if tat > now + owed + 1000000 then
    tat, part, ahead = now + owed, owed_part, true
  end
end

local after, after_part
if refund == 1 then
  after, after_part = tat - price, part - price_part
  if after_part < 0 then
    after, after_part = after - 1, after_part + limit
  end
  if after < now then
    after, after_part = now, 0
  end
  if epoch then
    after, after_part = pinned(after, after_part, now)
  end
else
  after, after_part = tat + price, part + price_part
  if after_part >= limit then
    after, after_part = after + 1, after_part - limit
  end
  if after >= now + 4503599627370496 then
    after, after_part = now + 4503599627370496, 0
  end
end
if after ~= stored_tat or after == now and word % 1073741824 == 0 then
  upper = 0
end
local after_word, after_ceil = after_part + upper, after_part > 0 and after + 1 or after
if not ahead and after == tat and after_part == part then
  after = nil
elseif after > now + capacity or after == now + capacity and after_part > capacity_part then
  local bits = 0
  while 2 ^ bits < after_ceil - now do
    bits = bits + 1
  end
  local beyond = 4503599627370496 + mark * 68719476736 + bits * 1073741824
  after_word = math.max(beyond, upper) + after_part
end
admitted = true
