//! Throttles that change while requests pass.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::Request;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, HttpResponse, web};
use traffik_actix::{
    HttpThrottle, Identity, Limits, MemoryBackend, OnError, Rate, Rule, ThrottleBackend,
    ThrottleMiddleware, ThrottleRule, Throttled, Within, throttle,
};

use crate::support::{app, get, memory, send, throttle as made, warnings};

#[throttle(limit = "named")]
async fn named() -> &'static str {
    "named"
}

/// A window of fixed length begins anew with the month, and the month with the day that is said.
#[actix_web::test]
async fn a_month_that_was_set_while_it_runs_began_anew_each_time() {
    // The first of January.
    let (clock, backend) = memory();
    let limits = Limits::new();
    let plan = made("plan", "2/month")
        .strategy("calendar_window,month_starts_on=15")
        .backend(backend);
    limits.add(plan).unwrap();
    let app = app(ThrottleMiddleware::new(limits.get("plan").unwrap())).await;
    let admitted = async || {
        let mut admitted = 0;
        for _ in 0..9 {
            admitted += usize::from(send(&app, get("/")).await.is_ok());
        }
        admitted
    };
    assert_eq!(admitted().await, 2);
    limits.update("plan", |plan| plan.rate("5/month")).unwrap();
    assert_eq!(admitted().await, 3, "of the same month");
    let days = |days: u64| Duration::from_secs(days * 86_400);
    clock.advance(days(14) - Duration::from_micros(1));
    assert_eq!(admitted().await, 0);
    clock.advance(Duration::from_micros(1));
    assert_eq!(admitted().await, 5);
    // What was said before stays so if this cannot be.
    let refused = limits.update("plan", |plan| plan.strategy("fixed_window"));
    assert!(refused.is_err(), "a month has no length");
    clock.advance(days(31) - Duration::from_micros(1));
    assert_eq!(admitted().await, 0);
    clock.advance(Duration::from_micros(1));
    assert_eq!(admitted().await, 5, "on the fifteenth of February");
}

#[throttle("3/day", name = "own")]
#[throttle(limit = "named")]
async fn own_and_named() -> &'static str {
    "both"
}

async fn by_hand(req: HttpRequest, limits: web::Data<Limits>) -> actix_web::Result<&'static str> {
    let by_hand = limits.get("by-hand").unwrap();
    by_hand.enforce(&req).await?;
    Ok("passed")
}

async fn by_hand_all(
    req: HttpRequest,
    limits: web::Data<Limits>,
) -> actix_web::Result<&'static str> {
    let (one, two) = (
        limits.get("by-all").unwrap(),
        limits.get("unlimited").unwrap(),
    );
    HttpThrottle::enforce_all(&req, [one.ask(), two.ask()]).await?;
    Ok("passed")
}

async fn by_hit(req: HttpRequest, limits: web::Data<Limits>) -> actix_web::Result<HttpResponse> {
    let by_hit = limits.get("by-hit").unwrap();
    let stat = by_hit.stat(&req).await?;
    let decision = by_hit.hit(&req).await?;
    assert_eq!(stat.verdict, decision.verdict());
    Ok(match decision.is_allowed() {
        true => HttpResponse::Ok().finish(),
        false => HttpResponse::TooManyRequests().finish(),
    })
}

/// By an identity alone, as a job would.
async fn by_whom(limits: web::Data<Limits>, backend: web::Data<ThrottleBackend>) -> HttpResponse {
    let by_whom = limits.get("by-whom").unwrap();
    let who = Identity::of("job");
    match by_whom
        .by(&who)
        .on(&backend)
        .hit()
        .await
        .unwrap()
        .is_allowed()
    {
        true => HttpResponse::Ok().finish(),
        false => HttpResponse::TooManyRequests().finish(),
    }
}

/// A permit that nobody settles.
async fn by_permit(req: HttpRequest, limits: web::Data<Limits>) -> actix_web::Result<&'static str> {
    let by_permit = limits.get("by-permit").unwrap();
    drop(by_permit.ask().reserve(&req).await?);
    Ok("passed")
}

