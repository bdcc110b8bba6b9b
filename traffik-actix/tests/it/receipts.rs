//! What is told of decisions, whoever has asked for them.

use std::sync::LazyLock;

use actix_http::Request;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, Error, HttpMessage as _, HttpRequest, HttpResponse, web};
use traffik_actix::{
    Decided, HeaderStyle, Headers, HttpThrottle, Identity, ManualClock, RateLimitInfo,
    ThrottleBackend, ThrottleHeaders, ThrottleMiddleware, ThrottleRule, Throttled, Timestamp,
};

use crate::support::{get, memory, send, throttle};

fn nine(name: &str) -> HttpThrottle {
    throttle(name, "9/day").build().unwrap()
}

struct Extracted;

impl ThrottleRule for Extracted {
    fn throttle() -> &'static HttpThrottle {
        static RULE: LazyLock<HttpThrottle> = LazyLock::new(|| nine("extractor"));
        &RULE
    }
}

#[cfg(feature = "macros")]
#[traffik_actix::throttle("9/day", name = "attribute")]
async fn attribute() -> &'static str {
    "hello"
}

/// Everything that decides about a request, each at a path of its name.
async fn sources(
    backend: ThrottleBackend,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    let (enforce, all) = (nine("enforce"), nine("enforce_all"));
    let (hit, reserve) = (nine("hit"), nine("reserve"));
    let app = App::new()
        .app_data(web::Data::new(backend))
        .service(
            web::resource("/middleware")
                .wrap(ThrottleMiddleware::new(nine("middleware")))
                .get(async || "hello"),
        )
        .service(
            web::resource("/wrapped")
                .wrap(nine("wrapped"))
                .get(async || "hello"),
        )
        .route(
            "/enforce",
            web::get().to(move |req: HttpRequest| {
                let enforce = enforce.clone();
                async move { enforce.enforce(&req).await.map(|()| "hello") }
            }),
        )
        .route(
            "/enforce_all",
            web::get().to(move |req: HttpRequest| {
                let all = all.clone();
                async move {
                    HttpThrottle::enforce_all(&req, [&all])
                        .await
                        .map(|()| "hello")
                }
            }),
        )
        .route(
            "/hit",
            web::get().to(move |req: HttpRequest| {
                let hit = hit.clone();
                async move { hit.hit(&req).await.map(|_| "hello") }
            }),
        )
        .route(
            "/reserve",
            web::get().to(move |req: HttpRequest| {
                let reserve = reserve.clone();
                async move { reserve.reserve(&req, 1).await.map(|_| "hello") }
            }),
        )
        .route(
            "/extractor",
            web::get().to(async |_: Throttled<Extracted>| "hello"),
        );
    #[cfg(feature = "macros")]
    let app = app.route("/attribute", web::get().to(attribute));
    init_service(app.wrap(ThrottleHeaders::new())).await
}

const SOURCES: [&str; 8] = [
    "middleware",
    "wrapped",
    "enforce",
    "enforce_all",
    "hit",
    "reserve",
    "extractor",
    "attribute",
];

/// What each style says of the first of nine a day.
fn styles(name: &str) -> Vec<(HeaderStyle, Vec<(&'static str, String)>)> {
    let standard = || {
        vec![
            ("ratelimit", format!("\"{name}\";r=8;t=86400")),
            ("ratelimit-policy", format!("\"{name}\";q=9;w=86400")),
        ]
    };
    let three = |names: [&'static str; 3], reset: u64| {
        let values = ["9".to_owned(), "8".to_owned(), reset.to_string()];
        names.into_iter().zip(values).collect::<Vec<_>>()
    };
    let x = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    let legacy = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
    vec![
        (HeaderStyle::Standard, standard()),
        (HeaderStyle::XRateLimit, three(x, 86_400)),
        (HeaderStyle::XRateLimitEpoch, three(x, NOW + 86_400)),
        (HeaderStyle::Legacy, three(legacy, 86_400)),
        (HeaderStyle::Both, [standard(), three(x, 86_400)].concat()),
        (HeaderStyle::None, Vec::new()),
    ]
}

/// Seconds since 1970, by the clock of the server.
const NOW: u64 = 1_700_000_000;

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_micros(NOW * 1_000_000))
}

/// A header of one's own.
fn note(decided: &Decided, headers: &mut HeaderMap) {
    let left = HeaderValue::from(decided.decision.remaining());
    headers.append(HeaderName::from_static("x-noted"), left);
}

