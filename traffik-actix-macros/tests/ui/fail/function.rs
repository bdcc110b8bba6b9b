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

#[throttle("100/minute")]
fn no_async() -> &'static str {
    "said once, though it is used"
}

#[throttle("100/minute")]
fn no_async_and_nothing() {}

#[throttle("100/minute")]
#[actix_web::get("/")]
fn no_async_routed() -> impl actix_web::Responder {
    "routed"
}

#[throttle("100/minute")]
fn no_async_result() -> actix_web::Result<String> {
    Ok(String::new())
}

impl Service {
    const NAME: &'static str = "service";

    #[throttle("100/minute")]
    async fn self_in_the_body() -> String {
        format!("{}", Self::NAME)
    }

    #[throttle("100/minute", original = beside)]
    async fn self_in_the_signature(_service: Option<actix_web::web::Data<Self>>) {}
}

#[throttle("100/minute", original = same)]
async fn same() {}

#[throttle("100/minute", original = some::path)]
async fn elsewhere() {}

#[throttle("100/minute", original = "text")]
#[throttle("5/s", original = other)]
#[throttle("5/s", original = one_more)]
async fn a_text_and_twice() {}

fn main() {
    let _ = actix_web::App::new()
        .route("/", actix_web::web::get().to(no_async))
        .service(no_async_routed);
}
