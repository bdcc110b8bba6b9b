//! The contestants: the same application, limited in different ways.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use actix_extensible_rate_limit::RateLimiter;
use actix_extensible_rate_limit::backend::SimpleInputFunctionBuilder;
use actix_extensible_rate_limit::backend::memory::InMemoryBackend;
use actix_web::dev::Service;
use actix_web::{App, HttpServer, get, web};
use traffik_actix::{
    HeaderStyle, Headers, HttpThrottle, MemoryBackend, ThrottleBackend, ThrottleMiddleware,
    throttle,
};
use traffik_benches::pin;

/// Never denies, and is the same for everybody.
const RATE: &str = "1000000000/hour";

/// A server that runs until the process ends.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    /// Where the kernel says how long the worker ran.
    schedstat: PathBuf,
}

impl Server {
    /// How long the worker was on a processor until now.
    pub(crate) fn worker_time(&self) -> Duration {
        let text = std::fs::read_to_string(&self.schedstat).expect("Linux, and the worker lives");
        let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanos.expect("nanoseconds come first"))
    }
}

/// Starts an application on one worker, on the first core. A macro, since the type of an `App`
/// cannot be written down.
macro_rules! serve {
    ($name:literal, $app:expr) => {{
        let app = $app;
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let factory = move || {
                // This runs on the worker.
                pin(0);
                let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
                let _ = tell.send(PathBuf::from("/proc").join(thread).join("schedstat"));
                app()
            };
            let server = HttpServer::new(factory).workers(1);
            let server = server.listen(listener).expect("it listens");
            actix_rt::System::new().block_on(server.run())
        });
        Server {
            name: $name,
            port,
            schedstat: told.recv().expect("the worker starts"),
        }
    }};
}

/// Starts all of them.
pub(crate) fn start() -> Vec<Server> {
    let middleware = |headers, style| {
        let backend = ThrottleBackend::new(MemoryBackend::new())
            .headers(headers)
            .header_style(style);
        let throttle = HttpThrottle::builder("api").rate(RATE).backend(backend);
        ThrottleMiddleware::new(throttle.build().expect("valid"))
    };
    let without = middleware(Headers::Never, HeaderStyle::Standard);
    let standard = middleware(Headers::Always, HeaderStyle::Standard);
    let both = middleware(Headers::Always, HeaderStyle::Both);
    // Its task that drops old keys would need a runtime here, and would find nothing to drop.
    let peer = InMemoryBackend::builder().with_gc_interval(None).build();
    vec![
        serve!("bare", || App::new().route("/", web::get().to(hello))),
        serve!("a middleware that does nothing", || App::new()
            .wrap_fn(|req, service| service.call(req))
            .route("/", web::get().to(hello))),
        serve!("middleware, no headers", move || App::new()
            .wrap(without.clone())
            .route("/", web::get().to(hello))),
        serve!("middleware, standard", move || App::new()
            .wrap(standard.clone())
            .route("/", web::get().to(hello))),
        serve!("middleware, all headers", move || App::new()
            .wrap(both.clone())
            .route("/", web::get().to(hello))),
        serve!("#[throttle], standard", || App::new().service(limited)),
        serve!("actix-extensible-rate-limit", move || {
            let hour = Duration::from_secs(60 * 60);
            let input = SimpleInputFunctionBuilder::new(hour, 1_000_000_000)
                .peer_ip_key()
                .build();
            let limiter = RateLimiter::builder(peer.clone(), input).add_headers();
            App::new()
                .wrap(limiter.build())
                .route("/", web::get().to(hello))
        }),
    ]
}

async fn hello() -> &'static str {
    "hello"
}

#[get("/")]
#[throttle("1000000000/hour")]
async fn limited() -> &'static str {
    "hello"
}