/// Issue 10.8: `enforce`, `hit`, permits and the extractor told nothing.
#[actix_web::test]
async fn whatever_decides_is_told_in_every_style() {
    let of_macros = usize::from(cfg!(feature = "macros"));
    for source in &SOURCES[..SOURCES.len() - 1 + of_macros] {
        for (style, expected) in styles(source) {
            let (_, memory) = memory();
            let backend = ThrottleBackend::new(memory).header_style(style);
            let app = sources(backend.clock(clock()).own_headers(note)).await;
            let answer = send(&app, get(&format!("/{source}"))).await;
            let told: Vec<_> = answer
                .headers()
                .filter(|(name, _)| name.contains("ratelimit"))
                .collect();
            let mut expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| (*name, &**value))
                .collect();
            let mut told = told;
            told.sort_unstable();
            expected.sort_unstable();
            assert_eq!(told, expected, "{source} {style:?}");
            let noted = answer.header("x-noted");
            assert_eq!(noted.as_deref(), Some("8"), "{source} {style:?}");
        }
    }
}

/// The same where it is not to be told, or only when it is denied.
#[actix_web::test]
async fn what_is_decided_by_hand_is_told_as_its_throttle_says() {
    for (headers, on_admitted, on_denied) in [
        (Headers::Always, true, true),
        (Headers::Denied, false, true),
        (Headers::Never, false, false),
    ] {
        let (_, memory) = memory();
        let one = throttle("one", "1/day").headers(headers).backend(memory);
        let app = by_hand(one.build().unwrap(), async |throttle, req| {
            let hit = throttle.hit(&req).await.unwrap();
            HttpResponse::Ok().body(hit.is_allowed().to_string())
        });
        let app = init_service(app.wrap(ThrottleHeaders::new())).await;
        for (body, told) in [("true", on_admitted), ("false", on_denied)] {
            let answer = send(&app, get("/")).await;
            assert_eq!(answer.body, body);
            assert_eq!(answer.header("ratelimit").is_some(), told, "{headers:?}");
            assert_eq!(answer.header("retry-after"), None, "it was not denied");
        }
    }
}

/// Whoever hit by hand with the extensions of the request in their hands panicked, once anybody wanted to know.
#[allow(clippy::await_holding_refcell_ref, reason = "what is tested")]
#[actix_web::test]
async fn extensions_that_are_borrowed_made_a_hit_panic() {
    let (_, memory) = memory();
    let one = throttle("one", "2/day").backend(memory).build().unwrap();
    let app = by_hand(one, async |throttle, req| {
        let mut extensions = req.extensions_mut();
        extensions.insert(7_u32);
        let hit = throttle.hit(&req).await.unwrap();
        drop(extensions);
        let info = RateLimitInfo::of(&req).unwrap();
        assert_eq!(info.is_throttled(), hit.is_denied());
        HttpResponse::Ok().body(info.decisions().len().to_string())
    });
    let app = init_service(app.wrap(ThrottleHeaders::new())).await;
    for expected in ["\"one\";r=1;t=86400", "\"one\";r=0;t=86400"] {
        let answer = send(&app, get("/")).await;
        assert_eq!(answer.body, "1", "of this request alone");
        assert_eq!(answer.header("ratelimit").as_deref(), Some(expected));
    }
}

/// An application of one route, whose handler asks a throttle.
fn by_hand<F>(
    throttle: HttpThrottle,
    handler: F,
) -> App<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = ServiceResponse,
        Error = Error,
        InitError = (),
    >,
>
where
    F: AsyncFn(HttpThrottle, HttpRequest) -> HttpResponse + Copy + 'static,
{
    App::new().route(
        "/",
        web::get().to(move |req: HttpRequest| {
            let throttle = throttle.clone();
            async move { handler(throttle, req).await }
        }),
    )
}