/// The same by an identity alone.
async fn by_job(limits: web::Data<Limits>, backend: web::Data<ThrottleBackend>) -> HttpResponse {
    let by_job = limits.get("by-job").unwrap();
    let who = Identity::of("job");
    match by_job.by(&who).on(&backend).reserve().await.unwrap() {
        Ok(_) => HttpResponse::Ok().finish(),
        Err(_) => HttpResponse::TooManyRequests().finish(),
    }
}

/// Every way to meet a throttle, its path in the application, and the throttle.
const WAYS: &[(&str, &str)] = &[
    ("/around", "around"),
    ("/rules", "rules"),
    ("/named", "named"),
    ("/by-hand", "by-hand"),
    ("/by-all", "by-all"),
    ("/by-hit", "by-hit"),
    ("/by-whom", "by-whom"),
    ("/by-permit", "by-permit"),
    ("/by-job", "by-job"),
];

/// How many of nine requests pass; the others are denied.
async fn admitted_of_nine<S, B>(app: &S, path: &str) -> u32
where
    S: Service<Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let mut admitted = 0;
    for _ in 0..9 {
        let answer = send(app, get(path)).await;
        assert!(
            answer.is_ok() || answer.is_throttled(),
            "{path}: {answer:?}"
        );
        admitted += u32::from(answer.is_ok());
    }
    admitted
}

macro_rules! all_ways {
    ($limits:expr, $backend:expr) => {{
        let (limits, backend) = (&$limits, &$backend);
        for (_, name) in WAYS {
            limits.add(made(name, "2/minute")).unwrap();
        }
        limits.add(made("unlimited", "0/0")).unwrap();
        let get_of = |name: &str| limits.get(name).unwrap();
        let free = made("free", "1000/s").build().unwrap();
        let rules =
            ThrottleMiddleware::new(free).rule(Rule::new(get_of("rules")).methods([Method::GET]));
        init_service(
            App::new()
                .app_data(web::Data::new(ThrottleBackend::new(backend.clone())))
                .app_data(web::Data::new(limits.clone()))
                .service(
                    web::resource("/around")
                        .wrap(get_of("around"))
                        .to(async || "around"),
                )
                .service(web::resource("/rules").wrap(rules).to(async || "rules"))
                .route("/named", web::get().to(named))
                .route("/by-hand", web::get().to(by_hand))
                .route("/by-all", web::get().to(by_hand_all))
                .route("/by-hit", web::get().to(by_hit))
                .route("/by-whom", web::get().to(by_whom))
                .route("/by-permit", web::get().to(by_permit))
                .route("/by-job", web::get().to(by_job)),
        )
        .await
    }};
}

#[actix_web::test]
async fn a_change_is_in_force_with_the_next_request_wherever_the_throttle_is() {
    let (clock, backend) = memory();
    let limits = Limits::new();
    let app = all_ways!(limits, backend);
    for (path, name) in WAYS {
        let admitted = async || admitted_of_nine(&app, path).await;
        assert_eq!(admitted().await, 2, "{path}");
        // What was taken goes on to count.
        limits.update(name, |one| one.rate("5/minute")).unwrap();
        assert_eq!(admitted().await, 3, "{path}: raised");
        limits.update(name, |one| one.rate("3/minute")).unwrap();
        assert_eq!(admitted().await, 0, "{path}: lowered");
        limits.disable(name).unwrap();
        assert_eq!(admitted().await, 9, "{path}: disabled");
        limits.enable(name).unwrap();
        assert_eq!(admitted().await, 0, "{path}: enabled");
        // Another strategy has counts of its own.
        limits
            .update(name, |one| one.strategy("sliding_window_log"))
            .unwrap();
        assert_eq!(admitted().await, 3, "{path}: of another strategy");
        limits
            .update(name, |one| one.strategy("fixed_window").cost(2))
            .unwrap();
        assert_eq!(admitted().await, 0, "{path}: of the first strategy again");
        clock.advance(Duration::from_secs(60));
        assert_eq!(admitted().await, 1, "{path}: at twice the cost");
    }
}

