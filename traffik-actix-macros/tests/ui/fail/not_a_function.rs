//! Items that are no functions.
use traffik_actix_macros::throttle;

#[throttle("100/minute")]
struct Handler;

#[throttle("100/minute")]
impl Handler {}

#[throttle("100/minute")]
pub const HANDLER: Handler = Handler;

trait Promise {
    #[throttle("100/minute")]
    fn without_body();
}

fn main() {}
