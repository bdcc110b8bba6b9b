-- QuotaWithRollover::step
if cost <= limit + rolled - used then
  -- Kept for two more periods.
  take(start + 3 * length, start, used + cost, rolled)
end
