-- Settlement::of_count, given whether it is a refund, its amount and its age.
local function settled(count, elapsed, most)
  if refund == 1 then
    return age <= elapsed and math.max(0, count - amount) or count
  end
  return math.max(count, math.min(count + amount, most))
end
