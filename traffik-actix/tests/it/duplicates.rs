//! A backend that is built inside the `HttpServer::new` closure multiplies its limits by the
//! workers. An application for every worker is what actix makes of that closure.

use std::time::Duration;

use actix_http::Request;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::init_service;
use actix_web::{App, Error, HttpRequest, HttpResponse, web};
use traffik_actix::{BackendExt, HttpThrottle, MemoryBackend, ThrottleBackend, ThrottleMiddleware};

use crate::support::{app, get, send, throttle, warnings};

/// How often it was said that throttles of this name have several counts.
fn warned(name: &str) -> usize {
    let warnings = warnings().lock().unwrap();
    let about = format!("throttle `{name}` counts in more than one memory");
    let about = warnings.iter().filter(|line| line.starts_with(&about));
    about.count()
}

fn daily(name: &str) -> HttpThrottle {
    throttle(name, "1000/day").build().unwrap()
}

/// An application whose throttle is in a middleware, and whose backend is in its data.
async fn worker(
    limit: HttpThrottle,
    backend: ThrottleBackend,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    init_service(
        App::new()
            .app_data(web::Data::new(backend))
            .wrap(ThrottleMiddleware::new(limit))
            .route("/", web::get().to(async || "hello")),
    )
    .await
}

#[actix_web::test]
async fn throttle_and_its_backend_inside_are_noticed_as_the_second_worker_starts() {
    warnings();
    let mut workers = Vec::new();
    for expected in [0, 1, 1] {
        let inside = throttle("own-inside", "1/day").backend(MemoryBackend::new());
        workers.push(app(ThrottleMiddleware::new(inside.build().unwrap())).await);
        assert_eq!(warned("own-inside"), expected);
    }
}

#[actix_web::test]
async fn a_backend_in_the_data_is_noticed_whether_the_throttle_is_inside_or_not() {
    warnings();
    let outside = daily("throttle-outside");
    let mut workers = Vec::new();
    for expected in [0, 1, 1] {
        let backend = ThrottleBackend::new(MemoryBackend::new());
        for throttle in [outside.clone(), daily("throttle-inside")] {
            let name = throttle.name().to_owned();
            let app = worker(throttle, backend.clone()).await;
            assert!(send(&app, get("/")).await.is_ok());
            assert_eq!(warned(&name), expected, "{name}");
        }
        workers.push(backend);
    }
}

#[actix_web::test]
async fn throttles_that_handlers_ask_are_noticed_too() {
    async fn ask(
        req: HttpRequest,
        limit: web::Data<HttpThrottle>,
    ) -> actix_web::Result<HttpResponse> {
        limit.enforce(&req).await?;
        Ok(HttpResponse::Ok().finish())
    }
    warnings();
    let mut workers = Vec::new();
    for expected in [0, 1] {
        let backend = ThrottleBackend::new(MemoryBackend::new());
        let app = init_service(
            App::new()
                .app_data(backend.clone())
                .app_data(web::Data::new(daily("asked")))
                .route("/", web::get().to(ask)),
        );
        assert!(send(&app.await, get("/")).await.is_ok());
        assert_eq!(warned("asked"), expected);
        workers.push(backend);
    }
}

/// The warning came with every request that found another worker's memory than the one before.
#[actix_web::test]
async fn workers_that_take_turns_are_noticed_once() {
    warnings();
    let limit = daily("in-turn");
    let one = worker(limit.clone(), ThrottleBackend::new(MemoryBackend::new())).await;
    let other = worker(limit, ThrottleBackend::new(MemoryBackend::new())).await;
    for _ in 0..5 {
        assert!(send(&one, get("/")).await.is_ok());
        assert!(send(&other, get("/")).await.is_ok());
    }
    assert_eq!(warned("in-turn"), 1);
}

