//! Slips of the first hour, in the words of the library.
use actix_web::{App, HttpRequest};
use traffik_actix::{
    ClientIp, HttpThrottle, Identity, MemoryBackend, Rate, Rule, ThrottleBackend, ThrottleMiddleware,
};

async fn from_a_store(_: &HttpRequest) -> Identity {
    Identity::ANONYMOUS
}

fn api_key(req: &HttpRequest) -> Option<Identity> {
    Some(Identity::of(req.headers().get("x-api-key")?.to_str().ok()?))
}

fn async_identify() {
    let _ = HttpThrottle::builder("api").identify(from_a_store);
    let _ = ThrottleBackend::new(MemoryBackend::new()).identify(from_a_store);
}

fn optional_identify() {
    let _ = HttpThrottle::builder("api").identify(api_key);
    let _ = ThrottleBackend::new(MemoryBackend::new()).identify(|req: &HttpRequest| api_key(req));
}

fn text_for_an_identity() {
    let _ = HttpThrottle::builder("api").identify(|req: &HttpRequest| req.path().to_owned());
}

async fn rate_from_a_store(_: &HttpRequest) -> Rate {
    Rate::per_minute(5)
}

fn async_rate() {
    let _ = HttpThrottle::builder("api").rate_by(rate_from_a_store);
}

fn number_for_a_rate() {
    let _ = HttpThrottle::builder("api").rate(100);
}

fn number_for_a_strategy() {
    let _ = HttpThrottle::builder("api").strategy(5);
}

fn unbuilt_in_a_middleware() {
    let api = HttpThrottle::builder("api").rate("100/minute");
    let _ = ThrottleMiddleware::new(api);
}

fn unbuilt_rule() {
    let api = HttpThrottle::builder("api").rate("100/minute");
    let _ = Rule::new(api);
}

fn unchecked_in_a_middleware() {
    let api = HttpThrottle::builder("api").rate("100/minute").build();
    let _ = ThrottleMiddleware::new(api);
}

fn unbuilt_around_an_application() {
    let api = HttpThrottle::builder("api").rate("100/minute");
    let _ = App::new().wrap(api);
}

fn unbuilt_backend() {
    let _ = ThrottleBackend::new(MemoryBackend::builder());
}

fn one_network() {
    let _ = ClientIp::peer().trust("10.0.0.0/8");
}

fn main() {}
