-- schedule::arrival, given the stored one as `tat` and `part`, and what this hit would make of it.
-- Spans are whole µs and parts of 1/limit.
if not tat or tat < now then
  tat, part = now, 0
end
local upper = part - part % 1073741824
part = part - upper
if tat == now and part == 0 then
  upper = 0
end
part = math.min(part, limit - 1)
local after, after_part = tat + price, part + price_part
if after_part >= limit then
  after, after_part = after + 1, after_part - limit
end
local after_ceil = after_part > 0 and after + 1 or after
-- schedule::kept
local word = after == tat and after_part + upper or after_part