#[actix_web::test]
async fn tests_that_follow_each_other_are_no_workers() {
    warnings();
    for _ in 0..3 {
        let own = throttle("tested", "1/day").backend(MemoryBackend::new());
        let app = app(ThrottleMiddleware::new(own.build().unwrap())).await;
        assert!(send(&app, get("/")).await.is_ok());
    }
    assert_eq!(warned("tested"), 0);
}

#[actix_web::test]
async fn one_memory_under_several_handles_is_one() {
    warnings();
    let memory = MemoryBackend::new();
    let mut workers = Vec::new();
    for _ in 0..3 {
        let patient = memory.clone().deadline(Duration::from_secs(1));
        for backend in [ThrottleBackend::new(memory.clone()), patient.into()] {
            let app = worker(daily("shared"), backend).await;
            assert!(send(&app, get("/")).await.is_ok());
            workers.push(app);
        }
    }
    assert_eq!(warned("shared"), 0);
}

struct Users;
struct Orders;

impl Users {
    #[traffik_actix::throttle("3/day")]
    async fn list() -> &'static str {
        "users"
    }

    #[traffik_actix::throttle("3/day", name = "meant", scope = "throttle")]
    #[traffik_actix::throttle("3/day", scope = "route")]
    async fn one() -> &'static str {
        "user"
    }
}

impl Orders {
    #[traffik_actix::throttle("3/day")]
    async fn list() -> &'static str {
        "orders"
    }

    #[traffik_actix::throttle("3/day", name = "meant", scope = "throttle")]
    #[traffik_actix::throttle("3/day", scope = "route")]
    async fn one() -> &'static str {
        "order"
    }
}

/// What the users took the orders lacked, and nobody knew why.
#[actix_web::test]
async fn namesakes_in_two_impls_are_told() {
    let told = || {
        let warnings = warnings().lock().unwrap();
        let about = |line: &&String| line.contains("it::duplicates::") || line.contains("`meant`");
        warnings.iter().filter(about).cloned().collect::<Vec<_>>()
    };
    told();
    let backend = ThrottleBackend::new(MemoryBackend::new());
    let worker = async || {
        init_service(
            App::new()
                .app_data(web::Data::new(backend.clone()))
                .route("/users", web::get().to(Users::list))
                .route("/users/1", web::get().to(Users::one))
                .route("/orders", web::get().to(Orders::list))
                .route("/orders/1", web::get().to(Orders::one)),
        )
        .await
    };
    for (path, is_ok, expected) in [
        ("/users", [true, true], 0),
        ("/users/1", [true, true], 0),
        ("/orders/1", [true, false], 0),
        ("/orders", [true, false], 1),
    ] {
        for is_ok in is_ok {
            let answer = send(&worker().await, get(path)).await;
            assert_eq!(answer.is_ok(), is_ok, "{path}");
            assert_eq!(told().len(), expected, "{path}: {:?}", told());
        }
    }
    assert_eq!(
        told(),
        [
            "two handlers are named `it::duplicates::list` and share the counts of their `#[throttle]`: \
             give each a `name = ..`, or both the same if it is meant"
        ]
    );
}

/// `web::Data::new(redis)` compiles as well, and is not what throttles look for.
#[actix_web::test]
async fn a_bare_backend_in_the_data_is_noticed_once() {
    warnings();
    for _ in 0..2 {
        let app = init_service(
            App::new()
                .app_data(web::Data::new(MemoryBackend::new()))
                .wrap(ThrottleMiddleware::new(daily("bare")))
                .route("/", web::get().to(async || "hello")),
        );
        assert!(send(&app.await, get("/")).await.is_ok());
    }
    let warnings = warnings().lock().unwrap();
    let about = warnings.iter().filter(|line| line.contains("`bare`"));
    assert_eq!(
        about.collect::<Vec<_>>(),
        [
            "throttle `bare` counts in the memory of this process: the application data has a \
             `Data<MemoryBackend>`, but what throttles look for is \
             `web::Data::new(ThrottleBackend::new(backend))`"
        ]
    );
}
