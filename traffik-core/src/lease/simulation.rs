//! Nodes, a store and the way between them, in simulated time: tokio's clock stands still while
//! anything can run, and jumps to the next timer otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Lease, LeaseInfo, Leased};
use crate::backend::{Backend, Batch, BoxFuture, Op};
use crate::strategy::IntoStrategy;
use crate::{
    BackendExt, Cell, Clock, Decision, Decisions, Error, Hit, Identity, KeyHasher, MemoryBackend,
    OnError, Rate, Result, Strategy, Throttle, Timestamp,
};

pub(crate) fn simulated<T>(future: impl Future<Output = T>) -> T {
    let runtime: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// The time of the simulation, told by a clock that is off by so many millionths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulated {
    start: Instant,
    off_ppm: i64,
}

impl Simulated {
    pub(crate) fn new() -> Simulated {
        Simulated {
            start: Instant::now(),
            off_ppm: 0,
        }
    }

    pub(super) fn off_by(self, off_ppm: i64) -> Simulated {
        Simulated { off_ppm, ..self }
    }
}

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).unwrap();
        let told = elapsed + elapsed * self.off_ppm / 1_000_000;
        Timestamp::from_micros(1_704_067_200_000_000 + u64::try_from(told).unwrap())
    }
}

/// xorshift64*.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// A store as far away as its delays, which loses questions and answers as it is told.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) cells: MemoryBackend,
    way: Arc<Way>,
}

#[derive(Debug)]
struct Way {
    random: Mutex<Random>,
    delay_us: AtomicU64,
    /// Of a thousand messages.
    lost: AtomicU64,
    trips: AtomicU64,
}

impl Store {
    pub(super) fn new(clock: impl Clock, seed: u64) -> Store {
        let cells = MemoryBackend::builder().clock(clock).build().unwrap();
        let way = Way {
            random: Mutex::new(Random::new(seed)),
            delay_us: AtomicU64::new(2_000),
            lost: AtomicU64::new(0),
            trips: AtomicU64::new(0),
        };
        Store {
            cells,
            way: Arc::new(way),
        }
    }

    pub(super) fn delay(&self, up_to: Duration) {
        let us = u64::try_from(up_to.as_micros()).unwrap();
        self.way.delay_us.store(us, Ordering::Relaxed);
    }

    /// Loses so many of a thousand messages.
    pub(super) fn lose(&self, of_a_thousand: u64) {
        self.way.lost.store(of_a_thousand, Ordering::Relaxed);
    }

    pub(super) fn trips(&self) -> u64 {
        self.way.trips.load(Ordering::Relaxed)
    }

    async fn travel(&self) -> Result<()> {
        let (delay_us, is_lost) = {
            let mut random = self.way.random.lock().unwrap();
            let longest = self.way.delay_us.load(Ordering::Relaxed);
            let lost = self.way.lost.load(Ordering::Relaxed);
            (random.below(longest + 1), random.below(1_000) < lost)
        };
        sleep(Duration::from_micros(delay_us)).await;
        if is_lost {
            sleep(Duration::from_millis(50)).await;
            return Err(Error::timeout("a message was lost"));
        }
        Ok(())
    }
}

impl Backend for Store {
    fn apply<'a>(&'a self, batch: &'a Batch<'a>) -> BoxFuture<'a, Result<Decisions>> {
        Box::pin(async move {
            self.way.trips.fetch_add(1, Ordering::Relaxed);
            self.travel().await?;
            let decided = self.cells.apply(batch).await;
            self.travel().await?;
            decided
        })
    }

    fn load<'a>(&'a self, op: &'a Op<'a>) -> BoxFuture<'a, Result<(Cell, Timestamp)>> {
        self.cells.load(op)
    }

    fn reset(&self) -> BoxFuture<'_, Result<()>> {
        self.cells.reset()
    }

    fn key_hasher(&self) -> &KeyHasher {
        const { &KeyHasher::shared() }
    }
}

/// What is simulated.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) rate: Rate,
    pub(super) strategy: Arc<dyn Strategy>,
    /// The hits per second of each node.
    pub(super) demands: Vec<u64>,
    pub(super) seconds: u64,
    pub(super) lease: Lease,
    pub(super) lost: u64,
    pub(super) delay: Duration,
    pub(super) off_ppm: i64,
    pub(super) seed: u64,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// When hits were made, in µs and in order.
    pub(super) hits: Vec<u64>,
    /// When those were asked for that were admitted, and when it was known.
    pub(super) admitted: Vec<(u64, u64)>,
    /// When hits were denied, and the waits they were told.
    pub(super) denied: Vec<(u64, u64)>,
    pub(super) trips: u64,
    pub(super) infos: Vec<LeaseInfo>,
}

impl Scene {
    pub(super) fn new(rate: Rate, strategy: impl IntoStrategy, demands: &[u64]) -> Scene {
        Scene {
            rate,
            strategy: strategy.into_strategy().unwrap(),
            demands: demands.to_vec(),
            seconds: 10,
            lease: Lease::new(),
            lost: 0,
            delay: Duration::from_millis(2),
            off_ppm: 0,
            seed: 1,
        }
    }

    pub(super) fn play(&self) -> Outcome {
        simulated(self.act())
    }

