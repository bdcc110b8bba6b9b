//! Attributes that describe an API see the handler as it was written, wherever they are.
#![deny(warnings)]

use actix_web::{App, HttpResponse, Responder, get, post, web};
use traffik_actix::throttle;
use utoipa::OpenApi;

/// Issue 9, F 19: this did not compile, and blamed utoipa.
#[throttle("100/minute", name = "below")]
#[throttle("5/s", name = "below too", strategy = "gcra")]
#[utoipa::path(get, path = "/below", responses((status = 200, body = String)))]
#[get("/below")]
async fn below() -> impl Responder {
    "below"
}

#[utoipa::path(post, path = "/above", responses((status = 201)))]
#[post("/above")]
#[throttle("100/minute")]
async fn above(body: web::Bytes) -> impl Responder {
    HttpResponse::Created().body(body)
}

#[throttle("100/minute")]
#[cfg_attr(all(), utoipa::path(get, path = "/conditional/{id}", params(("id" = u32, Path))))]
async fn conditional(id: web::Path<u32>) -> String {
    id.to_string()
}

mod renamed {
    pub(crate) mod deep {
        pub(crate) use traffik_actix as limits;
    }
}

#[throttle("100/minute", crate = crate::descriptions::renamed::deep::limits)]
#[utoipa::path(get, path = "/renamed", tag = "all")]
async fn reexported() -> &'static str {
    "renamed"
}

#[derive(OpenApi)]
#[openapi(paths(below, above, conditional, reexported))]
struct Api;

#[actix_web::test]
async fn an_api_is_described_and_limited() {
    use actix_web::test::{TestRequest, call_service, init_service};

    let described = Api::openapi().paths.paths;
    let paths: Vec<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(paths, ["/above", "/below", "/conditional/{id}", "/renamed"]);

    let app = App::new()
        .service(below)
        .service(above)
        .route("/conditional/{id}", web::get().to(conditional))
        .route("/renamed", web::get().to(reexported));
    let app = init_service(app).await;
    for (path, limits) in [
        ("/below", vec!["\"below\";r=99;t=", "\"below too\";r=0;t="]),
        (
            "/conditional/7",
            vec!["\"compiles::descriptions::conditional\";r=99;t="],
        ),
        (
            "/renamed",
            vec!["\"compiles::descriptions::reexported\";r=99;t="],
        ),
    ] {
        let request = TestRequest::get().uri(path).to_request();
        let response = call_service(&app, request).await;
        assert!(response.status().is_success(), "{path}");
        let told: Vec<String> = response
            .headers()
            .get_all("ratelimit")
            .map(|line| line.to_str().unwrap().to_owned())
            .collect();
        let told = told.join(", ");
        let mut at = 0;
        for limit in limits {
            // In the order in which they were written.
            let found = told[at..].find(limit);
            at += found.unwrap_or_else(|| panic!("{limit} after {at} in {told}"));
        }
    }
}
