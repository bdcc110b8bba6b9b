//! Questions to throttles from inside a handler: by whom the handler says, several at once, with `?`.

use actix_web::error::ErrorUnauthorized;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, web};
use traffik_actix::{
    BackendExt, CircuitBreaker, Error, HitError, HttpThrottle, HttpThrottleBuilder, Identity,
    MemoryBackend, OnError, ThrottleBackend, ThrottleMiddleware,
};

use crate::support::{Answer, get, memory, send, throttle};

/// Issue 9, F 17: `?` on a hit, a check or a stat did not compile in a handler.
#[actix_web::test]
async fn a_hit_a_check_and_a_stat_that_fail_are_answered_as_enforce_answers() {
    async fn hit(req: HttpRequest, it: web::Data<HttpThrottle>) -> actix_web::Result<&'static str> {
        let hits = [
            it.hit(&req).await?,
            it.hit_at(&req, 2).await?,
            it.hit_as(&req, "ann").await?,
        ];
        assert!(hits.iter().all(|hit| hit.is_allowed()));
        Ok("decided")
    }
    async fn check(req: HttpRequest, it: web::Data<HttpThrottle>) -> Result<String, HitError> {
        Ok(it.check(&req).await?.to_string())
    }
    async fn stat(req: HttpRequest, it: web::Data<HttpThrottle>) -> Result<String, HitError> {
        Ok(it.stat(&req).await?.remaining.to_string())
    }
    async fn enforce(req: HttpRequest, it: web::Data<HttpThrottle>) -> actix_web::Result<String> {
        it.enforce(&req).await?;
        Ok("admitted".to_owned())
    }
    async fn ask(throttle: HttpThrottleBuilder) -> [Answer; 4] {
        let app = App::new()
            .app_data(web::Data::new(throttle.build().unwrap()))
            .route("/hit", web::get().to(hit))
            .route("/check", web::get().to(check))
            .route("/stat", web::get().to(stat))
            .route("/enforce", web::get().to(enforce));
        let app = init_service(app).await;
        [
            send(&app, get("/hit")).await,
            send(&app, get("/check")).await,
            send(&app, get("/stat")).await,
            send(&app, get("/enforce")).await,
        ]
    }
    let builder = || throttle("asked", "9/day").backend(MemoryBackend::new());
    let down = || {
        let breaker = CircuitBreaker::new();
        breaker.force_open();
        builder()
            .backend(MemoryBackend::new().guarded(breaker))
            .on_error(OnError::Raise)
    };
    let senseless = || builder().identify(|_: &HttpRequest| Err::<Identity, _>("no session"));
    let unknown = || {
        builder().identify(|_: &HttpRequest| Err::<Identity, _>(ErrorUnauthorized("a key, please")))
    };
    for (throttle, status) in [
        (builder(), 200),
        (down(), 503),
        (senseless(), 400),
        (unknown(), 401),
    ] {
        let answers = ask(throttle).await;
        for answer in &answers {
            assert_eq!(answer.status, status, "{answer:?}");
            if status != 200 {
                assert_eq!(answer.body, answers[3].body);
            }
        }
    }
}

/// Whoever has errors of the library around it goes on as before.
#[actix_web::test]
async fn an_error_of_a_hit_becomes_an_error_of_the_library() {
    async fn may_pass(throttle: &HttpThrottle, req: &HttpRequest) -> Result<bool, Error> {
        Ok(throttle.hit(req).await?.is_allowed())
    }
    let throttle = throttle("inner", "1/day")
        .backend(MemoryBackend::new())
        .identify(|_: &HttpRequest| Err::<Identity, _>("no session"))
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    let error = may_pass(&throttle, &req).await.unwrap_err();
    assert!(error.is_unresolved(), "{error}");
    let error = throttle.hit(&req).await.unwrap_err();
    assert!(error.is_unresolved());
    assert_eq!(error.to_string(), error.error().to_string());
}

