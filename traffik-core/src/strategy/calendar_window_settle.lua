-- CalendarWindow::settle
if start then
  local after = settled(count, math.max(0, now - start), 4503599627370496)
  admitted = true
  if is_ahead or after ~= count then
    take(stop, start, after)
  end
end
