//! Where throttles count: never quietly elsewhere.

use std::rc::Rc;

use actix_service::{IntoServiceFactory, ServiceFactory};
use actix_web::dev::{AppConfig, Extensions, Service, ServiceRequest};
use actix_web::guard::GuardContext;
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, web};
use traffik_actix::traffik_core::backend::{Batch, BoxFuture, Op};
use traffik_actix::traffik_core::{Cell, Decisions, Result};
use traffik_actix::{
    Backend, BackendExt, CircuitBreaker, HttpThrottle, Identity, MemoryBackend, OnError, Rate,
    Scope, ThrottleBackend, ThrottleMiddleware, Timestamp, Within,
};

use crate::support::{get, memory, send, throttle, warnings};

fn warned(about: &str) -> usize {
    let warnings = warnings().lock().unwrap();
    warnings.iter().filter(|line| line.contains(about)).count()
}

fn ann(_: &HttpRequest) -> Identity {
    Identity::of("ann")
}

/// Issue: `http.throttle().hit(&identity)` admitted from the memory of the process after the limit was spent.
#[actix_web::test]
async fn hits_without_a_request_count_where_requests_do() {
    let (_, backend) = memory();
    let jobs = throttle("jobs", "3/day").identify(ann).backend(backend);
    let jobs = jobs.build().unwrap();
    let (req, ann) = (
        TestRequest::default().to_http_request(),
        Identity::of("ann"),
    );
    assert!(jobs.hit(&req).await.unwrap().is_allowed());
    assert_eq!(jobs.by(&ann).stat().await.unwrap().remaining, 2);
    assert!(jobs.by(&ann).cost(2).hit().await.unwrap().is_allowed());
    assert!(!jobs.by(&ann).check().await.unwrap());
    assert!(jobs.hit(&req).await.unwrap().is_denied());
    assert!(jobs.by(&ann).hit().await.unwrap().is_denied());
    assert!(
        jobs.by(&Identity::of("ben"))
            .hit()
            .await
            .unwrap()
            .is_allowed()
    );
}

#[actix_web::test]
async fn hits_without_a_request_count_in_the_scope_and_backend_that_are_said() {
    let backend = ThrottleBackend::new(memory().1).identify(ann);
    let items = throttle("items-by-hand", "1/day")
        .scope(Scope::Route)
        .build()
        .unwrap();
    let paths = throttle("paths-by-hand", "1/day")
        .scope(Scope::Path)
        .build()
        .unwrap();
    let limits = ThrottleMiddleware::new(items.clone()).rule(paths.clone());
    let app = App::new()
        .app_data(web::Data::new(backend.clone()))
        .wrap(limits)
        .route("/items/{id}", web::get().to(async || "an item"));
    let app = init_service(app).await;
    assert!(send(&app, get("/items/1")).await.is_ok());
    let ann = Identity::of("ann");
    let at = |throttle: &HttpThrottle, place: &'static str| {
        let (throttle, backend, ann) = (throttle.clone(), backend.clone(), ann.clone());
        async move {
            let hit = throttle.by(&ann).on(&backend).at(&Method::GET, place).hit();
            hit.await.unwrap().is_allowed()
        }
    };
    assert!(!at(&items, "/items/{id}").await);
    assert!(!at(&paths, "/items/1/").await);
    assert!(at(&paths, "/items/2").await);
}

#[actix_web::test]
async fn what_a_hit_without_a_request_cannot_know_is_an_error() {
    let ann = Identity::of("ann");
    let memory = MemoryBackend::new;
    let own = |name: &str| throttle(name, "1/day").backend(memory());
    for (builder, word) in [
        (throttle("nowhere", "1/day"), ".on(&backend)"),
        (own("by-route").scope(Scope::Route), ".at("),
        (own("by-path").scope(Scope::Path), ".at("),
        (
            own("dynamic").rate_by(|_: &HttpRequest| Rate::per_day(2)),
            ".rate(..)",
        ),
        (own("priced").cost_by(|_: &HttpRequest| 2_u32), ".cost(..)"),
    ] {
        let throttle = builder.build().unwrap();
        let error = throttle.by(&ann).hit().await.unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains(word),
            "{error}"
        );
        assert!(throttle.by(&ann).stat().await.is_err());
    }
}

