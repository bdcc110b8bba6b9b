-- CalendarWindow::lend
if start then
  local after = lent(start, count, limit)
  admitted = after ~= nil
  if after and after ~= count then
    take(stop, start, after)
  end
end
