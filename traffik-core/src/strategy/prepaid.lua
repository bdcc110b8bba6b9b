-- schedule::prepaid
if after < horizon or after == horizon and after_part <= capacity_part then
  take(after_ceil, after, after_part)
end
