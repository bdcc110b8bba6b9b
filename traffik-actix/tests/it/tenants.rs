//! A backend for each tenant, and for whatever a function says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::{ErrorNotFound, ErrorPaymentRequired};
use actix_web::middleware::{Next, from_fn};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use futures_util::{FutureExt, pin_mut};
use traffik_actix::traffik_core::backend::{Batch, BoxFuture, Op};
use traffik_actix::traffik_core::{Cell, Decisions, Result};
use traffik_actix::{
    Backend, Error, HttpThrottle, Identity, ManualClock, MemoryBackend, OnError, Tenants,
    ThrottleBackend, ThrottleHeaders, ThrottleMiddleware, Timestamp, Within, throttle,
};

use crate::support::{app, get, memory, send, throttle as builder};

/// Counts that would outlive their backend, as those in a Redis do.
#[derive(Clone, Debug)]
struct Remote {
    cells: MemoryBackend,
    closed: Arc<AtomicUsize>,
}

impl Backend for Remote {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        self.cells.apply(batch)
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        self.cells.load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.cells.reset()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.cells.close()
    }
}

/// Tenants on such backends, and how many of them were made and closed.
struct Service {
    tenants: Tenants,
    clock: ManualClock,
    made: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

fn service() -> Service {
    let clock = ManualClock::default();
    let made = Arc::new(AtomicUsize::new(0));
    let closed = Arc::new(AtomicUsize::new(0));
    let (count, closes) = (Arc::clone(&made), Arc::clone(&closed));
    let tenants = Tenants::new(move |name: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        match name.starts_with("unknown") {
            true => Err(ErrorNotFound("no such tenant")),
            false => Ok(ThrottleBackend::new(Remote {
                cells: MemoryBackend::new(),
                closed: Arc::clone(&closes),
            })),
        }
    });
    Service {
        tenants: tenants.clock(clock.clone()),
        clock,
        made,
        closed,
    }
}

impl Service {
    /// Made and closed so far.
    fn counts(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.made), of(&self.closed))
    }

    async fn opens(&self, name: &str) -> bool {
        self.tenants.open(name).await.is_ok()
    }

    /// Lets what is closed beside the requests be closed.
    async fn settle(&self) {
        for _ in 0..10 {
            actix_web::rt::task::yield_now().await;
        }
    }
}

fn tenant(req: &HttpRequest) -> String {
    req.match_info()
        .get("tenant")
        .unwrap_or_default()
        .to_owned()
}

const MINUTE: Duration = Duration::from_secs(60);

#[throttle("2/day", name = "attribute of tenants")]
async fn hello() -> &'static str {
    "hello"
}

#[actix_web::test]
async fn each_tenant_has_counts_of_its_own() {
    let service = service();
    let all = builder("all of tenants", "3/day").build().unwrap();
    let tenants = service.tenants.clone();
    let scope = web::scope("/{tenant}")
        .wrap(all)
        .wrap(tenants.by(tenant))
        .route("/", web::get().to(hello));
    let app = init_service(App::new().service(scope)).await;
    for (path, status) in [
        ("/north/", 200),
        ("/north/", 200),
        ("/north/", 429), // by the attribute
        ("/north/", 429), // by the middleware
        ("/south/", 200),
        ("/unknown/", 404),
        ("/unknown/", 404),
    ] {
        assert_eq!(send(&app, get(path)).await.status, status, "{path}");
    }
    assert_eq!(service.counts(), (3, 0));
    let long = format!("/{}/", "x".repeat(257));
    assert_eq!(send(&app, get(&long)).await.status, 400);
    assert_eq!(service.counts().0, 3);
    service.tenants.close().await;
    assert_eq!(service.counts().1, 2);
    assert_eq!(send(&app, get("/north/")).await.status, 503);
}

/// The one that says it last, for this very request, has it.
#[actix_web::test]
async fn a_backend_in_the_extensions_keeps_its_meaning_beside_tenants() {
    async fn choose(
        req: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
        let chosen = req.app_data::<web::Data<ThrottleBackend>>().cloned();
        if req.query_string() == "own" {
            req.extensions_mut().insert(chosen.unwrap());
        }
        next.call(req).await
    }
    let service = service();
    let api = builder("api of tenants", "1/day").build().unwrap();
    let own = web::Data::new(ThrottleBackend::new(MemoryBackend::new()));
    let scope = web::scope("/{tenant}")
        .app_data(own)
        .wrap(api)
        .wrap(from_fn(choose))
        .wrap(
            service
                .tenants
                .by_async(async |req: &HttpRequest| tenant(req)),
        )
        .route("/", web::get().to(HttpResponse::Ok));
    let app = init_service(App::new().service(scope)).await;
    // `web::Data` of one is found only if nothing else is.
    for (path, status) in [("/a/", 200), ("/a/?own", 429), ("/b/", 200)] {
        assert_eq!(send(&app, get(path)).await.status, status, "{path}");
    }
}

