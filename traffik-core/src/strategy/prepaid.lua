-- schedule::prepaid
local horizon = now + capacity
local changes = after < horizon or after == horizon and after_part <= capacity_part