/// Whether a middleware settles by the response is asked anew when a throttle changes.
#[actix_web::test]
async fn what_is_given_back_by_the_response_changes_with_the_next_request() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let app = all_ways!(limits, backend);
    for path in ["/around", "/rules", "/named"] {
        let name = path.trim_start_matches('/');
        let change = |refunds: bool| {
            let changed = limits.update(name, |one| one.refund_if(move |_| refunds));
            changed.unwrap();
        };
        let passes = async || send(&app, get(path)).await.is_ok();
        change(true);
        for _ in 0..9 {
            assert!(passes().await, "{path}: nothing counts");
        }
        change(false);
        let admitted = [passes().await, passes().await, passes().await];
        assert_eq!(admitted, [true, true, false], "{path}: everything counts");
    }
}

#[actix_web::test]
async fn all_are_switched_off_and_on_at_once() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let app = all_ways!(limits, backend);
    let admitted = async |path| admitted_of_nine(&app, path).await;
    limits.disable_all();
    for (path, _) in WAYS {
        assert_eq!(admitted(path).await, 9, "{path}");
    }
    assert!(limits.list().iter().all(|limit| !limit.is_enabled));
    limits.enable_all();
    for (path, _) in WAYS {
        assert_eq!(
            admitted(path).await,
            2,
            "{path}: nothing was counted meanwhile"
        );
    }
}

#[actix_web::test]
async fn a_removed_throttle_went_on_limiting_or_took_the_requests_of_another() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let app = all_ways!(limits, backend);
    for path in ["/around", "/rules", "/named"] {
        let name = path.trim_start_matches('/');
        let admitted = async || admitted_of_nine(&app, path).await;
        let handle = limits.get(name).unwrap();
        assert_eq!(admitted().await, 2, "{path}");
        limits.remove(name).unwrap();
        assert_eq!(admitted().await, 9, "{path}: removed");
        assert!(handle.rate().unwrap().is_unlimited());
        assert!(limits.get(name).is_none());
        assert!(limits.list().iter().all(|one| one.name != name));
        assert!(limits.update(name, |one| one.rate("1/s")).is_err());
        assert!(limits.disable(name).is_err() && limits.remove(name).is_err());
        // Another takes its place in the registry, and none of its requests.
        let other = format!("other-than-{name}");
        limits.add(made(&other, "1/day")).unwrap();
        assert_eq!(admitted().await, 9, "{path}: another was added");
        assert!(handle.rate().unwrap().is_unlimited());
        limits.add(made(name, "5/minute")).unwrap();
        assert_eq!(handle.rate().unwrap().to_string(), "5/minute");
        assert_eq!(admitted().await, 3, "{path}: the counts go on");
    }
}

#[actix_web::test]
async fn a_disabled_throttle_asks_no_function_and_says_nothing() {
    let (_, backend) = memory();
    let limits = Limits::new();
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    fn who(req: &HttpRequest) -> Result<Identity, &'static str> {
        ASKED.fetch_add(1, Ordering::Relaxed);
        let key = req.headers().get("x-key").ok_or("no key")?;
        Ok(Identity::of(format_args!("{key:?}")))
    }
    let functions = made("functions", "1/day")
        .identify(who)
        .cost_by(|_: &HttpRequest| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            1
        })
        .cost_after(|_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            1
        })
        .refund_if(|_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            false
        });
    let live = limits
        .add(functions.wait_up_to(Duration::from_millis(1)))
        .unwrap();
    let app = app(ThrottleMiddleware::new(live.clone()).backend(backend)).await;
    assert_eq!(send(&app, get("/")).await.status, 400);
    limits.disable("functions").unwrap();
    let before = ASKED.load(Ordering::Relaxed);
    let answer = send(&app, get("/")).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(answer.header("ratelimit"), None);
    assert_eq!(ASKED.load(Ordering::Relaxed), before);
    assert!(live.rate().unwrap().is_unlimited());
    assert_eq!(limits.list()[0].rate.unwrap().to_string(), "1/day");
    // What is changed while it is off, is in force when it is on.
    limits.update("functions", |one| one.rate("7/day")).unwrap();
    assert!(send(&app, get("/")).await.is_ok());
    limits.enable("functions").unwrap();
    assert_eq!(send(&app, get("/")).await.status, 400);
    let answer = send(&app, get("/").insert_header(("x-key", "a"))).await;
    assert_eq!(
        answer.header("ratelimit-policy").unwrap(),
        "\"functions\";q=7;w=86400"
    );
}

