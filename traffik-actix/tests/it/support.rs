//! Applications and requests for the tests.

use std::sync::{Mutex, Once};

use actix_http::Request;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, Error, HttpResponse, web};
use traffik_actix::{
    HttpThrottle, HttpThrottleBuilder, ManualClock, MemoryBackend, ThrottleMiddleware,
};

/// A memory whose time stands still until it is told to move.
pub(crate) fn memory() -> (ManualClock, MemoryBackend) {
    let clock = ManualClock::default();
    let backend = MemoryBackend::builder()
        .clock(clock.clone())
        .build()
        .unwrap();
    (clock, backend)
}

pub(crate) fn throttle(name: &str, rate: &str) -> HttpThrottleBuilder {
    HttpThrottle::builder(name).rate(rate)
}

/// What the tests look at in a response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// All lines of a header, joined as RFC 9110 section 5.3 allows.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines: Vec<_> = self
            .headers
            .iter()
            .filter(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// All lines, in no order.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (&**name, &**value))
    }

    /// The names of the policies that it tells of.
    pub(crate) fn policies(&self) -> String {
        let told = self.header("ratelimit-policy").unwrap_or_default();
        let names: Vec<_> = told.split('"').skip(1).step_by(2).collect();
        names.join(" ")
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.status == StatusCode::OK
    }

    pub(crate) fn is_throttled(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }
}

/// An application with a few routes, all of them limited.
pub(crate) async fn app(
    limits: ThrottleMiddleware,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    init_service(
        App::new()
            .wrap(limits)
            .route("/", web::get().to(async || "hello"))
            .route("/", web::post().to(async |_: web::Json<Vec<u8>>| "created"))
            .route("/items/{id}", web::get().to(async || "an item"))
            .route("/admin/users", web::get().to(async || "users"))
            .route(
                "/broken",
                web::get().to(async || {
                    Err::<HttpResponse, _>(actix_web::error::ErrorBadGateway("broken"))
                }),
            ),
    )
    .await
}

pub(crate) fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path)
}

pub(crate) async fn send<S, B>(app: &S, req: TestRequest) -> Answer
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let response = call_service(app, req.to_request()).await;
    let headers = response.headers().iter();
    let headers = headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    Answer {
        status: response.status(),
        headers,
        body: String::from_utf8(read_body(response).await.to_vec()).unwrap(),
    }
}

/// Collects warnings of the whole process.
pub(crate) fn warnings() -> &'static Mutex<Vec<String>> {
    static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    struct Collector;
    impl log::Log for Collector {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                WARNINGS.lock().unwrap().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    &WARNINGS
}
