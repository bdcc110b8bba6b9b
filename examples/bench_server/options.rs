//! The flags of the server.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use traffik_actix::strategy::{self, Strategy};
use traffik_actix::{Backend, ClientIp, Headers, ManualClock, OnError, ProxyHeader, Rate};

use crate::flags::{Error, choose, number, understand};
use crate::store::{Leases, Store};

pub(crate) const HELP: &str = "\
A throttled server.

  --listen ADDR          where to listen; with port 0 on one [127.0.0.1:8080]
                         of its choice, which it prints
  --backend WHERE        memory or a server, see below       [memory]
  --deadline TIME        how long that server may take,      [50ms, memcached 250ms]
                         such as 500ms
  --fallback WHERE       memory or none, if the              [none]
                         backend fails
  --nodes N              servers that share the limits: each [1]
                         falls back to its fair share
  --lease [PERIOD]       decide hits on hot keys in memory,  [no leases; 250ms]
                         and ask that server for more about
                         once in a period
  --strategy NAME[,K=V]  a strategy and its options          [fixed_window]
  --rate RATE            such as 100/minute                  [100/minute]
  --cost N               cost of a request without X-Cost    [1]
  --rule PATTERN         the limit is for these paths only,  [/test]
                         may be repeated, see below
  --trust CIDR[,CIDR]    proxies whose headers tell who asks [none]
  --trust-hops N         or so many of them, wherever they   [0]
                         are
  --trust-header NAME    where they tell it: forwarded,      [x-forwarded-for]
                         x-forwarded-for, x-real-ip,
                         true-client-ip, cf-connecting-ip
  --namespace NAME       prefix of what is stored            [bench]
  --workers N            threads that serve                  [one per core]
  --on-error WHAT        allow, throttle or raise            [throttle]
  --headers WHEN         always, throttled or never          [always]
  --clock WHICH          system or manual                    [system]
  --help                 this

Servers that keep the counts, each if built with `--features` and what stands behind it:

  redis://HOST[:PORT]                                        redis
  redis-cluster://HOST[:PORT][,HOST[:PORT]]                  redis-cluster
  redis-sentinel://HOST[:PORT][,HOST[:PORT]]/MASTER          redis-sentinel
  rediss://.., rediss-cluster://.., rediss-sentinel://..     redis-tls, and the above
  memcached://HOST[:PORT]                                    memcached

For Redis, `user:password@` may stand before the hosts and `/DATABASE` at the end; sentinels are asked
without a password.

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
  calendar_window,week_starts_on=sunday,timezone_offset=-5
  calendar_window,month_starts_on=15,zone=Europe/Berlin       (if built with `--features time-zone`)
  cost_based_token_bucket,burst=20,cost_window=50,min_refill_rate=0.1
  distributed_fairness,instance=a,weight=2.5,fairness_window=30s
  geographic_distribution,regions=eu:0.6|us:0.4,allow_spillover=false,default_region=eu

GET /test is limited, GET /unthrottled is not; GET /ws is a WebSocket whose messages are limited and sent
back; GET /stat tells what is left. POST /__bench__/reset forgets everything, POST
/__bench__/clock?advance_us=N moves a manual clock, POST /__bench__/rate?rate=RATE changes the rate as a
changed configuration would (what was taken is kept; an open WebSocket keeps its rate), GET
/__bench__/leases tells what leases did, GET /__bench__/health is for waiting until the server is up. Clients say who they are with the headers
X-Client-ID (else it is their address), X-Cost, X-Tier, X-Priority, X-Region and X-Instance.

