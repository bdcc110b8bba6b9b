-- AdaptiveThrottle::step
if cost <= current - taken then
  store(start, taken + cost)
end
