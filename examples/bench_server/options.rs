//! The flags of the server.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;

use lexopt::{Arg, Parser, ValueExt};
use traffik_actix::strategy::{self, Strategy};
use traffik_actix::{
    Backend, BackendExt, CircuitBreaker, Headers, ManualClock, MemoryBackend, OnError, Rate,
};

pub(crate) const HELP: &str = "\
A throttled server.

  --listen ADDR          where to listen                     [127.0.0.1:8080]
  --backend WHERE        memory, redis://HOST or             [memory]
                         memcached://HOST
  --fallback WHERE       memory or none, if the              [none]
                         backend fails
  --strategy NAME[,K=V]  a strategy and its options          [fixed_window]
  --rate RATE            such as 100/minute                  [100/minute]
  --cost N               cost of a request without X-Cost    [1]
  --namespace NAME       prefix of what is stored            [bench]
  --workers N            threads that serve                  [one per core]
  --on-error WHAT        allow, throttle or raise            [throttle]
  --headers WHEN         always, throttled or never          [always]
  --clock WHICH          system or manual                    [system]
  --help                 this

Strategies with their options, of which each may be left out, but for an instance. Quote them: `|` joins lists.

  fixed_window
  sliding_window_log
  sliding_window_counter
  token_bucket,burst=20
  token_bucket_with_debt,burst=20,max_debt=10
  leaky_bucket
  leaky_bucket_with_queue
  gcra,burst_tolerance=500ms,strict=true
  tiered_rate,tiers=free:1|gold:4.5,default_tier=free
  adaptive_throttle,load_threshold=0.8,reduction_factor=0.5,recovery_rate=0.1,min_limit_ratio=0.2
  priority_queue,default_priority=low,max_queue_size=100,reserve=high:0.1|critical:0.2
  quota_with_rollover,rollover_percentage=0.5,max_rollover=50,cumulative=true
  time_of_day,windows=9-17:2|22-6:0.5,timezone_offset=-5
  time_of_day,windows_by_minute=570-1050:2,timezone_offset_minutes=330
  time_of_day,zone=Europe/Berlin           (if built with `--features time-zone`)
  cost_based_token_bucket,burst=20,cost_window=50,min_refill_rate=0.1
  distributed_fairness,instance=a,weight=2.5,fairness_window=30s
  geographic_distribution,regions=eu:0.6|us:0.4,allow_spillover=false,default_region=eu

GET /test is limited, GET /unthrottled is not; GET /ws is a WebSocket whose messages are limited and sent
back; GET /stat tells what is left. POST /__bench__/reset forgets everything, POST
/__bench__/clock?advance_us=N moves a manual clock, GET /__bench__/health is for waiting until the
server is up. Clients say who they are with the headers X-Client-ID (else it is their address), X-Cost,
X-Tier, X-Priority, X-Region and X-Instance.
";

type Error = Box<dyn std::error::Error>;

pub(crate) struct Options {
    /// As it was written.
    pub(crate) listen: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) rate: Rate,
    pub(crate) cost: u32,
    pub(crate) workers: usize,
    pub(crate) on_error: OnError,
    pub(crate) headers: Headers,
    pub(crate) clock: Option<ManualClock>,
}

