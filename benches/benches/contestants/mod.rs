//! The applications whose instructions are counted.

use std::cell::Cell;
use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix_extensible_rate_limit::RateLimiter;
use actix_extensible_rate_limit::backend::SimpleInputFunctionBuilder;
use actix_extensible_rate_limit::backend::memory::InMemoryBackend;
use actix_extensible_rate_limit::backend::redis::RedisBackend as PeerRedisBackend;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::error::ErrorTooManyRequests;
use actix_web::{App, HttpRequest, HttpServer, get, web};
use futures_util::future::{Either, Ready, ready};
use governor::{DefaultKeyedRateLimiter, Quota};
use redis_of_peer::aio::ConnectionManager;
use traffik_actix::{
    Headers, HttpThrottle, MemoryBackend, Rule, ThrottleBackend, ThrottleMiddleware, throttle,
};
use traffik_core::{BackendExt, Identity, Lease, RedisBackend};

/// The argument after which a process is a contestant: `serve <name> <url of a redis>`.
pub(crate) const SERVE: &str = "--serve";

/// The function of this name is where counting begins.
pub(crate) const FROM_HERE: &str = "count_from_here";

#[inline(never)]
fn count_from_here() {
    println!("{FROM_HERE}");
}

/// Whose row it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What the others are compared with.
    Bare,
    /// Held to what was recorded.
    Ours,
    /// Beside us.
    Peer,
}

/// An application, and over how many connections it is asked at once.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) connections: u32,
}

const fn alone(kind: Kind, name: &'static str) -> Contestant {
    Contestant {
        name,
        kind,
        connections: 1,
    }
}

const fn in_company(kind: Kind, name: &'static str) -> Contestant {
    Contestant {
        name,
        kind,
        connections: 32,
    }
}

pub(crate) const CONTESTANTS: &[Contestant] = &[
    alone(Kind::Bare, "bare"),
    in_company(Kind::Bare, "bare, in company"),
    alone(Kind::Ours, "middleware, no headers"),
    alone(Kind::Ours, "middleware, headers"),
    alone(Kind::Ours, "#[throttle], headers"),
    alone(Kind::Ours, "#[throttle] with a name as short, headers"),
    alone(Kind::Ours, "three limits, headers"),
    alone(Kind::Ours, "redis, one limit"),
    alone(Kind::Ours, "redis, three limits"),
    in_company(Kind::Ours, "redis, one limit, in company"),
    in_company(Kind::Ours, "redis, three limits, in company"),
    // Beside `middleware, headers`.
    alone(Kind::Ours, "leases, a hot key"),
    // In pairs: what is not worth a lease.
    alone(Kind::Ours, "redis, a key for each request"),
    alone(Kind::Ours, "leases, a key for each request"),
    alone(Kind::Ours, "redis, keys in turn"),
    alone(Kind::Ours, "leases, keys in turn"),
    alone(Kind::Peer, "governor, no headers"),
    alone(Kind::Peer, "actix-extensible-rate-limit, headers"),
    alone(Kind::Peer, "actix-extensible-rate-limit, redis, headers"),
    in_company(
        Kind::Peer,
        "actix-extensible-rate-limit, redis, headers, in company",
    ),
];

/// Never denies, and is the same for everybody.
const RATE: &str = "1000000000/hour";
const HOUR: Duration = Duration::from_secs(60 * 60);
const LIMIT: u32 = 1_000_000_000;

