-- Gcra::post_paid; 2^52 µs is Span::MAX, too long to ever be paid for.
local horizon = now + unpack('>I8', arguments, 49)
local changes = (tat < horizon or tat == horizon and part == 0) and price < 4503599627370496
if changes then
  -- schedule::charge_any
  local owed = now + capacity
  if after > owed or after == owed and after_part > capacity_part then
    local bits = 0
    while 2 ^ bits < after_ceil - now do
      bits = bits + 1
    end
    local beyond = 4503599627370496 + math.fmod(limit * 31 + capacity, 65521) * 68719476736
        + bits * 1073741824
    word = math.max(beyond, word - after_part) + after_part
  end
end
