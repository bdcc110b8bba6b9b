//! Requests per second over real sockets with the counts in a Redis: bare scripts, which are the
//! least that a limit can cost, one limit and three, GCRA, and actix-extensible-rate-limit; then
//! requests that are denied.
//!
//! One worker on one core; the load generator, 32 clients with a keep-alive connection each, and
//! Redis on another.
//!
//! `cargo bench -p traffik-benches --bench redis [-- <rounds> <milliseconds>]`

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use actix_extensible_rate_limit::RateLimiter;
use actix_extensible_rate_limit::backend::SimpleInputFunctionBuilder;
use actix_extensible_rate_limit::backend::redis::RedisBackend as PeerBackend;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, error, web};
use redis_of_peer::aio::ConnectionManager;
use traffik_actix::{Headers, HttpThrottle, Rule, ThrottleBackend, ThrottleMiddleware};
use traffik_benches::serve;
use traffik_benches::server::{Server, race};
use traffik_benches::store::Store;
use traffik_core::redis::aio::MultiplexedConnection;
use traffik_core::redis::{Client, RedisResult, Script, cmd};
use traffik_core::{Gcra, RedisBackend};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn main() {
    let redis = Store::redis();
    let url = redis.url("redis");
    let on = |namespace: &str| {
        // Longer than any hiccup of a busy machine: a decision that is late is no figure.
        let builder = RedisBackend::builder(&url).namespace(namespace);
        builder.deadline(Duration::from_secs(5))
    };

    let one = ThrottleMiddleware::new(throttle("a")).backend(on("one").build().expect("valid"));
    let quiet = ThrottleBackend::new(on("quiet").build().expect("valid")).headers(Headers::Never);
    let quiet = ThrottleMiddleware::new(throttle("a")).backend(quiet);
    let three = ["b", "c"]
        .into_iter()
        .fold(ThrottleMiddleware::new(throttle("a")), |all, name| {
            all.rule(Rule::new(throttle(name)))
        })
        .backend(on("three").build().expect("valid"));
    let gcra = HttpThrottle::builder("a")
        .rate("1000000000/hour")
        .strategy(Gcra::new().burst_tolerance(HOUR))
        .build();
    let gcra =
        ThrottleMiddleware::new(gcra.expect("valid")).backend(on("gcra").build().expect("valid"));
    let denied = || {
        let throttle = HttpThrottle::builder("a").rate("1/day").build();
        ThrottleMiddleware::new(throttle.expect("valid"))
    };
    let cached = denied().backend(on("cached").build().expect("valid"));
    let asking = denied().backend(on("asking").deny_cache(0).build().expect("valid"));

    let standings = race(&[
        floor("a bare EVALSHA", COUNTS, &url),
        floor("a bare EVALSHA that decides alike", DECIDES, &url),
        ours("traffik, one limit", one),
        ours("traffik, one limit, no headers", quiet),
        ours("traffik, three limits", three),
        ours("traffik, gcra", gcra),
        peer("actix-extensible-rate-limit", &url, HOUR, 1_000_000_000),
        ours("denied by traffik", cached),
        ours("denied by traffik, no deny cache", asking),
        peer("denied by the peer", &url, DAY, 1),
    ]);
    let [
        counts,
        decides,
        one,
        quiet,
        three,
        _,
        peer,
        cached,
        asking,
        _,
    ] = &*standings
    else {
        unreachable!("these are the contestants");
    };
    println!("\nrequests/s, median (min - max) of the ratios of each round");
    for (name, this, that) in [
        // The bare ones send no headers either; the peer does.
        ("no headers to the bare EVALSHA", quiet, counts),
        ("no headers to the one that decides alike", quiet, decides),
        ("one limit to the peer", one, peer),
        ("three limits to one", three, one),
        ("denied with the deny cache to without", cached, asking),
    ] {
        println!("{name:40} {:.3}", this.ratio_to(that, 0));
    }
}

/// Never denies, and is the same for everybody.
fn throttle(name: &str) -> HttpThrottle {
    let throttle = HttpThrottle::builder(name).rate("1000000000/hour").build();
    throttle.expect("valid")
}

