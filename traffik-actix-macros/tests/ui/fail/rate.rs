//! Rates are read by the parser of the library.
use traffik_actix_macros::throttle;

#[throttle]
async fn missing() {}

#[throttle(cost = 5)]
async fn missing_among_others() {}

#[throttle("100/minute")]
#[throttle(strategy = "gcra")]
async fn missing_below() {}

#[throttle("")]
async fn empty() {}

#[throttle("100")]
async fn no_period() {}

#[throttle("-5/minute")]
async fn negative() {}

#[throttle("5/fortnight")]
async fn unknown_unit() {}

#[throttle("5/5.5s")]
async fn bad_period() {}

#[throttle("0/minute")]
async fn zero() {}

#[throttle(rate = "5/0s")]
async fn zero_period() {}

#[throttle(rate = "1000000001/s")]
async fn too_much() {}

#[throttle(rate = "1/367d")]
async fn too_long() {}

#[throttle(rate = 100)]
async fn number() {}

#[throttle(rate_by = "100/minute")]
async fn text_for_a_function() {}

macro_rules! limited {
    ($name:ident $rate:literal) => {
        #[throttle($rate)]
        async fn $name() {}
    };
}
limited!(from_a_macro "5/x");

fn main() {}