#[actix_web::test]
async fn a_backend_is_made_once_however_many_wait_for_it() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let tenants = Tenants::new_async(async move |_: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        for _ in 0..5 {
            actix_web::rt::task::yield_now().await;
        }
        ThrottleBackend::new(MemoryBackend::new())
    });
    // Whoever began may go away: the next one goes on.
    {
        let first = tenants.open("one");
        let second = tenants.open("one");
        pin_mut!(second);
        {
            pin_mut!(first);
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
        }
        second.await.unwrap();
        assert_eq!(made.swap(0, Ordering::Relaxed), 2);
    }
    let all = join_all((0..100).map(|at| tenants.open(["one", "two", "three"][at % 3]))).await;
    let stores = all
        .into_iter()
        .map(|backend| backend.unwrap().backend().store_id());
    let mut stores: Vec<_> = stores.collect();
    stores.sort_unstable();
    stores.dedup();
    assert_eq!(stores.len(), 3);
    assert_eq!(made.load(Ordering::Relaxed), 2);
    assert_eq!(tenants.len(), 3);
    // Nobody waits for what nobody wants any more.
    assert!(tenants.open("four").now_or_never().is_none());
    assert_eq!(tenants.len(), 3);
}

#[actix_web::test]
async fn failures_are_remembered_for_a_while() {
    let service = service();
    for made in [1, 1, 1] {
        assert!(!service.opens("unknown").await);
        assert_eq!(service.counts().0, made);
    }
    assert!(service.opens("known").await);
    service.clock.advance(Duration::from_secs(1));
    assert!(!service.opens("unknown").await);
    assert_eq!(service.counts(), (3, 0));
    // Names that clients invent take no place of a tenant's, nor more memory than so many.
    for at in 0..5_000 {
        assert!(!service.opens(&format!("unknown {at}")).await);
    }
    assert_eq!(service.tenants.len(), 1);
    assert!(service.opens("known").await && service.opens("other").await);
}

#[actix_web::test]
async fn idle_tenants_are_closed_unless_they_are_used() {
    let service = service();
    let api = builder("idle", "9/day").build().unwrap();
    let used = service.tenants.open("used").await.unwrap();
    let ann = Identity::of("ann");
    let permit = api
        .by(&ann)
        .cost(2)
        .on(&used)
        .reserve()
        .await
        .unwrap()
        .unwrap();
    drop(used);
    assert!(service.opens("idle").await && service.opens("busy").await);
    service.clock.advance(5 * MINUTE);
    assert!(service.opens("busy").await);
    assert_eq!(service.tenants.sweep().await, 0);
    service.clock.advance(5 * MINUTE - Duration::from_micros(1));
    assert_eq!(service.tenants.sweep().await, 0);
    service.clock.advance(Duration::from_micros(1));
    assert_eq!(service.tenants.sweep().await, 1);
    assert_eq!((service.tenants.len(), service.counts()), (2, (3, 1)));
    // A permit keeps its tenant open, and settles there.
    service.clock.advance(20 * MINUTE);
    assert_eq!(service.tenants.sweep().await, 1);
    permit.settle(1).await.unwrap();
    let used = service.tenants.open("used").await.unwrap();
    assert_eq!(api.by(&ann).on(&used).stat().await.unwrap().remaining, 8);
    drop(used);
    // Requests look for idle ones by the way.
    service.clock.advance(20 * MINUTE);
    assert!(service.opens("new").await);
    service.settle().await;
    assert_eq!((service.tenants.len(), service.counts()), (1, (4, 3)));
    assert!(service.opens("used").await);
    assert_eq!(service.counts().0, 5);
}