With --rule every path is served, by any method, and limited are those that begin with a PATTERN: a
regular expression such as /login(/|$), or a glob of whole paths such as /api/**. /unthrottled, /ws, /stat
and /__bench__/.. remain what they are.
";

pub(crate) struct Options {
    /// As it was written.
    pub(crate) listen: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) backend: Arc<dyn Backend>,
    /// What leases did, if there are any.
    pub(crate) leases: Option<Leases>,
    pub(crate) strategy: Arc<dyn Strategy>,
    pub(crate) rate: Rate,
    pub(crate) cost: u32,
    /// The paths that are limited; `/test` if there are none.
    pub(crate) patterns: Vec<String>,
    pub(crate) client_ip: ClientIp,
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
        let (mut patterns, mut client_ip) = (Vec::new(), ClientIp::peer());
        let mut store = Store::default();

        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("listen") => listen = args.value()?.string()?,
                Arg::Long("backend") => store.backend = args.value()?.string()?,
                Arg::Long("deadline") => {
                    store.deadline = Some(understand("--deadline", &mut args, duration)?);
                }
                Arg::Long("fallback") => {
                    let choices = [("none", false), ("memory", true)];
                    store.fallback = choose("--fallback", &mut args, &choices)?;
                }
                Arg::Long("nodes") => {
                    store.nodes = Some(number("--nodes", &mut args, 1, u32::MAX)?);
                }
                Arg::Long("lease") => {
                    store.lease = Some(match period(&mut args)? {
                        Some(text) => {
                            duration(&text).map_err(|error| format!("--lease {text:?}: {error}"))?
                        }
                        None => DEFAULT_PERIOD,
                    });
                }
                Arg::Long("strategy") => {
                    strategy = understand("--strategy", &mut args, strategy::named)?;
                }
                Arg::Long("rate") => rate = understand("--rate", &mut args, Rate::parse)?,
                Arg::Long("cost") => cost = number("--cost", &mut args, 0, u32::MAX)?,
                Arg::Long("rule") => patterns.push(args.value()?.string()?),
                Arg::Long("trust") => {
                    let trust =
                        |list: &str| client_ip.clone().trust(list.split(',').map(str::trim));
                    client_ip = understand("--trust", &mut args, trust)?;
                }
                Arg::Long("trust-hops") => {
                    client_ip =
                        client_ip.trust_hops(number("--trust-hops", &mut args, 0, u8::MAX)?);
                }
                Arg::Long("trust-header") => {
                    let header = choose("--trust-header", &mut args, &PROXY_HEADERS)?;
                    client_ip = client_ip.header(header);
                }
                Arg::Long("namespace") => store.namespace = args.value()?.string()?,
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
        let (backend, leases) = store.open(clock.as_ref())?;
        Ok(Some(Options {
            addresses: resolve(&listen)?,
            listen,
            backend,
            leases,
            strategy,
            rate,
            cost,
            patterns,
            client_ip,
            workers,
            on_error,
            headers,
            clock,
        }))
    }
}

const PROXY_HEADERS: [(&str, ProxyHeader); 5] = [
    ("forwarded", ProxyHeader::Forwarded),
    ("x-forwarded-for", ProxyHeader::XForwardedFor),
    ("x-real-ip", ProxyHeader::XRealIp),
    ("true-client-ip", ProxyHeader::TrueClientIp),
    ("cf-connecting-ip", ProxyHeader::CfConnectingIp),
];

/// Of a lease without one.
const DEFAULT_PERIOD: Duration = Duration::from_millis(250);

/// A value that may be left out: what follows, if that is no flag.
fn period(args: &mut Parser) -> Result<Option<String>, Error> {
    if let Some(value) = args.optional_value() {
        return Ok(Some(value.string()?));
    }
    let next = args.try_raw_args();
    let next = next.and_then(|next| next.peek().map(|next| next.to_owned()));
    match next {
        Some(next) if !next.to_string_lossy().starts_with('-') => Ok(Some(args.value()?.string()?)),
        _ => Ok(None),
    }
}

/// As the help lists them.
fn flags() -> impl Iterator<Item = &'static str> {
    let words = HELP
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.filter(|word| word.starts_with("--"))
}

/// As after the slash of a rate, but not just a unit.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let counted = text.starts_with(|first: char| first.is_ascii_digit());
    match Rate::parse_period(text) {
        Ok(duration) if counted => Ok(duration),
        _ => Err("write a whole number and a unit, such as 500ms or 2s"),
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
