//! Whatever a router would serve at a path that a rule or a scope names is limited, however it is spelt.

use actix_web::dev::Service;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Condition, NormalizePath, TrailingSlash};
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpResponse, web};
use traffik_actix::{MemoryBackend, Rule, Scope, ThrottleMiddleware};

use crate::support::{get, memory, send, throttle};

/// What may stand between the middleware and the router.
const NORMALIZERS: [Option<TrailingSlash>; 4] = [
    None,
    Some(TrailingSlash::Trim),
    Some(TrailingSlash::Always),
    Some(TrailingSlash::MergeOnly),
];

fn normalizer(inside: Option<TrailingSlash>) -> Condition<NormalizePath> {
    let style = inside.unwrap_or(TrailingSlash::Trim);
    Condition::new(inside.is_some(), NormalizePath::new(style))
}

/// Resources, and rules that name all of what they serve.
const NAMED: [(&str, &str); 9] = [
    ("/login", "/login$"),
    ("/login", "/login(/|$)"),
    ("/admin/{x}", "/admin/*"),
    ("/g/{tail:.*}", "/g/**"),
    (r"/files/{name:.*\.pdf}", r"/files/.*\.pdf$"),
    (r"/files/{name:.*\.pdf}", "/files/"),
    ("/users/{id}/posts", "/users/*/posts"),
    ("/a b/{x}", "/a b/[^/]+$"),
    ("/{any:.*}", "/"),
];

/// Pieces of request targets with which the rules above were evaded, and others of their kind.
const PIECES: [&str; 20] = [
    "/",
    "//",
    "/.",
    "/..",
    "%0a",
    "%0d",
    "%2F",
    "%2f",
    "%2e",
    "%ff",
    "%C3%A9",
    "/login",
    "/%6Cogin",
    "/admin",
    "/g",
    "/files",
    "/x.pdf",
    "/users/7/posts",
    "/a%20b",
    "x",
];

/// An application with a resource, at both its ends, under a rule. Targets that reached the resource
/// unnoticed by the rule.
async fn unlimited(
    (resource, pattern): (&str, &str),
    inside: Option<TrailingSlash>,
    targets: &[String],
) -> (usize, Vec<String>) {
    let free = throttle("named", "1000000/s").build().unwrap();
    let rule = Rule::new(free).path(pattern).unwrap();
    let limits = ThrottleMiddleware::new(rule).backend(MemoryBackend::new());
    let reached = || async { HttpResponse::Accepted().finish() };
    let app = App::new()
        .wrap(normalizer(inside))
        .wrap(limits)
        .service(web::resource([resource.to_owned(), format!("{resource}/")]).to(reached));
    let app = init_service(app).await;
    let (mut served, mut missed) = (0, Vec::new());
    for target in targets {
        let response = call_service(&app, get(target).to_request()).await;
        if response.status() == StatusCode::ACCEPTED {
            served += 1;
            if !response.headers().contains_key("ratelimit") {
                missed.push(target.clone());
            }
        }
    }
    (served, missed)
}

/// Targets of two pieces, at the root and behind the beginning of a resource, and some longer ones.
fn targets(resource: &str) -> Vec<String> {
    let base = resource.split('{').next().unwrap_or_default();
    let base = base.trim_end_matches('/').replace(' ', "%20");
    let mut targets = vec![base.clone(), format!("{base}/7/posts")];
    for one in PIECES {
        targets.push(format!("{base}{one}"));
        targets.push(format!("{base}/7/posts{one}"));
        targets.push(format!("{base}{one}/7/posts/"));
        for two in PIECES {
            targets.push(format!("/{one}{two}"));
            targets.push(format!("{base}{one}{two}"));
        }
    }
    let mut state = 0x9e37_79b9_u32;
    for at in 0..600 {
        let mut target = ["/", &base][at % 2].to_owned();
        for _ in 0..4 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            target.push_str(PIECES[(state >> 16) as usize % PIECES.len()]);
        }
        targets.push(target);
    }
    targets.retain(|target| target.starts_with('/'));
    targets
}

#[actix_web::test]
async fn what_is_served_at_a_path_that_a_rule_names_is_limited() {
    for named in NAMED {
        let targets = targets(named.0);
        for inside in NORMALIZERS {
            let (served, missed) = unlimited(named, inside, &targets).await;
            assert!(served > 0, "{named:?} {inside:?}: nothing was served");
            assert!(missed.is_empty(), "{named:?} {inside:?}: {missed:?}");
        }
    }
}

