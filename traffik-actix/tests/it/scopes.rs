//! Scopes that a function of the request gives, or whoever asks.

use actix_web::error::ErrorNotFound;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, web};
use traffik_actix::{
    HttpThrottle, HttpThrottleBuilder, Identity, MemoryBackend, Scope, ThrottleMiddleware, Within,
    throttle,
};

use crate::support::{app, get, memory, send, throttle as builder};

fn kind(req: &HttpRequest) -> String {
    req.query_string().to_owned()
}

#[actix_web::test]
async fn each_text_has_a_count_for_each_client() {
    let (_, backend) = memory();
    let by = |builder: HttpThrottleBuilder| builder.backend(backend.clone()).build().unwrap();
    let exports = by(builder("kinds", "2/day").scope_by(kind));
    let app = app(ThrottleMiddleware::new(exports.clone())).await;
    let from = |host: u8, query: &str| {
        let peer = ([192, 0, 2, host], 9).into();
        get(&format!("/?{query}")).peer_addr(peer)
    };
    for (host, query, admits) in [
        (1, "a", true),
        (1, "a", true),
        (1, "a", false),
        (1, "b", true),
        (2, "a", true),
        (1, "", true),
        (1, "b", true),
        (1, "b", false),
        (1, "a", false),
    ] {
        let answer = send(&app, from(host, query)).await;
        assert_eq!(answer.is_ok(), admits, "{host} {query} {answer:?}");
    }
    // By hand it is the same count, whoever says which.
    let req = from(1, "a").to_http_request();
    let two = Identity::ip([192, 0, 2, 2].into());
    assert_eq!(exports.stat(&req).await.unwrap().remaining, 0);
    let asked = exports.ask().scope("b").enforce(&req).await;
    assert_eq!(asked.unwrap_err().error_response().status(), 429);
    assert!(
        exports
            .by(&two)
            .scope("a")
            .hit()
            .await
            .unwrap()
            .is_allowed()
    );
    assert!(send(&app, from(2, "a")).await.is_throttled());
    let error = exports.by(&two).hit().await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
    assert!(
        error.to_string().ends_with("the scope: say `.scope(..)`"),
        "{error}"
    );
}

#[actix_web::test]
async fn scopes_of_routes_and_of_functions_are_one() {
    let (_, backend) = memory();
    let both = builder("both", "1/day")
        .scope(Scope::Route)
        .scope_by_async(async |req: &HttpRequest| kind(req))
        .backend(backend)
        .build()
        .unwrap();
    let app = app(ThrottleMiddleware::new(both.clone())).await;
    for (path, admits) in [
        ("/?a", true),
        ("/?b", true),
        ("/items/1?a", true),
        ("/items/2?a", false),
        ("/items/2?b", true),
        ("/?a", false),
    ] {
        assert_eq!(send(&app, get(path)).await.is_ok(), admits, "{path}");
    }
    let nobody = Identity::of("job");
    let items = both.by(&nobody).at(&Method::GET, "/items/{id}");
    assert!(items.scope("a").hit().await.unwrap().is_allowed());
    assert!(items.scope("a").hit().await.unwrap().is_denied());
    assert!(items.scope("c").hit().await.unwrap().is_allowed());
}

/// A function that fails opens nothing, and says what it wants to.
#[actix_web::test]
async fn what_has_no_scope_is_refused() {
    let refuse =
        |builder: HttpThrottleBuilder| builder.backend(MemoryBackend::new()).build().unwrap();
    let lost =
        refuse(builder("lost", "9/day").scope_by(|_: &HttpRequest| Err::<&str, _>("no kind")));
    let gone = refuse(
        builder("gone", "9/day").scope_by_async(async |_: &HttpRequest| {
            Err::<String, _>(ErrorNotFound("no such kind"))
        }),
    );
    for (throttle, status) in [(lost, 400), (gone, 404)] {
        let app = app(ThrottleMiddleware::new(throttle)).await;
        assert_eq!(send(&app, get("/")).await.status, status);
    }
}

#[actix_web::test]
async fn whatever_a_client_writes_is_one_place_in_memory() {
    let memory = MemoryBackend::builder()
        .shards(1)
        .max_keys(64)
        .build()
        .unwrap();
    let texts = builder("texts", "1/day")
        .scope_by(kind)
        .backend(memory.clone());
    let texts = texts.build().unwrap();
    let req = TestRequest::default().to_http_request();
    let nasty = ["", "a", "\0", "x\r\nflush_all\r\n", "by:0:1:a", "{}", "🦀"];
    let long = ["y".repeat(1 << 20), "y".repeat((1 << 20) - 1)];
    let all = || nasty.iter().copied().chain(long.iter().map(String::as_str));
    for admits in [true, false] {
        for text in all() {
            let hit = texts.ask().scope(text).hit(&req).await.unwrap();
            assert_eq!(hit.is_allowed(), admits, "{}", text.len());
        }
    }
    assert_eq!(memory.len(), nasty.len() + long.len());
    // Invented ones find no more places than there are, and those who are known stay as they are.
    let mut admitted = 0;
    for at in 0..10_000 {
        let hit = texts
            .ask()
            .scope(format!("invented {at}"))
            .hit(&req)
            .await
            .unwrap();
        admitted += usize::from(hit.is_allowed());
    }
    assert!(memory.len() <= 64, "{}", memory.len());
    assert!(admitted < 2_000, "{admitted}");
    for text in all() {
        assert!(texts.ask().scope(text).hit(&req).await.unwrap().is_denied());
    }
}

#[actix_web::test]
async fn several_by_hand_have_scopes_and_are_charged_all_or_none() {
    let (_, backend) = memory();
    let build = |name, rate| {
        builder(name, rate)
            .backend(backend.clone())
            .build()
            .unwrap()
    };
    let (user, room) = (build("user", "5/day"), build("room", "1/day"));
    let req = TestRequest::default().to_http_request();
    let post = async |to: &str| {
        let asks = [user.ask(), room.ask().by(Identity::ANONYMOUS).scope(to)];
        HttpThrottle::enforce_all(&req, asks).await
    };
    for (to, admits) in [("one", true), ("one", false), ("one", false), ("two", true)] {
        assert_eq!(post(to).await.is_ok(), admits, "{to}");
    }
    assert_eq!(user.stat(&req).await.unwrap().remaining, 3);
}

#[actix_web::test]
async fn a_guard_has_no_request_to_ask_for_a_scope() {
    let memory = MemoryBackend::new();
    let throttle = builder("guarded", "1/day").scope_by(kind).backend(memory);
    let error = Within::new(throttle.build().unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("scopes that a function gives"),
        "{error}"
    );
}

#[throttle("1/day", name = "scoped attribute", scope_by = kind, backend = MemoryBackend::new())]
async fn attributed() -> &'static str {
    "hello"
}

#[actix_web::test]
async fn an_attribute_has_scopes() {
    let app = init_service(App::new().route("/", web::get().to(attributed))).await;
    for (path, admits) in [("/?a", true), ("/?a", false), ("/?b", true)] {
        assert_eq!(send(&app, get(path)).await.is_ok(), admits, "{path}");
    }
}
