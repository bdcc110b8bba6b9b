-- CalendarWindow::count. What is wanted of the calendar: when the stretch before the one that is thought to
-- be the present one begins, that one, and the two after it; windows are parts of these of some length.
local cost, limit, length, e0, e1, e2, e3 = unpack('>I8I8I8I8I8I8I8', arguments)

local function window_at(instant)
  local from, to = e0, e1
  if instant >= e2 then
    from, to = e2, e3
  elseif instant >= e1 then
    from, to = e1, e2
  end
  if instant >= from and instant < to then
    local start = instant - (instant - from) % length
    return start, math.min(start + length, to)
  end
end

local start, stop = window_at(now)
local remembered, count = words(2)
if not remembered then
  remembered, count = 0, 0
end
local is_ahead = start and remembered > math.max(stop, now + 1000000)
if is_ahead then
  remembered = stop
end
if start and remembered > now then
  start, stop = window_at(remembered)
end
if not start then
  -- Whoever asks knows what is so far away, and decides as if another writer had come first.
  verdict = 2
elseif remembered >= start then
  start = remembered
else
  count = 0
end
