use std::time::{Duration, Instant};

use traffik_core::{
    Backend, BackendExt, BreakerState, CircuitBreaker, Identity, ManualClock, MemoryBackend,
    OnError, Throttle, TokenBucket,
};

use crate::support::{MemcachedServer, RedisServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_survives_the_crash_of_redis() {
    let mut server = RedisServer::start();
    let limit = Limit::new(server.backend());
    limit.spend(40, false).await;
    server.kill();
    limit.spend(30, true).await;
    server.resurrect();
    assert_eq!(limit.rest().await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_survives_the_crash_of_memcached() {
    let mut server = MemcachedServer::start();
    let impatient = server.builder().deadline(Duration::from_secs(1));
    let limit = Limit::new(impatient.build().unwrap());
    limit.spend(40, false).await;
    server.kill();
    limit.spend(30, true).await;
    server.resurrect();
    assert_eq!(limit.rest().await, 30);
}

/// A limit of 100 on a store with memory behind it.
struct Limit {
    api: Throttle,
    breaker: CircuitBreaker,
    /// Of the breaker: nobody waits for it to let a probe pass.
    clock: ManualClock,
}

impl Limit {
    fn new(store: impl Backend) -> Limit {
        let clock = ManualClock::default();
        let breaker = CircuitBreaker::builder().clock(clock.clone());
        let breaker = breaker.build().unwrap();
        let api = Throttle::builder("api")
            .rate("100/day")
            .strategy(TokenBucket::new())
            .backend(store.failover(MemoryBackend::new(), breaker.clone()))
            .on_error(OnError::Raise);
        Limit {
            api: api.build().unwrap(),
            breaker,
            clock,
        }
    }

    async fn spend(&self, hits: u32, degraded: bool) {
        for _ in 0..hits {
            let decision = self.api.hit(&Identity::of("ann")).await.unwrap();
            assert!(decision.is_allowed());
            assert_eq!(decision.is_degraded(), degraded);
        }
        // Half open, if a probe is under way.
        assert_eq!(self.breaker.state() != BreakerState::Closed, degraded);
    }

    /// What is admitted from now on, until the store is back and denies.
    async fn rest(&self) -> u32 {
        let (start, mut rest) = (Instant::now(), 0);
        loop {
            self.clock.advance(Duration::from_secs(60));
            let decision = self.api.hit(&Identity::of("ann")).await.unwrap();
            rest += u32::from(decision.is_allowed());
            if decision.is_denied() && self.breaker.state() == BreakerState::Closed {
                return rest;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "never recovers");
        }
    }
}
