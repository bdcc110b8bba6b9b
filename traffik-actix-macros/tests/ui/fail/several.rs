//! One compilation shows everything that is wrong, and the handler stays known to its users.
use actix_web::web;
use traffik_actix_macros::throttle;

#[throttle("100/minit", cost = -1, colour = "red", scope = "here")]
#[throttle(strategy = "gcar", brust = 5)]
async fn all_at_once(_body: impl actix_web::FromRequest) {}

#[throttle("100/minit")]
async fn used() -> &'static str {
    "used"
}

fn main() {
    web::get().to(used);
}