/// Issue: the backend in the extensions was ignored, so that all tenants shared one limit.
#[actix_web::test]
async fn tenants_bring_their_backends_in_the_extensions() {
    warnings();
    async fn enforce(
        req: HttpRequest,
        limit: web::Data<HttpThrottle>,
    ) -> actix_web::Result<HttpResponse> {
        limit.enforce(&req).await?;
        Ok(HttpResponse::Ok().finish())
    }
    for wrapped in [false, true] {
        let tenants = [(); 2].map(|()| ThrottleBackend::new(memory().1));
        let limit = throttle(
            ["tenants", "tenants-wrapped"][usize::from(wrapped)],
            "1/day",
        );
        let limit = limit.build().unwrap();
        let choose = move |req: ServiceRequest| {
            let at = usize::from(req.path() == "/1");
            match at == 0 {
                true => drop(req.extensions_mut().insert(tenants[at].clone())),
                false => drop(
                    req.extensions_mut()
                        .insert(web::Data::new(tenants[at].clone())),
                ),
            }
            req
        };
        let inner = ThrottleMiddleware::new(limit.clone()).backend(MemoryBackend::new());
        let app = App::new()
            .app_data(web::Data::new(limit))
            .app_data(web::Data::new(ThrottleBackend::new(MemoryBackend::new())))
            .wrap(actix_web::middleware::Condition::new(wrapped, inner))
            .wrap_fn(move |req, next| next.call(choose(req)));
        let app = match wrapped {
            true => app.route("/{tenant}", web::get().to(async || "hello")),
            false => app.route("/{tenant}", web::get().to(enforce)),
        };
        let app = init_service(app).await;
        for tenant in ["/0", "/1"] {
            assert!(send(&app, get(tenant)).await.is_ok(), "{tenant} {wrapped}");
            assert!(
                send(&app, get(tenant)).await.is_throttled(),
                "{tenant} {wrapped}"
            );
        }
    }
    assert_eq!(warned("`tenants"), 0);
}

/// Issue: a memory for each tenant was taken for one that is multiplied by accident.
#[actix_web::test]
async fn memories_that_are_meant_to_be_apart_are_no_duplicates() {
    warnings();
    let limit = throttle("meant", "1/day").build().unwrap();
    let tenants = [(); 2].map(|()| {
        Rc::new({
            let mut data = Extensions::new();
            data.insert(ThrottleBackend::new(MemoryBackend::new()).separate());
            data
        })
    });
    let app = App::new()
        .wrap(ThrottleMiddleware::new(limit))
        .wrap_fn(move |mut req, next| {
            let tenant = &tenants[usize::from(req.path() == "/1")];
            req.add_data_container(Rc::clone(tenant));
            next.call(req)
        })
        .route("/{tenant}", web::get().to(async || "hello"));
    let app = init_service(app).await;
    for tenant in ["/0", "/1"] {
        assert!(send(&app, get(tenant)).await.is_ok());
        assert!(send(&app, get(tenant)).await.is_throttled());
    }
    assert_eq!(warned("`meant`"), 0);
}

/// Issue: a fallback memory built inside the `HttpServer` closure multiplied the limit without a warning.
#[actix_web::test]
async fn memories_inside_wrappers_are_noticed() {
    warnings();
    let store = MemoryBackend::new();
    let mut workers = Vec::new();
    for expected in [0, 1, 1] {
        let fallback = MemoryBackend::new();
        let backend = store.clone().failover(fallback, CircuitBreaker::new());
        let limit = throttle("emergency", "1/day")
            .backend(backend)
            .build()
            .unwrap();
        let limits = ThrottleMiddleware::new(limit);
        workers.push(crate::support::app(limits).await);
        assert_eq!(warned("`emergency` counts in more than one"), expected);
    }
    // The same, with a throttle that was built outside.
    let limit = throttle("emergency-outside", "9/day").build().unwrap();
    for expected in [0, 1, 1] {
        let backend = store.clone().fallback(MemoryBackend::new());
        let limits = ThrottleMiddleware::new(limit.clone()).backend(backend);
        workers.push(crate::support::app(limits).await);
        assert_eq!(
            warned("`emergency-outside` counts in more than one"),
            expected
        );
    }
    // One for all.
    let fallback = MemoryBackend::new();
    for _ in 0..2 {
        let backend = store.clone().fallback(fallback.clone());
        let limit = throttle("one-for-all", "9/day")
            .backend(backend)
            .build()
            .unwrap();
        workers.push(crate::support::app(ThrottleMiddleware::new(limit)).await);
    }
    assert_eq!(warned("`one-for-all`"), 0);
}

