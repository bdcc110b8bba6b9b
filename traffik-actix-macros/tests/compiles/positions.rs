//! Above and below route attributes, with `to`, in modules, and out of other macros.
#![deny(warnings)]
#![allow(unreachable_pub)]

use actix_web::{App, HttpResponse, Responder, get, guard, post, route, routes, web};
use traffik_actix::throttle;

#[throttle("100/minute")]
#[get("/above")]
async fn above() -> impl Responder {
    "above"
}

#[post("/below")]
#[throttle("100/minute")]
async fn below() -> impl Responder {
    "below"
}

#[route("/between", method = "GET", method = "HEAD")]
#[throttle("100/minute")]
#[doc(hidden)]
async fn several_methods() -> impl Responder {
    "between"
}

#[throttle("100/minute")]
#[routes]
#[get("/one")]
#[post("/two")]
async fn several_routes() -> impl Responder {
    "routes"
}

#[throttle("100/minute")]
#[actix_web::get("/qualified")]
pub async fn qualified() -> impl Responder {
    "qualified"
}

#[traffik_actix::throttle("100/minute")]
async fn plain() -> impl Responder {
    "plain"
}

/// Routes make unit structs of them, which a pattern of their name would match.
mod namesakes_of_ours {
    use actix_web::{Responder, get, post, web};
    use traffik_actix::throttle;

    #[throttle("100/minute")]
    #[get("/unread")]
    async fn unread(body: web::Bytes) -> impl Responder {
        body
    }

    #[post("/original")]
    #[throttle("100/minute")]
    async fn original() -> impl Responder {
        "original"
    }

    #[throttle("100/minute")]
    #[get("/run")]
    async fn run() -> impl Responder {
        "run"
    }

    #[throttle("100/minute", in_flight = 2)]
    async fn other() -> impl Responder {
        "other"
    }

    pub fn configure(config: &mut web::ServiceConfig) {
        config
            .service(unread)
            .service(original)
            .service(run)
            .route("/other", web::get().to(other));
    }
}

mod outer {
    pub mod inner {
        use actix_web::Responder;

        #[traffik_actix::throttle("100/minute")]
        #[actix_web::get("/nested")]
        pub(in crate::positions::outer) async fn nested() -> impl Responder {
            "nested"
        }

        #[traffik_actix::throttle("100/minute")]
        pub(crate) async fn r#match() -> impl Responder {
            "raw"
        }
    }

    pub fn configure(config: &mut actix_web::web::ServiceConfig) {
        config.service(inner::nested);
    }
}

struct Methods;

impl Methods {
    #[throttle("100/minute")]
    async fn associated() -> impl Responder {
        "associated"
    }
}

macro_rules! handlers {
    ($($name:ident: $rate:literal, $cost:expr;)*) => {
        $(
            #[throttle($rate, cost = $cost)]
            async fn $name(body: web::Bytes) -> HttpResponse {
                HttpResponse::Ok().body(body)
            }
        )*
    };
}

handlers! {
    made: "5/second", 1;
    made_too: "7/second", 1 + 1;
}

mod renamed {
    pub mod deep {
        pub use traffik_actix as limits;
    }

    #[traffik_actix::throttle("1/s", strategy = "gcra", scope = "path", crate = crate::positions::renamed::deep::limits)]
    #[traffik_actix::throttle("9/s")]
    pub async fn handler() -> &'static str {
        "renamed"
    }
}

#[test]
fn is_taken() {
    #[throttle("100/minute")]
    async fn local() -> impl Responder {
        "local"
    }

    let _ = App::new()
        .service(above)
        .service(below)
        .service(several_methods)
        .service(several_routes)
        .service(qualified)
        .configure(outer::configure)
        .configure(namesakes_of_ours::configure)
        .route("/match", web::get().to(outer::inner::r#match))
        .route("/plain", web::get().guard(guard::Get()).to(plain))
        .route("/associated", web::get().to(Methods::associated))
        .route("/made", web::get().to(made))
        .route("/made_too", web::get().to(made_too))
        .route("/renamed", web::get().to(renamed::handler))
        .default_service(web::to(local));
}
