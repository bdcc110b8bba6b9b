use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::{TestRequest, init_service};
use actix_web::{App, web};
use futures_util::future::join_all;
use traffik_actix::strategy::TokenBucket;
use traffik_actix::{HttpThrottle, Identity, OnError, ThrottleMiddleware};
use traffik_core::{
    Attempt, Backend, BackendExt, CircuitBreaker, MemoryBackend, Rate, RedisBackend, Throttle,
};

use super::{DEADLINE, LIMIT};

/// What is done about a failing store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Allow,
    Throttle,
    Raise,
    /// A breaker, and memory behind it.
    Failover,
    /// No store but memory, to compare with.
    Memory,
}

impl Policy {
    pub(super) const ALL: [Policy; 5] = [
        Policy::Allow,
        Policy::Throttle,
        Policy::Raise,
        Policy::Failover,
        Policy::Memory,
    ];
}

/// How many threads serve, each with connections and services of its own, as actix's workers.
const WORKERS: usize = 2;

/// How many requests a worker has under way for each policy.
const CLIENTS: usize = 2;

/// How many requests of a policy are under way at any time.
pub(super) const UNDER_WAY: usize = WORKERS * CLIENTS;

/// Between a client's requests: together they make at most 400 a second.
const PAUSE: Duration = Duration::from_millis(10);

/// If a store does not decide again within this, it never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients that keep asking, those of each policy with a limit of their own.
pub(super) struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    stage: AtomicU8,
    records: Mutex<Vec<Record>>,
    backends: Vec<Tested>,
}

/// A policy, and the backend it is about.
#[derive(Clone)]
struct Tested {
    policy: Policy,
    backend: Arc<dyn Backend>,
    redis: RedisBackend,
    breaker: CircuitBreaker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    WarmUp,
    Fault,
    Recovery,
    Over,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) what: What,
    pub(super) stage: Stage,
    pub(super) took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A request was answered, which met an open breaker or not.
    Answer {
        policy: Policy,
        status: u16,
        spared: bool,
    },
    /// A breaker let a probe pass, which waits for the store even though the breaker was open.
    Probed,
    /// A worker that wanted to sleep for a moment overslept by so much.
    Overslept,
    /// The store was found to decide again so long after the fault.
    Recovered(Policy),
    /// The store had lost a cell, which was restored.
    Healed(Policy),
}

impl Load {
    pub(super) fn start(url: &str) -> Load {
        let shared = Arc::new(Shared {
            stage: AtomicU8::new(Stage::WarmUp as u8),
            records: Mutex::default(),
            backends: Policy::ALL.map(|policy| Tested::new(policy, url)).into(),
        });
        let worker = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || actix_rt::System::new().block_on(work(&shared)))
        };
        let mut workers: Vec<_> = (0..WORKERS).map(worker).collect();
        let probing = Arc::clone(&shared);
        workers.push(std::thread::spawn(move || {
            actix_rt::System::new().block_on(async {
                let probes = probing
                    .backends
                    .iter()
                    .map(|tested| probe(&probing, tested));
                join_all(probes).await;
            });
        }));
        Load { shared, workers }
    }

    pub(super) fn enter_fault(&self) {
        self.shared.enter(Stage::Fault);
    }

    pub(super) fn enter_recovery(&self) {
        self.shared.enter(Stage::Recovery);
    }

    /// Stops asking once every store decides again, and tells what became of each request.
    pub(super) fn stop(self) -> Vec<Record> {
        let start = Instant::now();
        while !self.shared.has_recovered() && start.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
        self.shared.enter(Stage::Over);
        for worker in self.workers {
            worker.join().expect("a worker that does not panic");
        }
        for tested in &self.shared.backends {
            let count = |what, count: u64| {
                (0..count).for_each(|_| self.shared.record(what, Stage::Over, Duration::ZERO));
            };
            count(What::Probed, tested.breaker.info().opened_total);
            count(What::Healed(tested.policy), tested.redis.state_loss_total());
        }
        std::mem::take(&mut *self.shared.records.lock().unwrap())
    }
}