#[actix_web::test]
async fn a_handler_may_have_limits_of_its_own_and_of_the_application() {
    let (_, backend) = memory();
    let limits = Limits::new();
    limits.add(made("named", "5/day")).unwrap();
    let app = init_service(
        App::new()
            .app_data(web::Data::new(ThrottleBackend::new(backend)))
            .app_data(limits.clone())
            .route("/", web::get().to(own_and_named)),
    )
    .await;
    let first = send(&app, get("/")).await;
    let policies = first.header("ratelimit-policy").unwrap();
    assert_eq!(policies, "\"own\";q=3;w=86400,\"named\";q=5;w=86400");
    limits.update("named", |one| one.rate("1/day")).unwrap();
    assert!(send(&app, get("/")).await.is_throttled());
    limits.disable("named").unwrap();
    // The denial charged nothing: two of three are left.
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
}

/// They were found in the other order than backends are, in silence.
#[actix_web::test]
async fn limits_that_are_registered_in_two_ways_are_said() {
    warnings();
    #[throttle(limit = "two-ways")]
    async fn two_ways() -> &'static str {
        "hello"
    }
    let [outer, inner] = ["1/day", "9/day"].map(|rate| {
        let limits = Limits::new();
        let limit = made("two-ways", rate).backend(memory().1);
        limits.add(limit).unwrap();
        limits
    });
    let scope = web::scope("/s").app_data(web::Data::new(inner));
    let app = App::new()
        .app_data(outer)
        .service(scope.route("/", web::get().to(two_ways)));
    let app = init_service(app).await;
    assert!(send(&app, get("/s/")).await.is_ok());
    assert!(send(&app, get("/s/")).await.is_throttled());
    let said = warnings().lock().unwrap();
    let ours = said.iter().filter(|line| line.contains("in the `Limits`"));
    assert_eq!(ours.count(), 1);
}

/// Nothing passes unlimited because a name has a slip.
#[actix_web::test]
async fn a_handler_whose_limit_is_not_there_is_not_served_and_the_log_says_what_is() {
    warnings();
    let limits = Limits::new();
    limits.add(made("misnmaed", "5/day")).unwrap();
    let app = init_service(
        App::new()
            .app_data(web::Data::new(limits.clone()))
            .route("/", web::get().to(misnamed)),
    )
    .await;
    #[throttle(limit = "misnamed")]
    async fn misnamed() -> &'static str {
        "never"
    }
    assert_eq!(send(&app, get("/")).await.status, 500);
    assert_eq!(send(&app, get("/")).await.status, 500);
    // Added later, it is found.
    limits
        .add(made("misnamed", "1/day").backend(MemoryBackend::new()))
        .unwrap();
    assert!(send(&app, get("/")).await.is_ok());
    let said = warnings().lock().unwrap();
    let ours: Vec<_> = said
        .iter()
        .filter(|line| line.contains("`misnamed`"))
        .collect();
    assert_eq!(ours.len(), 1, "{ours:?}");
    assert!(ours[0].contains(
        "a handler is not served: there is no throttle `misnamed`, did you mean `misnmaed`?"
    ));
}

#[actix_web::test]
async fn a_handler_without_a_registry_is_not_served() {
    let app = init_service(App::new().route("/", web::get().to(lonely))).await;
    #[throttle(limit = "lonely")]
    async fn lonely() -> &'static str {
        "never"
    }
    assert_eq!(send(&app, get("/")).await.status, 500);
    let said = warnings().lock().unwrap();
    assert!(
        said.iter().any(|line| line.contains("has no `Limits`")),
        "{said:?}"
    );
}

