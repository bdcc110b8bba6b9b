-- Opened::take_back
local takes_back = false
local gone = back + spent
if epoch and gone > 0 then
  local of_term = back_of == epoch and out or back_of + length == epoch and before or 0
  takes_back = of_term >= gone
end
if takes_back then
  if back_of == epoch then
    out = out - gone
  else
    before = before - gone
  end
  local fraction, returned, returned_part = math.min(part % 1073741824, limit - 1), price_of(back)
  local after, after_part = tat - returned, fraction - returned_part
  if after_part < 0 then
    after, after_part = after - 1, after_part + limit
  end
  after, after_part = pinned(after, after_part, now)
  -- schedule::charge_any
  local upper = part - part % 1073741824
  if after ~= tat or after == now and part == upper then
    upper = 0
  end
  if after > now + capacity or after == now + capacity and after_part > capacity_part then
    upper = math.max(upper, beyond(after_part > 0 and after + 1 or after))
  end
  tat, part = after, upper + after_part
  if out + before == 0 then
    epoch = nil
  end
end