/// Issue 9, E 12: all that a log of a handler's errors said was `"throttled"`, of failures as well.
#[actix_web::test]
async fn an_error_of_enforce_did_not_say_what_it_is_about() {
    let req = TestRequest::default().to_http_request();
    let denied = throttle("logins", "1/day").backend(MemoryBackend::new());
    let denied = denied.build().unwrap();
    denied.enforce(&req).await.unwrap();
    let error = denied.enforce(&req).await.unwrap_err();
    assert_eq!(error.to_string(), "throttled by logins");
    let line = format!("{error:?}");
    assert!(
        line.starts_with("Throttled(throttled by logins; retry after"),
        "{line}"
    );

    let lost = throttle("lost", "1/day")
        .backend(MemoryBackend::new())
        .identify(|_: &HttpRequest| Err::<Identity, _>("no session"));
    let error = lost.build().unwrap().enforce(&req).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        text.contains("could not make sense of the request"),
        "{text}"
    );
    assert_eq!(error.as_response_error().status_code(), 400);
}

/// Issue 9, F 20: a limit by what is in the body took a newtype and 14 lines.
#[actix_web::test]
async fn a_handler_says_who_it_is() {
    async fn login(
        req: HttpRequest,
        logins: web::Data<HttpThrottle>,
        account: String,
    ) -> actix_web::Result<&'static str> {
        logins.enforce_as(&req, account).await?;
        Ok("welcome")
    }
    let (_, backend) = memory();
    // Its own function is not even asked.
    let logins = throttle("logins", "2/day")
        .backend(backend)
        .identify(|_: &HttpRequest| Err::<Identity, _>("nobody"))
        .build()
        .unwrap();
    let app = App::new()
        .app_data(web::Data::new(logins.clone()))
        .route("/", web::post().to(login));
    let app = init_service(app).await;
    let login = |account: &'static str| TestRequest::post().uri("/").set_payload(account);
    assert!(send(&app, login("ann")).await.is_ok());
    assert!(send(&app, login("ben")).await.is_ok());
    let req = TestRequest::default().to_http_request();
    assert_eq!(logins.hit_as(&req, "ann").await.unwrap().remaining(), 0);
    assert!(send(&app, login("ann")).await.is_throttled());
    assert!(send(&app, login("ben")).await.is_ok());
    assert!(
        logins
            .hit_as(&req, Identity::EXEMPT)
            .await
            .unwrap()
            .is_unlimited()
    );
}

#[actix_web::test]
async fn several_by_hand_are_charged_all_or_none() {
    let (_, backend) = memory();
    let build = |name, rate| {
        throttle(name, rate)
            .backend(backend.clone())
            .build()
            .unwrap()
    };
    let (address, account) = (build("address", "3/day"), build("account", "1/day"));
    let req = TestRequest::default().to_http_request();
    let login = async |name: &str| {
        let asks = [address.ask(), account.ask().by(name)];
        HttpThrottle::enforce_all(&req, asks).await
    };
    login("ann").await.unwrap();
    for _ in 0..5 {
        let denied = login("ann").await.unwrap_err().error_response();
        assert_eq!(denied.status(), 429);
        let headers = denied.headers();
        let told: Vec<_> = headers.get_all("ratelimit").collect();
        let told = format!("{told:?}");
        assert!(
            told.contains("address") && told.contains("account"),
            "{told}"
        );
    }
    // Nothing of the address was charged for the five.
    login("ben").await.unwrap();
    login("cid").await.unwrap();
    // Nor is anything of an account, when the address is used up.
    login("dan").await.unwrap_err();
    assert!(account.hit_as(&req, "dan").await.unwrap().is_allowed());

    // Plain throttles do as well, and costs are told at each.
    let (one, two) = (build("one", "5/day"), build("two", "5/day"));
    HttpThrottle::enforce_all(&req, [&one, &two]).await.unwrap();
    HttpThrottle::enforce_all(&req, [one.ask().cost(4), two.ask().cost(0)])
        .await
        .unwrap();
    assert_eq!(one.stat(&req).await.unwrap().remaining, 0);
    assert_eq!(two.stat(&req).await.unwrap().remaining, 4);
    HttpThrottle::enforce_all(&req, [one, two].each_ref())
        .await
        .unwrap_err();
}