/// Closing a memory would give its clients the limit once more.
#[actix_web::test]
async fn an_idle_memory_is_closed_when_its_counts_have_expired() {
    let (clock, _) = memory();
    let cells = clock.clone();
    let tenants = Tenants::new(move |_: &str| {
        MemoryBackend::builder()
            .clock(cells.clone())
            .build()
            .map(ThrottleBackend::new)
    });
    let tenants = tenants.clock(clock.clone()).max(2);
    let api = builder("hourly", "1/hour")
        .strategy("gcra")
        .backend_by_async({
            let tenants = tenants.clone();
            async move |req: &HttpRequest| tenants.open(req.path()).await
        });
    let app = app(ThrottleMiddleware::new(api.build().unwrap())).await;
    assert!(send(&app, get("/")).await.is_ok());
    clock.advance(30 * MINUTE);
    assert_eq!(tenants.sweep().await, 0);
    assert!(send(&app, get("/")).await.is_throttled());
    // Nor is there room for more than two, however long they are idle.
    clock.advance(11 * MINUTE);
    assert!(send(&app, get("/items/1")).await.is_ok());
    assert_eq!(send(&app, get("/admin/users")).await.status, 503);
    assert!(send(&app, get("/")).await.is_throttled());
    clock.advance(30 * MINUTE);
    assert_eq!(tenants.sweep().await, 1);
    assert!(send(&app, get("/admin/users")).await.is_ok());
    assert!(send(&app, get("/items/1")).await.is_throttled());
}

#[actix_web::test]
async fn one_more_tenant_takes_the_place_of_the_one_unused_for_the_longest_time() {
    let mut service = service();
    service.tenants = service.tenants.clone().max(3);
    let kept = service.tenants.open("kept").await.unwrap();
    for name in ["a", "b", "a", "c"] {
        service.clock.advance(MINUTE);
        assert!(service.opens(name).await, "{name}");
    }
    service.settle().await;
    assert_eq!((service.tenants.len(), service.counts()), (3, (4, 1)));
    assert!(service.opens("a").await);
    assert_eq!(service.counts().0, 4, "b had to go");
    // If all are used there is no room, which is not found out anew by every request.
    let used = [
        service.tenants.open("a").await,
        service.tenants.open("c").await,
    ];
    for made in [5, 5, 5] {
        let error = service.tenants.open("d").await.unwrap_err();
        assert_eq!(actix_web::ResponseError::status_code(&error), 503);
        assert_eq!(service.counts().0, made);
    }
    drop((kept, used));
    service.clock.advance(Duration::from_secs(1));
    assert!(service.opens("d").await);
    assert_eq!(service.tenants.len(), 3);
}

#[actix_web::test]
async fn a_store_that_tenants_share_stays_open_for_the_others() {
    let (store, clock) = (MemoryBackend::new(), ManualClock::default());
    let shared = store.clone();
    let tenants = Tenants::new(move |_: &str| ThrottleBackend::new(shared.clone()));
    let tenants = tenants.clock(clock.clone());
    tenants.open("one").await.unwrap();
    clock.advance(9 * MINUTE);
    tenants.open("two").await.unwrap();
    clock.advance(MINUTE);
    tenants.sweep().await;
    assert_eq!(tenants.len(), 1);
    let api = builder("shared store", "1/day")
        .backend(store)
        .build()
        .unwrap();
    let req = TestRequest::default().to_http_request();
    assert!(api.hit(&req).await.unwrap().is_allowed());
}

/// By the middleware, several at once, and by hand; the function is asked once for all.
#[actix_web::test]
async fn a_function_says_where_requests_count() {
    let (_, one) = memory();
    let (_, two) = memory();
    let backends = [one, two].map(ThrottleBackend::new);
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = Arc::clone(&asked);
    let by = move |req: &HttpRequest| {
        asks.fetch_add(1, Ordering::Relaxed);
        match req.query_string() {
            "paid" => Err(ErrorPaymentRequired("not paid")),
            query => Ok(backends[usize::from(query == "two")].clone()),
        }
    };
    let inside = ThrottleBackend::new(MemoryBackend::new());
    let build = |name: &str| {
        builder(name, "2/day")
            .backend_by(by.clone())
            .build()
            .unwrap()
    };
    let (per_minute, per_day) = (build("by minute"), build("by day"));
    let limits = ThrottleMiddleware::new(per_minute.clone()).rule(per_day.clone());
    let served = app(limits.backend(inside)).await;
    for (path, status) in [
        ("/?one", 200),
        ("/?one", 200),
        ("/?one", 429),
        ("/?two", 200),
        ("/?paid", 402),
    ] {
        assert_eq!(send(&served, get(path)).await.status, status, "{path}");
    }
    // Each was given a closure of its own.
    assert_eq!(asked.swap(0, Ordering::Relaxed), 2 * 5);
    let handles = [per_minute.ask(), per_minute.ask().cost(0)];
    let req = get("/?two").to_http_request();
    let hits = HttpThrottle::hit_all(&req, handles).await.unwrap();
    assert_eq!(hits.len(), 2);
    assert_eq!(asked.swap(0, Ordering::Relaxed), 1);
    assert!(!per_minute.check(&req).await.unwrap());
    assert_eq!(per_minute.stat(&req).await.unwrap().remaining, 0);
    assert!(per_day.ask().reserve(&req).await.is_ok());
    let unpaid = get("/?paid").to_http_request();
    let error = per_day.hit(&unpaid).await.unwrap_err();
    assert_eq!(actix_web::ResponseError::status_code(&error), 402);
    // Without a request it has to be said.
    let ann = Identity::of("ann");
    assert!(per_day.by(&ann).hit().await.unwrap_err().is_invalid());
    let error = Within::new(per_day).unwrap_err();
    assert!(
        error.to_string().contains("no backend of its own"),
        "{error}"
    );
}

