//! What only the compiler finds out about a handler.
use actix_web::{App, web};
use traffik_actix::throttle;

struct Shop<S>(S);

impl<S: ToString + 'static> Shop<S> {
    #[throttle("100/minute")]
    async fn generics_of_the_impl(shelf: web::Data<S>) -> String {
        shelf.to_string()
    }
}

type Answer = u32;

#[throttle("100/minute")]
fn no_async() -> Answer {
    5
}

#[throttle("100/minute")]
async fn no_extractor(_number: u32) -> &'static str {
    "extracted"
}

#[throttle("100/minute")]
async fn no_responder() -> u32 {
    5
}

fn main() {
    let _ = App::new().route("/", web::get().to(no_async));
}
