//! The flags of the server.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use lexopt::{Arg, Parser, ValueExt};
use traffik_actix::strategy::{self, Strategy};
use traffik_actix::traffik_core::{BackendExt, CircuitBreaker};
use traffik_actix::{Backend, Headers, ManualClock, MemoryBackend, OnError, Rate};

pub(crate) const HELP: &str = "\
A throttled server.

  --listen ADDR          where to listen                     [127.0.0.1:8080]
  --backend WHERE        memory, redis://HOST or             [memory]
                         memcached://HOST
  --fallback WHERE       memory, if the backend fails        [none]
  --strategy NAME[,K=V]  a strategy and its options          [fixed_window]
  --rate RATE            such as 100/minute                  [100/minute]
  --cost N               cost of a request without X-Cost    [1]
  --namespace NAME       prefix of what is stored            [bench]
  --workers N            threads that serve                  [one per core]
  --on-error WHAT        allow, throttle or raise            [throttle]
  --headers WHEN         always, throttled or never          [always]
  --clock WHICH          system or manual                    [system]
  --help                 this

GET /test is limited, GET /unthrottled is not; GET /ws is a WebSocket whose messages are limited and sent
back; GET /stat tells what is left. POST /__bench__/reset
forgets everything, POST /__bench__/clock?advance_us=N moves a manual clock, GET /__bench__/health is
for waiting until the server is up.
";

type Error = Box<dyn std::error::Error>;

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
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
        let mut listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let mut workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut strategy, mut rate, mut cost) =
            (strategy::named("fixed_window")?, Rate::per_minute(100), 1);
        let (mut on_error, mut headers, mut manual) = (OnError::Throttle, Headers::Always, false);
        let (mut backend, mut namespace) = ("memory".to_owned(), "bench".to_owned());
        let mut fallback = false;

        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("listen") => listen = parse("--listen", &mut args)?,
                Arg::Long("backend") => backend = args.value()?.string()?,
                Arg::Long("fallback") => {
                    fallback = choose(
                        "--fallback",
                        &mut args,
                        &[("none", false), ("memory", true)],
                    )?;
                }
                Arg::Long("strategy") => strategy = strategy::named(&args.value()?.string()?)?,
                Arg::Long("rate") => rate = parse("--rate", &mut args)?,
                Arg::Long("cost") => cost = parse("--cost", &mut args)?,
                Arg::Long("namespace") => namespace = args.value()?.string()?,
                Arg::Long("workers") => workers = parse("--workers", &mut args)?,
                Arg::Long("on-error") => {
                    on_error = choose(
                        "--on-error",
                        &mut args,
                        &[
                            ("allow", OnError::Allow),
                            ("throttle", OnError::Throttle),
                            ("raise", OnError::Raise),
                        ],
                    )?;
                }
                Arg::Long("headers") => {
                    headers = choose(
                        "--headers",
                        &mut args,
                        &[
                            ("always", Headers::Always),
                            ("throttled", Headers::Denied),
                            ("never", Headers::Never),
                        ],
                    )?;
                }
                Arg::Long("clock") => {
                    manual = choose("--clock", &mut args, &[("system", false), ("manual", true)])?;
                }
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => {
                    return Err(format!("{}; --help lists the flags", other.unexpected()).into());
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

fn parse<T: FromStr<Err: std::fmt::Display>>(flag: &str, args: &mut Parser) -> Result<T, Error> {
    let text = args.value()?.string()?;
    text.parse()
        .map_err(|error| format!("{flag} {text:?}: {error}").into())
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
