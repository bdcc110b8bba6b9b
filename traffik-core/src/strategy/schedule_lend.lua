-- out::lend, once what is given back is back, and `after` what the cost makes of it
local horizon, due, due_part = now + capacity, tat + need, part + need_part
if due_part >= limit then
  due, due_part = due + 1, due_part - limit
end
admitted = need + need_part == 0
    or due < horizon or due == horizon and due_part <= capacity_part
local changes = admitted and (takes_back or need + need_part > 0)
if admitted then
  if need + need_part > 0
      and (after > horizon or after == horizon and after_part > capacity_part) then
    -- schedule::charge_any
    word = math.max(beyond(after_ceil), word - after_part) + after_part
  end
  -- Opened::lend
  local left, left_part = horizon - after, capacity_part - after_part
  if left_part < 0 then
    left, left_part = left - 1, left_part + limit
  end
  local function fits(count)
    local price, price_part = price_of(count)
    return price < left or price == left and price_part <= left_part
  end
  local most, amount = want, 0
  if epoch then
    most = math.min(want, math.max(0, 1099511627776 - out - before))
  end
  if left >= 0 then
    -- About Rate::earned_in, then exactly.
    amount = math.min(most, math.floor((left * limit + left_part) / period))
    while amount > 0 and not fits(amount) do
      amount = amount - 1
    end
    while amount < most and fits(amount + 1) do
      amount = amount + 1
    end
  end
  if amount > 0 then
    if not epoch then
      epoch, out, before, length = now + asked, 0, 0, asked
    end
    out, changes = out + amount, true
    local price, price_part = price_of(amount)
    local total, total_part = after + price, after_part + price_part
    if total_part >= limit then
      total, total_part = total + 1, total_part - limit
    end
    -- schedule::kept
    local upper = word - word % 1073741824
    if total ~= after or after == now and word == upper then
      upper = 0
    end
    after, after_part, word = total, total_part, upper + total_part
    after_ceil = after_part > 0 and after + 1 or after
  end
end