#[test]
fn what_cannot_be_is_refused_and_all_stays_as_it_was() {
    let limits = Limits::new();
    let api = limits.add(made("api", "5/s")).unwrap();
    type Change = fn(&Limits) -> traffik_actix::Error;
    let table: [(Change, &str); 7] = [
        (
            |limits| limits.add(made("api", "1/s")).unwrap_err(),
            "there is a throttle `api` already: change it with `update`, or give this one another name",
        ),
        (
            |limits| limits.add(made("b", "fast")).unwrap_err(),
            "throttle `b`: \"fast\" is no rate",
        ),
        (
            |limits| limits.update("api", |one| one.rate("fast")).unwrap_err(),
            "throttle `api`: \"fast\" is no rate",
        ),
        (
            |limits| {
                limits
                    .update("api", |one| one.strategy("gcar"))
                    .unwrap_err()
            },
            "throttle `api`: \"gcar\" is no strategy, did you mean `gcra`?",
        ),
        (
            |limits| limits.update("apj", |one| one).unwrap_err(),
            "there is no throttle `apj`, did you mean `api`?",
        ),
        (
            |limits| limits.disable("other").unwrap_err(),
            "there is no throttle `other`; there are api",
        ),
        (
            |limits| limits.enable("").unwrap_err(),
            "there is no throttle ``; there are api",
        ),
    ];
    for (change, says) in table {
        let error = change(&limits);
        assert!(error.is_invalid());
        assert!(error.to_string().starts_with(says), "{error}");
        let list = limits.list();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].rate.unwrap().to_string(), "5/second");
        assert!(list[0].is_enabled);
    }
    assert!(limits.get("other").is_none());
    assert_eq!(api.rate().unwrap().to_string(), "5/second");
    let empty = Limits::new().disable("api").unwrap_err();
    assert_eq!(
        empty.to_string(),
        "there is no throttle `api`; there is none yet"
    );
}

/// The throttle before a change and the one after it are no two throttles that quarrel about a rate.
#[actix_web::test]
async fn a_changed_rate_is_not_mistaken_for_two_throttles_of_one_name() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let live = limits.add(made("no-quarrel", "5/day")).unwrap();
    let backend = ThrottleBackend::new(backend);
    let before = limits.get("no-quarrel").unwrap();
    let app_1 = app(ThrottleMiddleware::new(live.clone()).backend(backend.clone())).await;
    assert!(send(&app_1, get("/")).await.is_ok());
    limits
        .update("no-quarrel", |one| one.rate("6/day"))
        .unwrap();
    // A worker that starts later.
    let app_2 = app(ThrottleMiddleware::new(before)
        .backend(backend.clone())
        .rule(live))
    .await;
    assert!(send(&app_2, get("/")).await.is_ok());
    assert!(send(&app_1, get("/")).await.is_ok());
    let said = warnings().lock().unwrap();
    assert!(
        !said.iter().any(|line| line.contains("no-quarrel")),
        "{said:?}"
    );
}

#[actix_web::test]
async fn policies_and_headers_change_too() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let live = limits
        .add(made("policies", "1/day").backend(backend.clone()))
        .unwrap();
    let app = app(live.into()).await;
    assert!(send(&app, get("/")).await.is_ok());
    assert!(send(&app, get("/")).await.is_throttled());
    limits
        .update("policies", |one| {
            one.on_denied(|_| HttpResponse::ImATeapot().finish())
                .headers(traffik_actix::Headers::Never)
        })
        .unwrap();
    let denied = send(&app, get("/")).await;
    assert_eq!(
        (denied.status.as_u16(), denied.header("ratelimit")),
        (418, None)
    );
    traffik_actix::Backend::close(&backend).await.unwrap();
    limits
        .update("policies", |one| one.on_error(OnError::Allow))
        .unwrap();
    assert!(send(&app, get("/")).await.is_ok());
    limits
        .update("policies", |one| one.on_error(OnError::Raise))
        .unwrap();
    assert_eq!(send(&app, get("/")).await.status, 503);
    // On another backend it counts afresh.
    let (_, other) = memory();
    limits
        .update("policies", |one| {
            one.backend(ThrottleBackend::new(other).separate())
        })
        .unwrap();
    assert!(send(&app, get("/")).await.is_ok());
}