/// Issue: two throttles of one name and different rates, on two resources, shared one count in silence.
#[actix_web::test]
async fn namesakes_of_different_rates_do_not_start_if_that_is_visible() {
    let (_, backend) = memory();
    let start = async |rates: [&str; 2], shared: bool| {
        let [one, two] = rates.map(|rate| {
            let builder = throttle("visible", rate).backend(backend.clone());
            let builder = if shared {
                builder.shares_counts()
            } else {
                builder
            };
            ThrottleMiddleware::new(builder.build().unwrap())
        });
        let one = web::resource("/one").wrap(one).to(async || "one");
        let two = web::resource("/two").wrap(two).to(async || "two");
        let app = App::new().service(one).service(two).into_factory();
        app.new_service(AppConfig::default()).await.is_ok()
    };
    assert!(!start(["1/day", "2/day"], false).await);
    assert!(start(["1/day", "1/day"], false).await);
    assert!(start(["1/day", "2/day"], true).await);
}

/// A memory where another one was before.
#[derive(Debug)]
struct Reborn(MemoryBackend);

impl Backend for Reborn {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        self.0.apply(batch)
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        self.0.load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.0.reset()
    }

    fn store_id(&self) -> usize {
        1
    }
}

/// Issue: an application did not start once in many, since it had its memory where that of a namesake had been.
#[actix_web::test]
async fn a_namesake_quarrelled_whose_memory_was_gone() {
    let start = async |limit: &HttpThrottle| {
        let memory = Reborn(MemoryBackend::new());
        let limits = ThrottleMiddleware::new(limit.clone()).backend(memory);
        let app = App::new().wrap(limits).into_factory();
        app.new_service(AppConfig::default()).await.ok()
    };
    let [old, new] = ["1/day", "2/day"].map(|rate| throttle("moved", rate).build().unwrap());
    let used = start(&old).await;
    assert!(used.is_some() && start(&new).await.is_none());
    drop(used);
    assert!(start(&new).await.is_some());
}

#[actix_web::test]
async fn namesakes_of_different_rates_are_said_with_the_first_request_otherwise() {
    warnings();
    let backend = ThrottleBackend::new(MemoryBackend::new());
    for (name, shared, expected) in [("unseen-namesake", false, 1), ("shared-namesake", true, 0)] {
        let [one, two] = ["3/day", "5/day"].map(|rate| {
            let builder = throttle(name, rate);
            let builder = if shared {
                builder.shares_counts()
            } else {
                builder
            };
            ThrottleMiddleware::new(builder.build().unwrap())
        });
        let app = App::new()
            .app_data(web::Data::new(backend.clone()))
            .service(web::resource("/one").wrap(one).to(async || "one"))
            .service(web::resource("/two").wrap(two).to(async || "two"));
        let app = init_service(app).await;
        for _ in 0..2 {
            send(&app, get("/one")).await;
            send(&app, get("/two")).await;
        }
        let about = format!("two throttles are named `{name}`");
        assert_eq!(warned(&about), expected, "{name}");
    }
}

/// Issue: the backend in a resource's own data was not seen, silently. actix adds that data before it
/// calls middlewares around the resource itself, but after those further out.
#[actix_web::test]
async fn a_backend_in_the_data_of_a_resource_is_seen_or_its_absence_is_said() {
    warnings();
    let (_, inner) = memory();
    let data = || web::Data::new(ThrottleBackend::new(inner.clone()));
    let seen = throttle("seen-inside", "1/day").build().unwrap();
    let unseen = throttle("unseen-inside", "9/day").build().unwrap();
    let app = App::new()
        .wrap(ThrottleMiddleware::new(unseen))
        .service(
            web::resource("/one")
                .app_data(data())
                .wrap(ThrottleMiddleware::new(seen.clone()))
                .to(async || "one"),
        )
        .service(
            web::scope("/two")
                .wrap(ThrottleMiddleware::new(seen))
                .app_data(data())
                .route("", web::get().to(async || "two")),
        );
    let app = init_service(app).await;
    assert!(send(&app, get("/one")).await.is_ok());
    assert!(
        send(&app, get("/two")).await.is_throttled(),
        "one count, in the inner memory"
    );
    assert_eq!(warned("`seen-inside`"), 0);
    assert_eq!(
        warned("throttle `unseen-inside` does not count in the `ThrottleBackend`"),
        1
    );
    assert!(send(&app, get("/one")).await.is_throttled());
    assert_eq!(warned("throttle `unseen-inside` does not count"), 1);
}

