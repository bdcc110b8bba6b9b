-- Opened::store, if it is `admitted` and anything changes.
if changes and epoch then
  local kept = {after, word, epoch, out, before, length}
  local over, over_part = advanced(after, after_part, math.huge)
  take(over_part > 0 and over + 1 or over, spread(kept))
elseif changes then
  take(after_ceil, after, word)
end