/// Serves a contestant on one worker until the input ends, and prints its port. It counts from the first
/// byte of the input on.
pub(crate) fn serve(name: &str, url: &str) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    println!("{}", listener.local_addr().expect("it is bound").port());
    std::thread::spawn(|| {
        let mut input = std::io::stdin();
        let _ = input.read(&mut [0]);
        count_from_here();
        let _ = input.read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let name = name.strip_suffix(", in company").unwrap_or(name);
    actix_rt::System::new().block_on(run(name, url, listener));
}

async fn run(name: &str, url: &str, listener: TcpListener) {
    // A macro, since the type of an `App` cannot be written down.
    macro_rules! serve {
        ($app:expr) => {
            HttpServer::new($app)
                .workers(1)
                .listen(listener)
                .expect("it listens")
                .run()
                .await
                .expect("it runs until the process ends")
        };
    }
    // Nor that of a peer's input function.
    macro_rules! peer {
        ($backend:expr) => {{
            let backend = $backend;
            serve!(move || {
                let input = SimpleInputFunctionBuilder::new(HOUR, LIMIT.into())
                    .peer_ip_key()
                    .build();
                let limiter = RateLimiter::builder(backend.clone(), input).add_headers();
                App::new()
                    .wrap(limiter.build())
                    .route("/", web::get().to(hello))
            })
        }};
    }
    macro_rules! limited {
        ($limits:expr) => {{
            let limits = $limits;
            serve!(move || App::new()
                .wrap(limits.clone())
                .route("/", web::get().to(hello)))
        }};
    }
    match name {
        "bare" => serve!(|| App::new().route("/", web::get().to(hello))),
        "middleware, no headers" => {
            limited!(one().backend(in_memory().headers(Headers::Never)))
        }
        "middleware, headers" => limited!(one().backend(in_memory())),
        "#[throttle], headers" => serve!(|| App::new().service(attributed)),
        "#[throttle] with a name as short, headers" => serve!(|| App::new().service(named)),
        "three limits, headers" => limited!(three().backend(in_memory())),
        "redis, one limit" => limited!(one().backend(in_redis(url))),
        "redis, three limits" => limited!(three().backend(in_redis(url))),
        "leases, a hot key" => limited!(one().backend(leased(url, long()))),
        "redis, a key for each request" => limited!(of(|_| turn(u32::MAX)).backend(in_redis(url))),
        "leases, a key for each request" => {
            limited!(of(|_| turn(u32::MAX)).backend(leased(url, Lease::new())))
        }
        "redis, keys in turn" => limited!(of(|_| turn(IN_TURN)).backend(in_redis(url))),
        "leases, keys in turn" => {
            limited!(of(|_| turn(IN_TURN)).backend(leased(url, Lease::new())))
        }
        "governor, no headers" => {
            let quota = Quota::per_hour(NonZeroU32::new(LIMIT).expect("not zero"));
            let governor = Arc::new(DefaultKeyedRateLimiter::keyed(quota));
            serve!(move || {
                let governor = Arc::clone(&governor);
                App::new()
                    .wrap_fn(move |req, service| govern(&governor, req, service))
                    .route("/", web::get().to(hello))
            })
        }
        "actix-extensible-rate-limit, headers" => {
            peer!(InMemoryBackend::builder().with_gc_interval(None).build())
        }
        "actix-extensible-rate-limit, redis, headers" => {
            let client = redis_of_peer::Client::open(url).expect("a URL");
            let manager = ConnectionManager::new(client).await.expect("redis answers");
            peer!(PeerRedisBackend::builder(manager).build())
        }
        _ => panic!("no contestant is called {name}"),
    }
}

fn in_memory() -> ThrottleBackend {
    ThrottleBackend::new(MemoryBackend::new())
}

fn in_redis(url: &str) -> ThrottleBackend {
    ThrottleBackend::new(redis(url))
}

fn leased(url: &str, lease: Lease) -> ThrottleBackend {
    ThrottleBackend::new(redis(url).lease(lease))
}

/// Under valgrind everything takes some forty times as long: so these last longer, too, that there are no
/// more trips to a thousand requests than there would be.
fn long() -> Lease {
    let lease = Lease::new().period(Duration::from_secs(10));
    lease.length(Duration::from_secs(40))
}

fn redis(url: &str) -> RedisBackend {
    // Under valgrind everything takes longer.
    let backend = RedisBackend::builder(url).deadline(Duration::from_secs(30));
    backend.build().expect("valid")
}

/// So many that they are all known once it counts.
const IN_TURN: u32 = 512;

/// The next of so many identities.
fn turn(of: u32) -> Identity {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
    }
    Identity::of(TURN.replace(TURN.get() + 1) % of)
}

fn one() -> ThrottleMiddleware {
    ThrottleMiddleware::new(limit("a"))
}

fn three() -> ThrottleMiddleware {
    one()
        .rule(Rule::new(limit("b")))
        .rule(Rule::new(limit("c")))
}

/// One limit, for whom the request says.
fn of(identify: fn(&HttpRequest) -> Identity) -> ThrottleMiddleware {
    let throttle = HttpThrottle::builder("a").rate(RATE).identify(identify);
    ThrottleMiddleware::new(throttle.build().expect("valid"))
}

fn limit(name: &str) -> HttpThrottle {
    let throttle = HttpThrottle::builder(name).rate(RATE);
    throttle.build().expect("valid")
}

/// What actix-governor does, which may not be linked here: it asks about the peer's address.
fn govern<S, B>(
    governor: &DefaultKeyedRateLimiter<IpAddr>,
    req: ServiceRequest,
    service: &S,
) -> Either<S::Future, Ready<actix_web::Result<ServiceResponse<B>>>>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
{
    let peer = req.peer_addr().expect("over a socket").ip();
    match governor.check_key(&peer) {
        Ok(()) => Either::Left(service.call(req)),
        Err(_) => Either::Right(ready(Err(ErrorTooManyRequests("too many requests")))),
    }
}

async fn hello() -> &'static str {
    "hello"
}

#[get("/")]
#[throttle("1000000000/hour")]
async fn attributed() -> &'static str {
    "hello"
}

/// Its items of the headers are as long as those of the middleware.
#[get("/")]
#[throttle("1000000000/hour", name = "a")]
async fn named() -> &'static str {
    "hello"
}