/// Issue: of a bare backend and a `web::Data` of one, the bare one counts, however far out it is; nobody said so.
#[actix_web::test]
async fn backends_that_are_registered_in_two_ways_are_said() {
    warnings();
    let outer = ThrottleBackend::new(memory().1);
    for (name, inner, expected) in [
        ("both-ways", ThrottleBackend::new(memory().1), 1),
        ("one-both-ways", outer.clone(), 0),
    ] {
        let limit = throttle(name, "9/day").identify(ann).build().unwrap();
        let handler = web::get().to(async |req: HttpRequest, it: web::Data<HttpThrottle>| {
            it.enforce(&req).await.map(|()| "hello")
        });
        let scope = web::scope("/s").app_data(web::Data::new(inner));
        let app = App::new()
            .app_data(outer.clone())
            .app_data(web::Data::new(limit.clone()))
            .service(scope.route("/", handler));
        let app = init_service(app).await;
        for _ in 0..2 {
            assert!(send(&app, get("/s/")).await.is_ok());
        }
        let ann = Identity::of("ann");
        let left = limit.by(&ann).on(&outer).stat().await.unwrap().remaining;
        assert_eq!(left, 7, "{name}");
        let about = format!("throttle `{name}` counts in the `ThrottleBackend` in");
        assert_eq!(warned(&about), expected, "{name}");
    }
}

/// `Within` was true of a memory that was closed, and denies all hits.
#[actix_web::test]
async fn a_guard_took_a_failure_for_a_free_place() {
    for (on_error, expected) in [
        (OnError::Throttle, "crowded"),
        (OnError::Raise, "crowded"),
        (OnError::Allow, "calm"),
    ] {
        let memory = MemoryBackend::new();
        let limit = throttle("guard-closed", "1/day").backend(memory.clone());
        let limit = limit.on_error(on_error).build().unwrap();
        memory.close().await.unwrap();
        let app = init_service(
            App::new().service(
                web::resource("/")
                    .route(
                        web::get()
                            .guard(Within::new(limit).unwrap())
                            .to(async || "calm"),
                    )
                    .route(web::get().to(async || "crowded")),
            ),
        )
        .await;
        assert_eq!(send(&app, get("/")).await.body, expected);
    }
}

/// Issue: `Within` was always true if it could not know.
#[actix_web::test]
async fn a_guard_that_cannot_know_is_refused() {
    let own = |name: &str| throttle(name, "1/day").backend(MemoryBackend::new());
    let told = ThrottleBackend::new(MemoryBackend::new()).identify(ann);
    for (builder, word) in [
        (throttle("guard-data", "1/day"), ".backend(..)"),
        (own("guard-identity").identify(ann), "Within::by"),
        (throttle("guard-told", "1/day").backend(told), "Within::by"),
        (
            own("guard-rate").rate_by(|_: &HttpRequest| Rate::per_day(1)),
            "gives its rate",
        ),
        (own("guard-route").scope(Scope::Route), "by route or path"),
    ] {
        let error = Within::new(builder.build().unwrap()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[actix_web::test]
async fn a_guard_knows_who_asks_if_it_is_told() {
    let key = |headers: &actix_web::http::header::HeaderMap| {
        Identity::of(
            headers
                .get("x-key")
                .map_or("", |key| key.to_str().unwrap_or("")),
        )
    };
    let limit = throttle("guard-by", "1/day")
        .identify(move |req: &HttpRequest| key(req.headers()))
        .backend(MemoryBackend::new());
    let limit = limit.build().unwrap();
    let calm = Within::by(limit.clone(), move |ctx: &GuardContext<'_>| {
        key(&ctx.head().headers)
    });
    let resource = web::resource("/")
        .route(web::get().guard(calm.unwrap()).to(async || "best"))
        .route(web::get().to(async || "some"));
    let app = init_service(App::new().service(resource)).await;
    let by = |who: &'static str| get("/").insert_header(("x-key", who));
    assert_eq!(send(&app, by("ann")).await.body, "best");
    assert!(
        limit
            .by(&Identity::of("ann"))
            .hit()
            .await
            .unwrap()
            .is_allowed()
    );
    assert_eq!(send(&app, by("ann")).await.body, "some");
    assert_eq!(send(&app, by("ben")).await.body, "best");
}
