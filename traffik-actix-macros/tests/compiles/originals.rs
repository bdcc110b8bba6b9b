//! The function itself, by a name of its own.
#![deny(warnings)]

use std::marker::PhantomData;

use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, get, web};
use traffik_actix::throttle;

#[throttle("1/day", original = sum_unlimited)]
#[get("/sum")]
async fn sum(numbers: web::Query<Vec<(String, u32)>>) -> String {
    numbers
        .iter()
        .map(|(_, number)| number)
        .sum::<u32>()
        .to_string()
}

/// Documented.
#[throttle("1/day", original = generic_unlimited)]
#[expect(unused_variables, reason = "the expectation is met in the original")]
#[inline]
pub async fn generic<T: Default + ToString + 'static>(unused: String) -> String {
    T::default().to_string()
}

trait Store: 'static {
    const NAME: &'static str;
}

struct Paper;

impl Store for Paper {
    const NAME: &'static str = "paper";
}

struct Shop<S>(PhantomData<S>);

impl<S: Store> Shop<S> {
    const PATH: &'static str = "/shop";

    #[throttle("1/day", original = Self::name_unlimited)]
    async fn name(suffix: String) -> String {
        format!("{} {} {suffix}", Self::PATH, S::NAME)
    }
}

struct Plain;

impl Plain {
    /// What `Self` is in an item inside is nobody's business.
    #[throttle("1/day")]
    async fn inner() -> String {
        struct Inner;
        impl Inner {
            fn make() -> Self {
                Self
            }
            fn text(self) -> &'static str {
                "inner"
            }
        }
        Inner::make().text().to_owned()
    }
}

/// Issue 9, F 22: a unit test that calls a handler had to make a request and a payload.
#[actix_web::test]
async fn an_original_is_called_as_it_was_written_and_has_no_limit() {
    for _ in 0..3 {
        let numbers = vec![("a".to_owned(), 1), ("b".to_owned(), 2)];
        assert_eq!(sum_unlimited(web::Query(numbers)).await, "3");
        assert_eq!(generic_unlimited::<u8>(String::new()).await, "0");
        assert_eq!(
            Shop::<Paper>::name_unlimited("!".to_owned()).await,
            "/shop paper !"
        );
    }
    let app = App::new()
        .service(sum)
        .route("/generic", web::get().to(generic::<u8>))
        .route("/shop", web::get().to(Shop::<Paper>::name))
        .route("/inner", web::get().to(Plain::inner));
    let app = init_service(app).await;
    for path in ["/sum?a=1&b=2", "/generic", "/shop", "/inner"] {
        for status in [200, 429] {
            let request = TestRequest::get().uri(path).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(response.status(), status, "{path}");
        }
    }
}
