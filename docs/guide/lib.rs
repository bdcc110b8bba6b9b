//! The code in the pages of the guide, and in the README, as tests; and the program that computes their
//! plots.

#[path = "plots/mod.rs"]
pub mod plots;

/// A module for each page whose code is compiled.
macro_rules! pages {
    ($($name:ident: $file:literal)*) => {$(
        #[cfg(doctest)]
        #[doc = include_str!($file)]
        mod $name {}
    )*};
}

pages! {
    readme: "../../README.md"
    first_limit: "pages/first-limit.md"
    who_asks: "pages/who-asks.md"
    strategies: "pages/strategies.md"
    several_limits: "pages/several-limits.md"
    concurrency: "pages/concurrency.md"
    costs: "pages/costs.md"
    by_hand: "pages/by-hand.md"
    responses: "pages/responses.md"
    waiting: "pages/waiting.md"
    websockets: "pages/websockets.md"
    backends: "pages/backends.md"
    redis: "pages/redis.md"
    failures: "pages/failures.md"
    leases: "pages/leases.md"
    operating: "pages/operating.md"
    changing: "pages/changing.md"
    file: "pages/file.md"
    testing: "pages/testing.md"
    custom: "pages/custom.md"
}