#[actix_web::test]
async fn guards_and_extractors_follow_too() {
    use std::sync::LazyLock;
    static LIMITS: LazyLock<Limits> = LazyLock::new(Limits::new);
    struct Extracted;
    impl ThrottleRule for Extracted {
        fn throttle() -> &'static HttpThrottle {
            static EXTRACTED: LazyLock<HttpThrottle> = LazyLock::new(|| {
                LIMITS
                    .add(made("extracted", "1/day").backend(MemoryBackend::new()))
                    .unwrap()
            });
            &EXTRACTED
        }
    }
    let guarded = LIMITS
        .add(made("guarded", "1/day").backend(MemoryBackend::new()))
        .unwrap();
    let app = init_service(
        App::new()
            .route(
                "/extracted",
                web::get().to(async |_: Throttled<Extracted>| "extracted"),
            )
            .service(
                web::resource("/guarded")
                    .wrap(guarded.clone())
                    .route(
                        web::get()
                            .guard(Within::new(guarded).unwrap())
                            .to(async || "calm"),
                    )
                    .route(web::get().to(async || "busy")),
            ),
    )
    .await;
    assert!(send(&app, get("/extracted")).await.is_ok());
    assert!(send(&app, get("/extracted")).await.is_throttled());
    LIMITS.update("extracted", |one| one.rate("2/day")).unwrap();
    assert!(send(&app, get("/extracted")).await.is_ok());

    assert_eq!(
        send(&app, get("/guarded")).await.body,
        "busy",
        "the only one is charged by then"
    );
    LIMITS.update("guarded", |one| one.rate("9/day")).unwrap();
    assert_eq!(send(&app, get("/guarded")).await.body, "calm");
    LIMITS.update("guarded", |one| one.rate("3/day")).unwrap();
    assert_eq!(send(&app, get("/guarded")).await.body, "busy");
    LIMITS.disable("guarded").unwrap();
    assert_eq!(send(&app, get("/guarded")).await.body, "calm");
    // It was asked a throttle without a backend, and routed as if the limit were spent.
    LIMITS.remove("guarded").unwrap();
    assert_eq!(send(&app, get("/guarded")).await.body, "calm");
}

/// While it was off another throttle was told, so that it came back as before.
#[actix_web::test]
async fn a_shadow_that_began_or_ended_while_a_throttle_was_off_was_forgotten() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let live = limits.add(made("api", "1/day").backend(backend)).unwrap();
    let app = app(ThrottleMiddleware::new(live.clone())).await;
    assert!(send(&app, get("/")).await.is_ok());
    for is_shadow in [true, false] {
        limits.disable("api").unwrap();
        live.set_shadow(is_shadow);
        limits.update("api", |api| api.cost(1)).unwrap();
        limits.enable("api").unwrap();
        assert_eq!(live.is_shadow(), is_shadow);
        assert_eq!(send(&app, get("/")).await.is_ok(), is_shadow);
    }
    assert_eq!(live.shadow_report().newly_denied, 1);
}

/// It was told to a throttle that stood in for the one before the change.
#[actix_web::test]
async fn a_shadow_that_ended_after_a_change_while_a_throttle_was_off_went_on() {
    let (_, backend) = memory();
    let limits = Limits::new();
    let live = limits.add(made("api", "1/day").backend(backend)).unwrap();
    let app = app(ThrottleMiddleware::new(live.clone())).await;
    assert!(send(&app, get("/")).await.is_ok());
    limits.disable("api").unwrap();
    limits.update("api", |api| api.shadow()).unwrap();
    assert!(live.is_shadow());
    live.set_shadow(false);
    limits.enable("api").unwrap();
    assert!(!live.is_shadow());
    assert!(send(&app, get("/")).await.is_throttled());
}