/// Issue 9, F 21: a rate is what each client gets, and one count for all had no name.
#[actix_web::test]
async fn a_shared_throttle_is_one_limit_for_all_clients() {
    let (_, backend) = memory();
    let build = |builder: HttpThrottleBuilder| builder.backend(backend.clone()).build().unwrap();
    let each = build(throttle("each", "1/day"));
    let all = build(throttle("all", "1/day").shared());
    let from = |host| {
        let peer = std::net::SocketAddr::from(([192, 0, 2, host], 9));
        TestRequest::default().peer_addr(peer).to_http_request()
    };
    for (host, each_admits, all_admits) in [(1, true, true), (2, true, false), (1, false, false)] {
        let req = from(host);
        let hits = [each.hit(&req).await, all.hit(&req).await];
        let admitted = hits.map(|hit| hit.unwrap().is_allowed());
        assert_eq!(admitted, [each_admits, all_admits], "host {host}");
    }
}

/// Issue 10, 3: a look-up of a session ran once for each limit.
#[actix_web::test]
async fn a_function_that_has_to_be_waited_for_was_asked_by_each_limit() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let looked_up = Arc::new(AtomicUsize::new(0));
    let sessions = Arc::clone(&looked_up);
    let (_, memory) = memory();
    let backend = ThrottleBackend::new(memory).identify_async(async move |_: &HttpRequest| {
        sessions.fetch_add(1, Ordering::Relaxed);
        Identity::of("ann")
    });
    let build = |name: &str| throttle(name, "9/day").build().unwrap();
    let all = ["one", "two", "three"].map(build);
    let [one, two, three] = all.clone();
    let limits = ThrottleMiddleware::new(one)
        .rule(two)
        .rule(three)
        .backend(backend.clone());
    let served = crate::support::app(limits).await;
    assert!(send(&served, get("/")).await.is_ok());
    assert_eq!(looked_up.swap(0, Ordering::Relaxed), 1);

    let req = TestRequest::default()
        .app_data(web::Data::new(backend))
        .to_http_request();
    let hits = HttpThrottle::hit_all(&req, &all).await.unwrap();
    assert_eq!(
        hits.iter().map(|hit| hit.remaining()).collect::<Vec<_>>(),
        [7; 3]
    );
    assert_eq!(looked_up.swap(0, Ordering::Relaxed), 1);
    // Whoever is named at one of them is nobody at the others.
    let [one, two, three] = &all;
    let asks = [one.ask().by("ben"), two.ask(), three.ask()];
    let hits = HttpThrottle::hit_all(&req, asks).await.unwrap();
    assert_eq!(
        hits.iter().map(|hit| hit.remaining()).collect::<Vec<_>>(),
        [8, 6, 6]
    );
    assert_eq!(looked_up.swap(0, Ordering::Relaxed), 1);
}

/// Everything that a question can say, by each of its methods.
#[actix_web::test]
async fn one_question_is_asked_in_every_way() {
    let (_, backend) = memory();
    let exports = throttle("exports", "10/day")
        .backend(backend)
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    let ask = || exports.ask().by("ann").scope("pdf").cost(4);
    let left = async || ask().stat(&req).await.unwrap().remaining;
    assert!(ask().check(&req).await.unwrap());
    assert_eq!(left().await, 10);
    assert_eq!(ask().hit(&req).await.unwrap().remaining(), 6);
    ask().enforce(&req).await.unwrap();
    assert_eq!(left().await, 2);
    assert!(!ask().check(&req).await.unwrap());
    assert_eq!(
        ask()
            .enforce(&req)
            .await
            .unwrap_err()
            .error_response()
            .status(),
        429
    );
    assert!(ask().reserve(&req).await.is_err());
    ask()
        .cost(2)
        .reserve(&req)
        .await
        .unwrap()
        .settle(1)
        .await
        .unwrap();
    assert_eq!(left().await, 1);
    // Others are untouched: another scope, another identity, the throttle's own.
    assert_eq!(
        exports.ask().by("ann").stat(&req).await.unwrap().remaining,
        10
    );
    assert_eq!(
        exports
            .ask()
            .scope("pdf")
            .stat(&req)
            .await
            .unwrap()
            .remaining,
        10
    );
    assert_eq!(exports.stat(&req).await.unwrap().remaining, 10);
    // Without a request it is the same count.
    let ann = Identity::of("ann");
    let by = exports.by(&ann).scope("pdf");
    assert_eq!(by.stat().await.unwrap().remaining, 1);
    assert!(by.check().await.unwrap() && !by.cost(2).check().await.unwrap());
    assert!(by.hit().await.unwrap().is_allowed());
    assert!(by.reserve().await.unwrap().is_err());
}