fn ours(name: &'static str, limits: ThrottleMiddleware) -> Server {
    serve!(name, move || App::new()
        .wrap(limits.clone())
        .route("/", web::get().to(hello)))
}

/// As its documentation has it: one connection manager, made before the server.
fn peer(name: &'static str, url: &str, interval: Duration, limit: u64) -> Server {
    let client = redis_of_peer::Client::open(url).expect("a URL");
    serve!(name, {
        let manager = ConnectionManager::new(client).await.expect("redis answers");
        let backend = PeerBackend::builder(manager).key_prefix(Some(name)).build();
        move || {
            let input = SimpleInputFunctionBuilder::new(interval, limit)
                .peer_ip_key()
                .build();
            let limiter = RateLimiter::builder(backend.clone(), input).add_headers();
            App::new()
                .wrap(limiter.build())
                .route("/", web::get().to(hello))
        }
    })
}

/// The least that a limit in Redis can cost: a script over a connection that belongs to the worker,
/// and no headers.
fn floor(name: &'static str, script: &'static str, url: &str) -> Server {
    let client = Client::open(url).expect("a URL");
    let floor = Floor {
        name,
        script,
        client,
    };
    serve!(name, move || App::new()
        .app_data(floor.clone())
        .wrap(from_fn(evalsha))
        .route("/", web::get().to(hello)))
}

/// A fixed window that begins with the first hit, and counts denied ones.
const COUNTS: &str = "
    local count = redis.call('INCR', KEYS[1])
    if count == 1 then
      redis.call('PEXPIRE', KEYS[1], ARGV[2] / 1000)
    end
    return count <= tonumber(ARGV[1]) and 1 or 0
";

/// A fixed window like ours: it begins when the clock says, and costs are charged if they fit.
const DECIDES: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    local limit, period = tonumber(ARGV[1]), tonumber(ARGV[2])
    local start, count
    local cell = redis.call('GET', KEYS[1])
    if cell then
      start, count = struct.unpack('>I8I8', cell)
    end
    if not start or now >= start + period then
      start, count = now - now % period, 0
    end
    if count >= limit then
      return 0
    end
    local left = math.ceil((start + period - now) / 1000)
    redis.call('SET', KEYS[1], struct.pack('>I8I8', start, count + 1), 'PX', left)
    return 1
";

#[derive(Clone)]
struct Floor {
    name: &'static str,
    script: &'static str,
    client: Client,
}

/// What the worker needs to ask.
#[derive(Clone)]
struct Asking {
    connection: MultiplexedConnection,
    sha: String,
}

thread_local! {
    static ASKING: RefCell<Option<Asking>> = const { RefCell::new(None) };
}

async fn evalsha<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> actix_web::Result<ServiceResponse<EitherBody<B>>> {
    let peer = req.peer_addr().expect("over a socket").ip();
    let floor = req.app_data::<Floor>().expect("given above");
    if floor
        .admits(peer)
        .await
        .map_err(error::ErrorInternalServerError)?
    {
        return Ok(next.call(req).await?.map_into_left_body());
    }
    let response = HttpResponse::TooManyRequests().finish();
    Ok(req.into_response(response).map_into_right_body())
}

impl Floor {
    async fn admits(&self, peer: IpAddr) -> RedisResult<bool> {
        let known = ASKING.with_borrow(Clone::clone);
        let Asking {
            mut connection,
            sha,
        } = match known {
            Some(asking) => asking,
            None => self.connect().await?,
        };
        let mut command = cmd("EVALSHA");
        command
            .arg(sha)
            .arg(1)
            .arg(format!("{}:{peer}", self.name))
            .arg(1_000_000_000)
            .arg(3_600_000_000_u64);
        command.query_async(&mut connection).await
    }

    async fn connect(&self) -> RedisResult<Asking> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        let script = Script::new(self.script);
        let sha = script.prepare_invoke().load_async(&mut connection).await?;
        let asking = Asking { connection, sha };
        ASKING.set(Some(asking.clone()));
        Ok(asking)
    }
}

async fn hello() -> &'static str {
    "hello"
}
