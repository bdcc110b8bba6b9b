//! Names of time zones are looked up when the handler is compiled.

use traffik_actix::throttle;

#[throttle("5/day", strategy = "calendar_window", zone = "Mars")]
async fn zone_that_is_none() {}

#[throttle("5/day", strategy = "time_of_day", zone = "Europe/Belrin")]
async fn zone_that_is_misspelt() {}

fn main() {}
