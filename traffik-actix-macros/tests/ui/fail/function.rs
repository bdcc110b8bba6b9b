//! Functions that cannot be handlers.
use traffik_actix_macros::throttle;

struct Service;

impl Service {
    #[throttle("100/minute")]
    async fn by_reference(&self) {}

    #[throttle("100/minute")]
    async fn by_value(self: Box<Self>, _id: u32) {}
}

#[throttle("100/minute")]
async fn impl_argument(_body: impl actix_web::FromRequest) {}

#[throttle("100/minute")]
async fn impl_inside(_body: actix_web::web::Json<(u32, impl Sized)>) {}

#[throttle("100/minute")]
const fn constant() {}

#[throttle("100/minute")]
async unsafe fn unsound() {}

#[throttle("100/minute")]
extern "C" fn foreign() {}

fn main() {}
