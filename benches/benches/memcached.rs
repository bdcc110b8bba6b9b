//! Requests per second over real sockets with the counts in a memcached, beside a bare actix-web
//! application and the counts in a Redis; and what it costs that the client blocks: a hop to a thread
//! and back that does nothing there.
//!
//! One worker on one core; the load generator, 32 clients with a keep-alive connection each, and the
//! stores on another. The threads that wait for memcached go where there is room.
//!
//! `cargo bench -p traffik-benches --bench memcached [-- <rounds> <milliseconds>]`

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, web};
use tokio::sync::oneshot;
use traffik_actix::{Backend, HttpThrottle, MemoryBackend, ThrottleMiddleware};
use traffik_benches::load::Load;
use traffik_benches::server::{Server, race};
use traffik_benches::store::Store;
use traffik_benches::{Standing, serve};
use traffik_core::strategy::IntoStrategy;
use traffik_core::{FixedWindow, Gcra, MemcachedBackend, RedisBackend};

const HOUR: Duration = Duration::from_secs(60 * 60);
/// Longer than any hiccup of a busy machine: a decision that is late is no figure.
const DEADLINE: Duration = Duration::from_secs(5);

fn main() {
    let (memcached, redis) = (Store::memcached(), Store::redis());
    let on_memcached = |namespace: &str| {
        MemcachedBackend::builder(memcached.url("memcache"))
            .namespace(namespace)
            .deadline(DEADLINE)
            .build()
            .expect("valid")
    };
    let on_redis = |namespace: &str| {
        RedisBackend::builder(&redis.url("redis"))
            .namespace(namespace)
            .deadline(DEADLINE)
            .build()
            .expect("valid")
    };
    let gcra = || Gcra::new().burst_tolerance(HOUR);

    let standings = race(&[
        serve!("bare", || App::new().route("/", web::get().to(hello))),
        serve!("a hop to a thread", {
            let threads = Threads::start(8);
            move || {
                App::new()
                    .app_data(threads.clone())
                    .wrap(from_fn(hop))
                    .route("/", web::get().to(hello))
            }
        }),
        limited("memory, fixed window", MemoryBackend::new(), FixedWindow),
        limited("redis, fixed window", on_redis("fixed"), FixedWindow),
        limited("redis, gcra", on_redis("gcra"), gcra()),
        limited(
            "memcached, fixed window",
            on_memcached("fixed"),
            FixedWindow,
        ),
        limited("memcached, gcra", on_memcached("gcra"), gcra()),
        limited("memcached, one client", on_memcached("one"), FixedWindow)
            .under(Load::of_one_client(32)),
    ]);
    let [bare, hop, .., fixed, gcra, _] = &*standings else {
        unreachable!("these are the contestants");
    };
    let worker = |standing: &Standing<6>| standing.figures[1].value.median;
    let alone = |standing: &Standing<6>| standing.figures[4].value.median;
    println!("\na request, in µs        of the worker   alone");
    for (name, this, that) in [
        ("a hop costs", hop, bare),
        ("and memcached", fixed, hop),
        ("and with gcra", gcra, hop),
    ] {
        let (worker, alone) = (worker(this) - worker(that), alone(this) - alone(that));
        println!("{name:23} {worker:<15.1} {alone:.0}");
    }
}

fn limited(name: &'static str, backend: impl Backend, strategy: impl IntoStrategy) -> Server {
    let throttle = HttpThrottle::builder("api")
        // Never denies, and memcached can count it with one command.
        .rate("1000000/second")
        .strategy(strategy)
        .build();
    let limits = ThrottleMiddleware::new(throttle.expect("valid")).backend(backend);
    serve!(name, move || App::new()
        .wrap(limits.clone())
        .route("/", web::get().to(hello)))
}

/// Threads that answer whoever asks them, and do nothing else.
#[derive(Clone)]
struct Threads(Arc<[Sender<oneshot::Sender<()>>]>);

impl Threads {
    fn start(count: usize) -> Threads {
        let start = |_| {
            let (ask, asked) = channel::<oneshot::Sender<()>>();
            std::thread::spawn(move || {
                for answer in asked {
                    // Nobody waits if the load is over.
                    let _ = answer.send(());
                }
            });
            ask
        };
        Threads((0..count).map(start).collect())
    }
}

async fn hop<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> actix_web::Result<ServiceResponse<B>> {
    let Threads(threads) = req.app_data::<Threads>().expect("given above");
    let mut hasher = DefaultHasher::new();
    req.peer_addr()
        .expect("over a socket")
        .ip()
        .hash(&mut hasher);
    let place = hasher.finish() % threads.len() as u64;
    let thread = &threads[usize::try_from(place).expect("less than the number of threads")];
    let (answer, answered) = oneshot::channel();
    thread
        .send(answer)
        .expect("the threads live as long as this");
    answered.await.expect("they answer");
    next.call(req).await
}

async fn hello() -> &'static str {
    "hello"
}