/// It was listed under a name by which it was not found, or by which there could be two.
#[test]
fn an_update_gave_a_throttle_another_name() {
    let limits = Limits::new();
    limits.add(made("api", "5/s")).unwrap();
    for is_enabled in [true, false] {
        let error = limits.update("api", |_| made("apj", "9/s")).unwrap_err();
        assert!(error.is_invalid());
        assert_eq!(
            error.to_string(),
            "throttle `api` cannot become one named `apj`: change the builder that the function is given, or `add` the \
             other one"
        );
        let list = limits.list();
        assert_eq!((list.len(), &*list[0].name), (1, "api"));
        assert_eq!(list[0].rate.unwrap().to_string(), "5/second");
        assert_eq!(list[0].is_enabled, is_enabled);
        limits.disable("api").unwrap();
    }
}

/// It was of no registry any more.
#[actix_web::test]
async fn a_throttle_that_was_updated_with_a_fresh_builder_quarrelled_with_itself() {
    let said = warnings();
    let (_, backend) = memory();
    let limits = Limits::new();
    let live = limits.add(made("fresh", "5/day")).unwrap();
    let workers = ThrottleMiddleware::new(live).backend(backend);
    let (one, two) = (app(workers.clone()).await, app(workers).await);
    assert!(send(&one, get("/")).await.is_ok());
    assert!(send(&two, get("/")).await.is_ok());
    limits.update("fresh", |_| made("fresh", "6/day")).unwrap();
    // The other worker has the throttle still that was.
    assert!(send(&one, get("/")).await.is_ok());
    let said = said.lock().unwrap();
    assert!(
        !said.iter().any(|line| line.contains("`fresh`")),
        "{said:?}"
    );
}

/// Whatever was asked: without a rate of its own a throttle admits all, and the address may not be whom it counts.
#[actix_web::test]
async fn a_guard_was_true_of_a_throttle_that_became_one_it_cannot_ask() {
    let limits = Limits::new();
    let api = made("api", "5/day").backend(MemoryBackend::new());
    let live = limits.add(api.clone()).unwrap();
    let app = init_service(
        App::new()
            .route(
                "/",
                web::get()
                    .guard(Within::new(live).unwrap())
                    .to(async || "calm"),
            )
            .route("/", web::get().to(async || "busy")),
    )
    .await;
    let routed = async || send(&app, get("/")).await.body;
    assert_eq!(routed().await, "calm");
    let by_function = |_: &HttpRequest| Rate::per_day(5);
    limits
        .update("api", |api| api.rate_by(by_function))
        .unwrap();
    assert_eq!(routed().await, "busy");
    let who = |_: &HttpRequest| Identity::of("ann");
    limits.update("api", |_| api.clone().identify(who)).unwrap();
    assert_eq!(routed().await, "busy");
    limits.update("api", |_| api).unwrap();
    assert_eq!(routed().await, "calm");
}

/// Of removed throttles it was said that their limit is multiplied.
#[actix_web::test]
async fn who_was_removed_was_warned_of() {
    let limits = Limits::new();
    let memories = [(); 2].map(|()| ThrottleBackend::new(MemoryBackend::new()));
    for (name, memory) in ["gone-here", "gone-there"].into_iter().zip(&memories) {
        let live = limits.add(made(name, "1/day")).unwrap();
        let app = app(ThrottleMiddleware::new(live).backend(memory.clone())).await;
        limits.remove(name).unwrap();
        for _ in 0..2 {
            assert!(send(&app, get("/")).await.is_ok());
        }
    }
    let warnings = warnings().lock().unwrap();
    assert!(
        warnings.iter().all(|one| !one.contains("(removed)")),
        "{warnings:?}"
    );
}

/// An outage that begins before a change is the same outage after it.
#[actix_web::test]
async fn what_was_seen_of_an_outage_outlives_a_change() {
    let backend = MemoryBackend::new();
    let limits = Limits::new();
    let live = limits
        .add(made("outage", "9/day").backend(backend.clone()))
        .unwrap();
    traffik_actix::Backend::close(&backend).await.unwrap();
    let req = TestRequest::default().to_http_request();
    assert!(live.hit(&req).await.unwrap().is_denied());
    let before = live.outage();
    assert!(before.lasts && before.degraded_total == 1);
    limits.update("outage", |one| one.rate("8/day")).unwrap();
    assert_eq!(live.outage(), before);
}

