-- Loan::of_count: what becomes of a count that began at `start`, or nil if the cost does not fit.
local function lent(start, count, limit)
  if start + 1 == back_of and count >= back then
    count = count - back
  end
  local rest = math.max(0, limit - count) - cost
  return rest >= 0 and count + cost + math.min(want, rest) or nil
end