/// With somebody around who wants to know what was decided the function was not asked, and requests counted elsewhere.
#[actix_web::test]
async fn a_function_is_asked_when_decisions_are_noted() {
    for rules in 1..=2 {
        let ((_, said), (_, around)) = (memory(), memory());
        let own = ThrottleBackend::new(said.clone());
        let build = |at: usize| {
            let own = own.clone();
            let by = move |_: &HttpRequest| own.clone();
            let limit = builder(&format!("noted {at} of {rules}"), "1/day").backend_by(by);
            limit.build().unwrap()
        };
        let mut limits = ThrottleMiddleware::new(build(1)).backend(around);
        if rules == 2 {
            limits = limits.rule(build(2));
        }
        let app = App::new()
            .wrap(limits)
            .wrap(ThrottleHeaders::new())
            .route("/", web::get().to(HttpResponse::Ok));
        let app = init_service(app).await;
        for status in [200, 429] {
            assert_eq!(send(&app, get("/")).await.status, status);
        }
        let there = builder(&format!("noted 1 of {rules}"), "1/day").backend(said);
        let req = get("/").to_http_request();
        let decision = there.build().unwrap().hit(&req).await.unwrap();
        assert!(decision.is_denied(), "of {rules}");
    }
}

/// No policy admits a request because it cannot be said where it counts; in shadow nothing is denied.
#[actix_web::test]
async fn a_function_that_fails_opens_nothing() {
    let lost = |name: &str| {
        let by = |_: &HttpRequest| Err::<ThrottleBackend, _>("no tenant");
        builder(name, "9/day")
            .backend_by(by)
            .on_error(OnError::Allow)
    };
    let earnest = app(ThrottleMiddleware::new(lost("lost").build().unwrap())).await;
    assert_eq!(send(&earnest, get("/")).await.status, 400);
    let shadow = lost("lost shadow").shadow().build().unwrap();
    let shadow = app(ThrottleMiddleware::new(shadow)).await;
    assert_eq!(send(&shadow, get("/")).await.status, 200);
}

/// An error of a hit by hand inside a function was answered 400, whatever it was about.
#[actix_web::test]
async fn a_function_that_passes_on_an_error_answers_as_it_would() {
    let service = service();
    service.tenants.close().await;
    for (name, status) in [("x", 503), ("unknown", 503)] {
        let tenants = service.tenants.clone();
        let by = async move |_: &HttpRequest| tenants.open(name).await;
        let api = builder("passed on", "9/day")
            .backend_by_async(by)
            .build()
            .unwrap();
        let app = app(ThrottleMiddleware::new(api)).await;
        assert_eq!(send(&app, get("/")).await.status, status);
    }
}

#[actix_web::test]
async fn tenants_say_which_of_them_is_ill() {
    let tenants = Tenants::new(|_: &str| ThrottleBackend::new(MemoryBackend::new()));
    tenants.open("well").await.unwrap();
    let ill = tenants.open("ill").await.unwrap();
    tenants.ready().await.unwrap();
    ill.backend().close().await.unwrap();
    let error: Error = ill.ready().await.unwrap_err();
    assert!(error.is_closed(), "{error}");
    let failed = tenants.ready().await.unwrap_err();
    let names: Vec<_> = failed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ill"]);
}