impl Shared {
    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::WarmUp,
            1 => Stage::Fault,
            2 => Stage::Recovery,
            _ => Stage::Over,
        }
    }

    fn has_recovered(&self) -> bool {
        let records = self.records.lock().unwrap();
        let recovered = |record: &&Record| matches!(record.what, What::Recovered(_));
        records.iter().filter(recovered).count() == Policy::ALL.len()
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn record(&self, what: What, stage: Stage, took: Duration) {
        self.records
            .lock()
            .unwrap()
            .push(Record { what, stage, took });
    }
}

impl Tested {
    fn new(policy: Policy, url: &str) -> Tested {
        let redis = RedisBackend::builder(url)
            .namespace(format!("{policy:?}"))
            .deadline(DEADLINE)
            .build()
            .unwrap();
        let breaker = CircuitBreaker::builder()
            .recovery_timeout(Duration::from_millis(250))
            .build()
            .unwrap();
        let backend: Arc<dyn Backend> = match policy {
            Policy::Allow | Policy::Throttle | Policy::Raise => Arc::new(redis.clone()),
            Policy::Failover => {
                let memory = MemoryBackend::new();
                Arc::new(redis.clone().failover(memory, breaker.clone()))
            }
            Policy::Memory => Arc::new(MemoryBackend::new()),
        };
        Tested {
            policy,
            backend,
            redis,
            breaker,
        }
    }

    fn on_error(&self) -> OnError {
        match self.policy {
            Policy::Allow => OnError::Allow,
            Policy::Throttle => OnError::Throttle,
            // Were there an error with these, it would show.
            Policy::Raise | Policy::Failover | Policy::Memory => OnError::Raise,
        }
    }

    /// The one limit of this policy: next to nothing flows in while the test lasts.
    fn limits(&self) -> ThrottleMiddleware {
        let throttle = HttpThrottle::builder("load")
            .rate(Rate::per_day(LIMIT))
            .strategy(TokenBucket::new())
            .identify(|_: &actix_web::HttpRequest| Identity::of("one client"))
            .on_error(self.on_error())
            .build();
        ThrottleMiddleware::new(throttle.unwrap()).backend(Arc::clone(&self.backend))
    }
}

async fn work(shared: &Shared) {
    let clients = shared.backends.iter().map(|tested| async move {
        let app = App::new()
            .wrap(tested.limits())
            .route("/", web::get().to(async || "hello"));
        let app = init_service(app).await;
        join_all((0..CLIENTS).map(|_| ask(shared, tested, &app))).await;
    });
    futures_util::future::join(join_all(clients), measure_lag(shared)).await;
}

async fn ask<S, B>(shared: &Shared, tested: &Tested, app: &S)
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = actix_web::Error>,
{
    while shared.stage() != Stage::Over {
        let (start, stage) = (Instant::now(), shared.stage());
        let spared = tested.breaker.state().is_open();
        let response = app.call(TestRequest::get().to_request()).await.unwrap();
        let what = What::Answer {
            policy: tested.policy,
            status: response.status().as_u16(),
            spared,
        };
        shared.record(what, stage, start.elapsed());
        actix_rt::time::sleep(PAUSE).await;
    }
}

/// How late the machine is: other tests run beside this one.
async fn measure_lag(shared: &Shared) {
    while shared.stage() != Stage::Over {
        let start = Instant::now();
        actix_rt::time::sleep(PAUSE).await;
        let late = start.elapsed().saturating_sub(PAUSE);
        shared.record(What::Overslept, shared.stage(), late);
    }
}

/// Waits until the fault is over and the store decides again.
async fn probe(shared: &Shared, tested: &Tested) {
    let throttle = Throttle::builder("probe")
        .rate("1000000/day")
        .backend(Arc::clone(&tested.backend))
        .on_error(OnError::Raise)
        .build()
        .unwrap();
    let prober = Identity::of("prober");
    while !matches!(shared.stage(), Stage::Recovery | Stage::Over) {
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    while shared.stage() != Stage::Over {
        let decision = throttle.hit(Attempt::by(&prober)).await;
        if decision.is_ok_and(|decision| !decision.is_degraded()) {
            let what = What::Recovered(tested.policy);
            shared.record(what, Stage::Recovery, start.elapsed());
            return;
        }
        actix_rt::time::sleep(Duration::from_millis(2)).await;
    }
}