fn set_rate(limits: &Limits, rate: &str) {
    limits.update("work", |work| work.rate(rate)).unwrap();
}

/// It was settled by the rate of before, which began a window anew: the hour's limit was given again.
#[actix_web::test]
async fn a_permit_that_was_held_while_its_limit_was_lowered_gave_it_again() {
    type Change = fn(&Limits);
    let changes: [(&str, Change); 4] = [
        ("updated", |limits| set_rate(limits, "100/hour")),
        ("updated and not", |limits| {
            set_rate(limits, "100/hour");
            let refused = limits.update("work", |work| work.rate("often"));
            assert!(refused.is_err());
        }),
        ("updated while disabled", |limits| {
            limits.disable("work").unwrap();
            set_rate(limits, "100/hour");
            limits.enable("work").unwrap();
        }),
        ("removed and added", |limits| {
            limits.remove("work").unwrap();
            limits.add(made("work", "100/hour")).unwrap();
        }),
    ];
    for (how, change) in changes {
        let (clock, backend) = memory();
        let backend = ThrottleBackend::new(backend);
        let limits = Limits::new();
        let work = limits.add(made("work", "100/minute")).unwrap();
        let ann = Identity::of("ann");
        let by_ann = || work.by(&ann).on(&backend);
        let permit = by_ann().cost(10).reserve().await.unwrap().unwrap();
        change(&limits);
        let admitted = async || {
            let mut admitted = 0;
            while by_ann().hit().await.unwrap().is_allowed() {
                admitted += 1;
            }
            admitted
        };
        assert_eq!(admitted().await, 90, "{how}");
        clock.advance(Duration::from_secs(75));
        permit.settle(11).await.unwrap();
        assert_eq!(admitted().await, 0, "{how}");
    }
}

/// Whoever had been told to pause did so, though nothing was limited any more, or more was allowed.
#[actix_web::test]
async fn a_stream_paused_by_a_limit_that_was_no_more() {
    type Change = fn(&Limits);
    let changes: [(&str, Change); 4] = [
        ("raised", |limits| set_rate(limits, "1000/hour")),
        ("unlimited", |limits| set_rate(limits, "0/0")),
        ("disabled", |limits| limits.disable("work").unwrap()),
        ("removed", |limits| limits.remove("work").unwrap()),
    ];
    for (how, change) in changes {
        let (_, backend) = memory();
        let limits = Limits::new();
        let work = made("work", "10/hour").backend(backend);
        let work = limits.add(work).unwrap();
        let ann = Identity::of("ann");
        let permit = work.by(&ann).cost(10).reserve().await.unwrap();
        let mut permit = permit.unwrap();
        let paused = permit.meter(20).await.unwrap();
        assert!(!paused.is_go(), "{how}");
        change(&limits);
        assert!(permit.meter(0).await.unwrap().is_go(), "{how}");
        assert!(permit.meter(100).await.unwrap().is_go(), "{how}");
    }
}

/// Several threads ask while the limit is changed over and over: nobody is refused without a reason, and
/// nobody is admitted more than the highest limit there was.
#[test]
fn changes_under_load_lose_no_request_and_admit_none_too_many() {
    let limits = Limits::new();
    let backend = MemoryBackend::new();
    let live = limits
        .add(made("load", "1000/day").backend(backend))
        .unwrap();
    let admitted = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                actix_web::rt::System::new().block_on(async {
                    let app = app(ThrottleMiddleware::new(live.clone())).await;
                    let mut after = 0;
                    while after < 100 {
                        let answer = send(&app, get("/")).await;
                        assert!(answer.is_ok() || answer.is_throttled(), "{answer:?}");
                        admitted.fetch_add(usize::from(answer.is_ok()), Ordering::Relaxed);
                        after += u32::from(is_over.load(Ordering::Relaxed));
                    }
                });
            });
        }
        let mut rate = 900;
        while admitted.load(Ordering::Relaxed) < 1_000 {
            rate = 1_900 - rate;
            limits
                .update("load", |one| one.rate(format!("{rate}/day")))
                .unwrap();
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(admitted.into_inner(), 1_000);
}