#[actix_web::test]
async fn several_decisions_are_told_in_either_order_of_wrapping() {
    for headers_outside in [true, false] {
        let (_, memory) = memory();
        let backend = ThrottleBackend::new(memory).header_style(HeaderStyle::Both);
        let app = by_hand(
            throttle("tight", "3/day").build().unwrap(),
            async |one, req| {
                one.enforce(&req).await.unwrap();
                HttpResponse::Ok().finish()
            },
        );
        let app = app.app_data(backend);
        let wide = ThrottleMiddleware::new(throttle("wide", "99/day").build().unwrap());
        let answer = match headers_outside {
            true => {
                let app = init_service(app.wrap(wide).wrap(ThrottleHeaders::new())).await;
                send(&app, get("/")).await
            }
            false => {
                let app = init_service(app.wrap(ThrottleHeaders::new()).wrap(wide)).await;
                send(&app, get("/")).await
            }
        };
        let told = answer.header("ratelimit").unwrap();
        for item in ["\"wide\";r=98;t=86400", "\"tight\";r=2;t=86400"] {
            assert_eq!(told.matches(item).count(), 1, "{told}");
        }
        assert_eq!(answer.header("x-ratelimit-limit").as_deref(), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining").as_deref(), Some("2"));
    }
}

#[actix_web::test]
async fn of_a_throttle_that_was_asked_several_times_the_strictest_is_told_once() {
    let (_, memory) = memory();
    let again = throttle(r#"a, "again";r=1"#, "9/day").build().unwrap();
    let other = throttle("again", "5/day").build().unwrap();
    let middleware = ThrottleMiddleware::new(again.clone()).rule(other);
    let app = by_hand(again, async |again, req| {
        let _ = again.hit_at(&req, 2).await;
        let _ = again.hit_as(&req, "somebody else").await;
        HttpResponse::Ok().finish()
    });
    let app = app.app_data(ThrottleBackend::new(memory));
    let app = init_service(app.wrap(middleware).wrap(ThrottleHeaders::new())).await;
    let answer = send(&app, get("/")).await;
    assert_eq!(
        answer.header("ratelimit").unwrap(),
        r#""a, \"again\";r=1";r=6;t=86400,"again";r=4;t=86400"#
    );
    assert_eq!(
        answer.header("ratelimit-policy").unwrap(),
        r#""a, \"again\";r=1";q=9;w=86400,"again";q=5;w=86400"#
    );
}

#[actix_web::test]
async fn a_denial_is_told_once_whether_it_becomes_the_response_or_not() {
    let (_, memory) = memory();
    let one = throttle("one", "1/day").backend(memory).build().unwrap();
    let app = by_hand(one, async |one, req| match one.enforce(&req).await {
        Err(_) if req.query_string() == "swallow" => HttpResponse::Ok().finish(),
        Err(_) if req.query_string() == "own" => HttpResponse::TooManyRequests().finish(),
        Err(denied) => denied.error_response(),
        Ok(()) => HttpResponse::Ok().finish(),
    });
    let app = init_service(app.wrap(ThrottleHeaders::new())).await;
    assert!(send(&app, get("/")).await.is_ok());
    for (path, status, retry) in [
        ("/", 429, Some("86400")),
        ("/?own", 429, Some("86400")),
        ("/?swallow", 200, None),
    ] {
        let answer = send(&app, get(path)).await;
        assert_eq!(answer.status, status, "{path}");
        let told = answer.header("ratelimit");
        assert_eq!(told.as_deref(), Some("\"one\";r=0;t=86400"), "{path}");
        assert_eq!(answer.header("retry-after").as_deref(), retry, "{path}");
    }
}

/// What the request knows about itself.
fn summary(info: &RateLimitInfo) -> String {
    let all: Vec<_> = info
        .decisions()
        .iter()
        .map(|one| format!("{} {}", one.throttle.name(), one.decision.remaining()))
        .collect();
    let most = info.most_restrictive();
    let most = most.map_or("nobody".to_owned(), |one| one.throttle.name().to_owned());
    format!("{}; {most}", all.join(", "))
}

#[actix_web::test]
async fn decisions_are_in_the_request() {
    async fn handler(
        req: HttpRequest,
        info: RateLimitInfo,
        hand: web::Data<HttpThrottle>,
    ) -> String {
        let before = summary(&info);
        let _ = hand.hit(&req).await.unwrap();
        assert_eq!(info.get("hand").unwrap().decision.limit(), 2);
        assert_eq!(info.get("nobody").map(|one| one.rate), None);
        format!("{before} | {}", summary(&info))
    }
    let (_, memory) = memory();
    let of = |name: &str, rate: &str| {
        throttle(name, rate)
            .backend(memory.clone())
            .build()
            .unwrap()
    };
    let app = |name: &str| {
        let of = |rest: &str, rate: &str| of(&format!("{name}{rest}"), rate);
        App::new()
            .app_data(web::Data::new(
                throttle("hand", "2/day")
                    .backend(memory.clone())
                    .build()
                    .unwrap(),
            ))
            .route("/", web::get().to(handler))
            .wrap(ThrottleMiddleware::new(of("wide", "9/day")).rule(of("tight", "5/day")))
    };
    let kept = init_service(app("kept ").wrap(ThrottleHeaders::new())).await;
    assert_eq!(
        send(&kept, get("/")).await.body,
        "kept wide 8, kept tight 4; kept tight | kept wide 8, kept tight 4, hand 1; hand"
    );
    let not = init_service(app("not ")).await;
    assert_eq!(send(&not, get("/")).await.body, "; nobody | hand 0; hand");
}

/// A denial of the limit that waits the longest wins, not one that has nothing left.
#[actix_web::test]
async fn the_most_restrictive_is_what_waits_the_longest() {
    let (_, memory) = memory();
    let backend = ThrottleBackend::new(memory).header_style(HeaderStyle::XRateLimit);
    let info = async |req: HttpRequest, ways: web::Data<Vec<HttpThrottle>>| {
        for one in ways.iter() {
            let _ = one.hit(&req).await.unwrap();
        }
        let info = RateLimitInfo::of(&req).unwrap();
        let most = info.most_restrictive().unwrap();
        let (wait, denied) = (info.retry_after(), info.is_throttled());
        format!("{} {wait:?} {denied}", most.throttle.name())
    };
    let ways = [("minute", "1/minute"), ("day", "1/day"), ("wide", "9/s")];
    let ways = ways.map(|(name, rate)| throttle(name, rate).build().unwrap());
    let app = App::new()
        .app_data(backend)
        .app_data(web::Data::new(ways.to_vec()))
        .route("/", web::get().to(info))
        .wrap(ThrottleHeaders::new());
    let app = init_service(app).await;
    let first = send(&app, get("/")).await;
    assert_eq!(first.body, "minute None false", "the first of equals");
    let second = send(&app, get("/")).await;
    assert_eq!(second.body, "day Some(86400s) true");
    assert_eq!(second.header("x-ratelimit-reset").unwrap(), "86400");
}

/// Who passes a part of the extensions along holds them until the decision is there.
#[allow(clippy::await_holding_refcell_ref, reason = "it is what is tested")]
#[actix_web::test]
async fn extensions_may_be_borrowed_while_it_is_decided() {
    struct Account(&'static str);
    let (_, memory) = memory();
    let one = throttle("one", "9/day").backend(memory).build().unwrap();
    let app = by_hand(one, async |one, req| {
        req.extensions_mut().insert(Account("ann"));
        let name = |account: Option<&Account>| Identity::of(account.unwrap().0);
        let hit = one.hit_as(&req, name(req.extensions().get())).await;
        HttpResponse::Ok().body(hit.unwrap().remaining().to_string())
    });
    let app = init_service(app.wrap(ThrottleHeaders::new())).await;
    let answer = send(&app, get("/")).await;
    assert_eq!(answer.body, "8");
    assert!(answer.header("ratelimit").is_some());
}

#[actix_web::test]
async fn nobody_is_told_where_nobody_wants_to_know() {
    let (_, memory) = memory();
    let one = throttle("one", "9/day").backend(memory).build().unwrap();
    let app = by_hand(one, async |one, req| {
        one.enforce(&req).await.unwrap();
        assert!(RateLimitInfo::of(&req).is_none());
        HttpResponse::Ok().finish()
    });
    let answer = send(&init_service(app).await, get("/")).await;
    assert_eq!(answer.header("ratelimit"), None);
}

/// A response that a handler stamps itself is not stamped twice.
#[actix_web::test]
async fn headers_of_ones_own_may_be_stamped() {
    let (_, memory) = memory();
    let one = throttle("one", "9/day").backend(memory).build().unwrap();
    let req = TestRequest::default().to_http_request();
    let info = RateLimitInfo::keep(&req);
    let mut headers = HeaderMap::new();
    info.stamp(&mut headers);
    assert!(headers.is_empty());
    one.enforce(&req).await.unwrap();
    for _ in 0..2 {
        info.stamp(&mut headers);
        let told: Vec<_> = headers.get_all("ratelimit").collect();
        assert_eq!(told, ["\"one\";r=8;t=86400"]);
    }
    one.enforce(&req).await.unwrap();
    info.stamp(&mut headers);
    let told: Vec<_> = headers.get_all("ratelimit").collect();
    assert_eq!(told, ["\"one\";r=7;t=86400"], "the stricter stays");
}

/// As a WebSocket does, whose handler asks about each message: all of it was kept until it closed.
#[actix_web::test]
async fn a_request_that_goes_on_was_remembered_without_end() {
    let (_, backend) = memory();
    let hits = throttle("hits", "600/day")
        .backend(backend)
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    let info = RateLimitInfo::keep(&req);
    for _ in 0..700 {
        let _ = hits.hit(&req).await.unwrap();
    }
    let decisions = info.decisions();
    assert_eq!(decisions.len(), 256);
    assert_eq!(decisions[0].decision.remaining(), 600 - (700 - 256) - 1);
    assert!(info.is_throttled());
}
