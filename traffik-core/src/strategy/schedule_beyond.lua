-- Beyond::new
local function beyond(tat_ceil)
  local bits = 0
  while 2 ^ bits < tat_ceil - now do
    bits = bits + 1
  end
  return 4503599627370496 + math.fmod(limit * 31 + capacity, 65521) * 68719476736
      + bits * 1073741824
end