impl Options {
    /// The flags of this process; `None` if it was asked for help.
    pub(crate) fn from_args() -> Result<Option<Options>, Error> {
        let mut args = Parser::from_env();
        let mut listen = "127.0.0.1:8080".to_owned();
        let mut workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut strategy, mut rate, mut cost) =
            (strategy::named("fixed_window")?, Rate::per_minute(100), 1);
        let (mut on_error, mut headers, mut manual) = (OnError::Throttle, Headers::Always, false);
        let (mut backend, mut namespace) = ("memory".to_owned(), "bench".to_owned());
        let mut fallback = false;

        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("listen") => listen = args.value()?.string()?,
                Arg::Long("backend") => backend = args.value()?.string()?,
                Arg::Long("fallback") => {
                    let choices = [("none", false), ("memory", true)];
                    fallback = choose("--fallback", &mut args, &choices)?;
                }
                Arg::Long("strategy") => {
                    strategy = understand("--strategy", &mut args, strategy::named)?;
                }
                Arg::Long("rate") => rate = understand("--rate", &mut args, Rate::parse)?,
                Arg::Long("cost") => cost = number("--cost", &mut args, 0, u32::MAX)?,
                Arg::Long("namespace") => namespace = args.value()?.string()?,
                Arg::Long("workers") => workers = number("--workers", &mut args, 1, 1_024)?,
                Arg::Long("on-error") => {
                    let choices = [
                        ("allow", OnError::Allow),
                        ("throttle", OnError::Throttle),
                        ("raise", OnError::Raise),
                    ];
                    on_error = choose("--on-error", &mut args, &choices)?;
                }
                Arg::Long("headers") => {
                    let choices = [
                        ("always", Headers::Always),
                        ("throttled", Headers::Denied),
                        ("never", Headers::Never),
                    ];
                    headers = choose("--headers", &mut args, &choices)?;
                }
                Arg::Long("clock") => {
                    let choices = [("system", false), ("manual", true)];
                    manual = choose("--clock", &mut args, &choices)?;
                }
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => {
                    let flags = flags().collect::<Vec<_>>().join(", ");
                    return Err(format!("{}; there are {flags}", other.unexpected()).into());
                }
            }
        }
        let clock = manual.then(ManualClock::default);
        let mut backend = open(&backend, &namespace, clock.as_ref())?;
        if fallback {
            let memory = open("memory", &namespace, clock.as_ref())?;
            backend = Arc::new(backend.failover(memory, CircuitBreaker::new()));
        }
        Ok(Some(Options {
            addresses: resolve(&listen)?,
            listen,
            backend,
            strategy,
            rate,
            cost,
            workers,
            on_error,
            headers,
            clock,
        }))
    }
}

/// As the help lists them.
fn flags() -> impl Iterator<Item = &'static str> {
    let words = HELP
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.filter(|word| word.starts_with("--"))
}

fn open(
    backend: &str,
    namespace: &str,
    clock: Option<&ManualClock>,
) -> Result<Arc<dyn Backend>, Error> {
    match backend {
        "memory" => {
            let mut builder = MemoryBackend::builder().namespace(namespace);
            if let Some(clock) = clock {
                builder = builder.clock(clock.clone());
            }
            Ok(Arc::new(builder.build()?))
        }
        #[cfg(feature = "redis")]
        url if url.starts_with("redis") => {
            let mut builder = traffik_actix::RedisBackend::builder(url).namespace(namespace);
            if let Some(clock) = clock {
                builder = builder.clock(clock.clone());
            }
            Ok(Arc::new(builder.build()?))
        }
        #[cfg(feature = "memcached")]
        url if url.starts_with("memcache") => {
            let mut builder = traffik_actix::MemcachedBackend::builder(url).namespace(namespace);
            if let Some(clock) = clock {
                builder = builder.clock(clock.clone());
            }
            Ok(Arc::new(builder.build()?))
        }
        _ => Err(format!(
            "--backend must be memory, redis://HOST or memcached://HOST, not {backend:?} (the latter \
             two if built with `--features redis,memcached`)"
        )
        .into()),
    }
}

fn resolve(listen: &str) -> Result<Vec<SocketAddr>, Error> {
    match listen.to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!(
            "--listen must be an address and a port, such as 127.0.0.1:8080, not {listen:?} ({error})"
        )
        .into()),
    }
}

/// The value of a flag whose parser says itself what would be right.
fn understand<T, E: Display>(
    flag: &str,
    args: &mut Parser,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Error> {
    let text = args.value()?.string()?;
    parse(&text).map_err(|error| format!("{flag} {text:?}: {error}").into())
}

fn number<T: FromStr + Display + PartialOrd>(
    flag: &str,
    args: &mut Parser,
    least: T,
    most: T,
) -> Result<T, Error> {
    let text = args.value()?.string()?;
    match text.parse() {
        Ok(number) if least <= number && number <= most => Ok(number),
        _ => Err(
            format!("{flag} must be a whole number from {least} to {most}, not {text:?}").into(),
        ),
    }
}

fn choose<T: Clone>(flag: &str, args: &mut Parser, choices: &[(&str, T)]) -> Result<T, Error> {
    let text = args.value()?.string()?;
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, choice)) => Ok(choice.clone()),
        None => {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            Err(format!("{flag} must be one of {}, not {text:?}", names.join(", ")).into())
        }
    }
}
