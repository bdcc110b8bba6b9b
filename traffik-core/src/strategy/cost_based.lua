-- CostBasedTokenBucket::step
missing, part = missing + price, part + price_part
if part >= limit then
  missing, part = missing + 1, part - limit
end
if missing < capacity or missing == capacity and part <= capacity_part then
  remember()
  store(part)
end
