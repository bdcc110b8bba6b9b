-- Gcra::post_paid; 2^52 µs is Span::MAX, too long to ever be paid for.
if (tat < horizon or tat == horizon and part == 0) and price < 4503599627370496 then
  take(after_ceil, after, after_part)
end
