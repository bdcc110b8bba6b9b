//! Throttles asked from inside a handler, by an extractor, or by a guard.

use std::sync::LazyLock;

use actix_web::test::{TestRequest, init_service};
use actix_web::{App, HttpRequest, web};
use traffik_actix::{HttpThrottle, MemoryBackend, ThrottleRule, Throttled, Within};

use crate::support::{get, memory, send, throttle};

#[actix_web::test]
async fn looking_costs_nothing_and_agrees_with_the_next_hit() {
    let (_, backend) = memory();
    let throttle = throttle("look", "3/day").backend(backend).build().unwrap();
    let req = TestRequest::default().to_http_request();
    for left in [3, 2, 1] {
        let stat = throttle.stat(&req).await.unwrap();
        assert_eq!((stat.remaining, stat.wait.as_secs()), (left, 0));
        assert!(throttle.check(&req).await.unwrap());
        assert_eq!(throttle.hit(&req).await.unwrap().remaining(), left - 1);
    }
    let stat = throttle.stat(&req).await.unwrap();
    assert!(!throttle.check(&req).await.unwrap());
    assert_eq!(throttle.hit(&req).await.unwrap().wait(), stat.wait);
    assert!(throttle.hit_at(&req, 0).await.unwrap().is_allowed());
}

#[actix_web::test]
async fn enforce_is_the_response_of_the_throttle() {
    async fn handler(
        req: HttpRequest,
        throttle: web::Data<HttpThrottle>,
    ) -> actix_web::Result<&'static str> {
        throttle.enforce_at(&req, 2).await?;
        Ok("done")
    }
    let (_, backend) = memory();
    let throttle = throttle("enforce", "3/day")
        .backend(backend)
        .build()
        .unwrap();
    let app = App::new()
        .app_data(web::Data::new(throttle))
        .route("/", web::get().to(handler));
    let app = init_service(app).await;

    assert!(send(&app, get("/")).await.is_ok());
    let denied = send(&app, get("/")).await;
    assert!(denied.is_throttled());
    assert_eq!(
        denied.header("content-type").as_deref(),
        Some("application/problem+json")
    );
    assert!(
        denied
            .header("ratelimit")
            .unwrap()
            .starts_with("\"enforce\";r=")
    );
}

struct Uploads;

impl ThrottleRule for Uploads {
    fn throttle() -> &'static HttpThrottle {
        static UPLOADS: LazyLock<HttpThrottle> = LazyLock::new(|| {
            throttle("uploads", "1/day")
                .backend(MemoryBackend::new())
                .build()
                .unwrap()
        });
        &UPLOADS
    }
}

#[actix_web::test]
async fn an_extractor_decides_before_it_reads_the_body() {
    let upload =
        async |body: Throttled<Uploads, web::Json<Vec<u8>>>| format!("{} bytes", body.len());
    let app = init_service(App::new().route("/", web::post().to(upload))).await;
    let post = |body: &'static str| {
        let json = ("content-type", "application/json");
        TestRequest::post()
            .uri("/")
            .insert_header(json)
            .set_payload(body)
    };
    assert_eq!(send(&app, post("[1,2]")).await.body, "2 bytes");
    assert!(send(&app, post("{")).await.is_throttled());
}

#[actix_web::test]
async fn a_guard_routes_by_what_is_left_and_takes_nothing() {
    let (_, backend) = memory();
    let throttle = throttle("guard", "1/day").backend(backend).build().unwrap();
    let app = init_service(
        App::new().service(
            web::resource("/")
                .route(
                    web::get()
                        .guard(Within::new(throttle.clone()).unwrap())
                        .to(async || "best"),
                )
                .route(web::get().to(async || "some")),
        ),
    )
    .await;
    assert_eq!(send(&app, get("/")).await.body, "best");
    assert_eq!(send(&app, get("/")).await.body, "best");
    let req = TestRequest::default().to_http_request();
    assert!(throttle.hit(&req).await.unwrap().is_allowed());
    assert_eq!(send(&app, get("/")).await.body, "some");
}