/// Issue: each of these was routed, and never limited.
#[actix_web::test]
async fn requests_that_evaded_rules() {
    use TrailingSlash::{Always, Trim};
    for (resource, pattern, inside, target) in [
        (
            r"/files/{name:.*\.pdf}",
            r"/files/.*\.pdf$",
            None,
            "/files/a%0ab.pdf",
        ),
        ("/g/{tail:.*}", "/g/**", None, "/g/%0a"),
        ("/login", "/login$", Some(Trim), "/login/"),
        ("/login", "/login$", Some(Trim), "//%6cogin//"),
        ("/login", "/login/$", Some(Always), "/login"),
        ("/admin/{x}", "/admin/*", Some(Trim), "/admin/a/"),
        ("/a%2Fb/{x}", "/a%2fb/*", None, "/a%2Fb/x"),
    ] {
        let targets = [target.to_owned()];
        let (served, missed) = unlimited((resource, pattern), inside, &targets).await;
        assert_eq!((served, missed), (1, vec![]), "{pattern} {target}");
    }
}

/// Says whether the dot segments, which a file server resolves, evade the rule for a folder.
#[actix_web::test]
async fn dot_segments_do_not_evade() {
    let folder = ("/files/{name:.*}", "/files/secret/");
    let targets = [
        "/files/x/../secret/a",
        "/files/%2e%2e/files/secret/a",
        "/files/./secret/a",
        "//files/./secret//a",
    ];
    let app = async |target: &str| {
        let limit = throttle("folder", "1/day").build().unwrap();
        let rule = Rule::new(limit).path(folder.1).unwrap();
        let limits = ThrottleMiddleware::new(rule).backend(MemoryBackend::new());
        let resource = web::resource(folder.0).to(async || "a file");
        let app = App::new().wrap(normalizer(Some(TrailingSlash::MergeOnly)));
        let app = init_service(app.wrap(limits).service(resource)).await;
        assert!(send(&app, get(target)).await.is_ok(), "{target}");
        send(&app, get("/files/secret/b")).await
    };
    for target in targets {
        assert!(app(target).await.is_throttled(), "{target}");
    }
}

/// How many of these a limit of one admits around an application, by a scope.
async fn admitted(scope: Scope, inside: Option<TrailingSlash>, requests: &[(&str, &str)]) -> usize {
    let (_, backend) = memory();
    let limit = throttle("scoped", "1/day").scope(scope).build().unwrap();
    let limits = ThrottleMiddleware::new(limit).backend(backend);
    let app = App::new()
        .wrap(normalizer(inside))
        .wrap(limits)
        .service(web::resource("/r/{id}").to(async || "any method"))
        .service(web::resource(["/p/a", "/p/a/"]).to(async || "a"));
    let app = init_service(app).await;
    count(&app, requests).await
}

async fn count<S, B>(app: &S, requests: &[(&str, &str)]) -> usize
where
    S: Service<
            actix_http::Request,
            Response = actix_web::dev::ServiceResponse<B>,
            Error = actix_web::Error,
        >,
    B: actix_web::body::MessageBody,
{
    let mut admitted = 0;
    for (method, target) in requests {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = TestRequest::with_uri(target).method(method);
        admitted += usize::from(!send(app, request).await.is_throttled());
    }
    admitted
}

/// Issue: `/p/a`, `//p/a`, `/p/a/`, `/p//a` were several counts.
#[actix_web::test]
async fn spellings_of_a_path_share_one_count() {
    let spellings = [
        "/p/a",
        "//p/a",
        "/p/a/",
        "/p//a",
        "/%70/a",
        "/p/%61/",
        "/p/./a",
        "/q/../p/a",
    ];
    let requests = spellings.map(|target| ("GET", target));
    for scope in [Scope::Route, Scope::Path] {
        for inside in NORMALIZERS {
            let admitted = admitted(scope, inside, &requests).await;
            assert_eq!(admitted, 1, "{scope:?} {inside:?}");
        }
    }
}

