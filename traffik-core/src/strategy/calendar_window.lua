-- CalendarWindow::step
if start and cost <= limit - count then
  take(stop, start, count + cost)
end