    async fn act(&self) -> Outcome {
        let clock = Simulated::new();
        let store = Store::new(clock, self.seed);
        store.delay(self.delay);
        store.lose(self.lost);
        let log: Arc<Mutex<Outcome>> = Arc::default();
        let mut nodes = Vec::new();
        let mut backends = Vec::new();
        for (node, demand) in self.demands.iter().enumerate() {
            let off_ppm = match node % 2 {
                0 => self.off_ppm,
                _ => -self.off_ppm,
            };
            let lease = self.lease.clone().clock(clock.off_by(off_ppm));
            let leased = store.clone().lease(lease);
            let throttle = Throttle::builder("api")
                .rate(self.rate)
                .strategy(Arc::clone(&self.strategy))
                .backend(leased.clone())
                .on_error(OnError::Raise)
                .build()
                .unwrap();
            backends.push(leased);
            let node = Node {
                throttle,
                clock,
                demand: *demand,
                random: Random::new(self.seed ^ (node as u64 + 1)),
                log: Arc::clone(&log),
            };
            nodes.push(tokio::spawn(node.live(self.seconds)));
        }
        for node in nodes {
            node.await.unwrap();
        }
        sleep(Duration::from_secs(4)).await;
        let mut outcome = std::mem::take(&mut *log.lock().unwrap());
        outcome.hits.sort_unstable();
        outcome.admitted.sort_unstable_by_key(|(_, known)| *known);
        outcome.trips = store.trips();
        outcome.infos = backends.iter().map(Leased::info).collect();
        outcome
    }

    /// How many a single strict limiter would have admitted.
    pub(super) fn strictly(&self, outcome: &Outcome) -> u64 {
        let mut cell = Cell::fresh();
        let hits = outcome.hits.iter().filter(|at| {
            let hit = self.hit(**at);
            self.strategy.step(&mut cell, &hit).is_allowed()
        });
        hits.count() as u64
    }

    /// How many were admitted beyond a bound within any interval: of those that were asked for and
    /// answered in it, so that they certainly were admitted in it.
    pub(super) fn beyond(&self, outcome: &Outcome, bound: impl Fn(u64) -> u64) -> u64 {
        let mut spans = outcome.admitted.clone();
        spans.sort_unstable_by_key(|(_, known)| *known);
        let starts = spans.iter().map(|(asked, _)| *asked);
        let worst = starts.map(|start| {
            let within = spans.iter().filter(|(asked, _)| *asked >= start);
            let beyond = within.zip(1_u64..).map(|((_, known), count)| {
                // A microsecond more, since both ends belong to it.
                count.saturating_sub(bound(known - start + 1))
            });
            beyond.max().unwrap_or(0)
        });
        worst.max().unwrap_or(0)
    }

    /// The bound of a bucket that holds what the rate gives in a period.
    pub(super) fn bucket(&self) -> impl Fn(u64) -> u64 + use<> {
        let rate = self.rate;
        move |us| u64::from(rate.limit()) + rate.earned_in(crate::Span::from_micros(us))
    }

    /// By how much the waits of denials were too long, in µs, in order: had one limiter seen what
    /// was admitted, in the order in which it was.
    pub(super) fn excess_waits(&self, outcome: &Outcome) -> Vec<u64> {
        let mut admitted = outcome.admitted.iter().map(|(_, known)| *known).peekable();
        let mut cell = Cell::fresh();
        let mut denied = outcome.denied.clone();
        denied.sort_unstable();
        let excess = denied.iter().map(|(at, wait)| {
            while admitted.peek().is_some_and(|known| known <= at) {
                let hit = self.hit(admitted.next().unwrap_or(*at));
                let _ = self.strategy.step(&mut cell, &hit);
            }
            let next = self.strategy.step(&mut cell.clone(), &self.hit(*at));
            wait.saturating_sub(u64::try_from(next.wait().as_micros()).unwrap())
        });
        let mut excess: Vec<u64> = excess.collect();
        excess.sort_unstable();
        excess
    }

    fn hit(&self, at_us: u64) -> Hit<'_> {
        Hit {
            now: Timestamp::from_micros(at_us),
            rate: &self.rate,
            cost: 1,
            attributes: &crate::Attributes::NONE,
        }
    }
}

struct Node {
    throttle: Throttle,
    clock: Simulated,
    demand: u64,
    random: Random,
    log: Arc<Mutex<Outcome>>,
}

impl Node {
    async fn live(mut self, seconds: u64) {
        let start = Instant::now();
        let mean_us = 1_000_000 / self.demand;
        let mut at_us = self.random.below(mean_us + 1);
        while at_us < seconds * 1_000_000 {
            sleep_until(start + Duration::from_micros(at_us)).await;
            let (throttle, clock, log) = (self.throttle.clone(), self.clock, Arc::clone(&self.log));
            tokio::spawn(async move {
                let ann = Identity::of("ann");
                let asked = clock.now().as_micros();
                log.lock().unwrap().hits.push(asked);
                let Ok(decision) = decide(&throttle, &ann).await else {
                    return;
                };
                let (known, mut log) = (clock.now().as_micros(), log.lock().unwrap());
                match decision.retry_after() {
                    None => log.admitted.push((asked, known)),
                    Some(wait) => {
                        let wait = u64::try_from(wait.as_micros()).unwrap();
                        log.denied.push((known, wait));
                    }
                }
            });
            at_us += self.random.below(2 * mean_us) + 1;
        }
    }
}

/// As an adapter does it: without waiting if that can be.
async fn decide(throttle: &Throttle, identity: &Identity) -> Result<Decision> {
    match crate::Hits::from((throttle, identity.into())).try_decide() {
        Some(decided) => decided.map(|decisions| decisions[0]),
        None => throttle.hit(identity).await,
    }
}