/// Issue: `M0 /r/1`, `M1 /r/1`, ... were all admitted.
#[actix_web::test]
async fn invented_methods_are_one() {
    let requests = [
        ("M0", "/r/1"),
        ("M1", "/r/1"),
        ("PROPFIND", "/r/1"),
        ("TRACE", "/r/1"),
        ("get", "/r/1"),
    ];
    for scope in [Scope::Route, Scope::Path] {
        assert_eq!(admitted(scope, None, &requests).await, 1, "{scope:?}");
    }
    let named = [
        ("GET", "/r/1"),
        ("POST", "/r/1"),
        ("GET", "/r/2"),
        ("M0", "/r/2"),
    ];
    assert_eq!(admitted(Scope::Route, None, &named).await, 3);
}

#[actix_web::test]
async fn paths_that_fit_no_route_share_one_count() {
    let requests = [
        ("GET", "/none"),
        ("POST", "/none"),
        ("GET", "/other"),
        ("M0", "/x/y"),
        ("GET", "/%00"),
    ];
    assert_eq!(admitted(Scope::Route, None, &requests).await, 1);
}

/// Where the request is routed already, the count is that of its route, as actix knows it.
#[actix_web::test]
async fn a_route_that_is_known_is_the_count() {
    let (_, backend) = memory();
    let limit = throttle("routed", "1/day")
        .scope(Scope::Route)
        .build()
        .unwrap();
    let limits = ThrottleMiddleware::new(limit).backend(backend);
    let app = App::new()
        .service(
            web::scope("/api")
                .wrap(limits.clone())
                .service(web::resource("").to(async || "root"))
                .service(web::resource("/{id}").to(async || "an item")),
        )
        .service(
            web::resource("/{x:.*}")
                .wrap(limits)
                .to(async || "anything"),
        );
    let app = init_service(app).await;
    let requests = [("GET", "/api"), ("GET", "/%61pi"), ("GET", "/a%70i")];
    assert_eq!(count(&app, &requests).await, 1);
    let requests = [("GET", "/api/1"), ("GET", "/api/%32"), ("GET", "/%61pi/3")];
    assert_eq!(count(&app, &requests).await, 1);
    let requests = [("GET", "/x"), ("GET", "//api/1"), ("GET", "/%78/")];
    assert_eq!(count(&app, &requests).await, 1);
}

fn by_route(name: &str) -> ThrottleMiddleware {
    let limit = throttle(name, "1/day").scope(Scope::Route);
    ThrottleMiddleware::new(limit.build().unwrap()).backend(memory().1)
}

/// Whoever wrote dot segments to a route for everything had a count there for each route of the application.
#[actix_web::test]
async fn a_route_for_everything_was_counted_as_any_other() {
    let others = |app: &mut web::ServiceConfig| {
        app.service(web::resource("/items/{id}").to(async || "an item"))
            .service(web::resource("/users/{id}").to(async || "a user"));
    };
    let routed = web::resource("/{tail:.*}").wrap(by_route("routed"));
    let routed = App::new()
        .configure(others)
        .service(routed.to(async || "anything"));
    let routed = init_service(routed).await;
    let around = App::new()
        .wrap(by_route("around"))
        .configure(others)
        .service(web::resource("/{tail:.*}").to(async || "anything"));
    let around = init_service(around).await;
    let dots = [
        ("GET", "/a"),
        ("GET", "/x/../items/5"),
        ("GET", "/x/./../users/5"),
        ("GET", "/%78/../items/5"),
        ("GET", "/users/5/../../b"),
    ];
    assert_eq!(count(&routed, &dots).await, 1);
    assert_eq!(count(&around, &dots).await, 1);
    let slashes = [("GET", "//items/5"), ("GET", "/users//5"), ("GET", "/b/")];
    assert_eq!(count(&routed, &slashes).await, 0);
}

#[actix_web::test]
async fn both_ends_of_a_route_are_one_count() {
    for targets in [["/s", "/s/"], ["/s/", "/%73"]] {
        let limits = by_route("ends");
        let [without, with] = ["/s", "/s/"].map(|path| {
            web::resource(path)
                .wrap(limits.clone())
                .to(async || "either end")
        });
        let app = init_service(App::new().service(without).service(with)).await;
        let requests = targets.map(|target| ("GET", target));
        assert_eq!(count(&app, &requests).await, 1, "{targets:?}");
    }
}
