//! Where counts are kept.

use std::sync::Arc;
use std::time::Duration;

use traffik_actix::{
    Backend, BackendExt, CircuitBreaker, Lease, LeaseInfo, Leased, ManualClock, MemoryBackend,
};

use crate::flags::Error;

/// The flags that say where.
pub(crate) struct Store {
    pub(crate) backend: String,
    pub(crate) namespace: String,
    /// How long a server may take; as long as is usual if unset.
    pub(crate) deadline: Option<Duration>,
    /// Whether memory decides while the server cannot.
    pub(crate) fallback: bool,
    /// How many servers share the limits while they cannot see each other.
    pub(crate) nodes: Option<u32>,
    /// About how often leases are renewed, if there are any.
    pub(crate) lease: Option<Duration>,
}

/// What tells of leases.
pub(crate) type Leases = Box<dyn Fn() -> LeaseInfo + Send + Sync>;

impl Default for Store {
    fn default() -> Store {
        Store {
            backend: "memory".to_owned(),
            namespace: "bench".to_owned(),
            deadline: None,
            fallback: false,
            nodes: None,
            lease: None,
        }
    }
}

impl Store {
    pub(crate) fn open(
        &self,
        clock: Option<&ManualClock>,
    ) -> Result<(Arc<dyn Backend>, Option<Leases>), Error> {
        let is_memory = self.backend == "memory";
        if self.deadline.is_some() && is_memory {
            return Err("--deadline is for a backend that is a server, such as --backend redis://HOST: memory takes no time".into());
        }
        if self.nodes.is_some() && !self.fallback {
            return Err("--nodes shares out what the fallback gives: add --fallback memory".into());
        }
        if self.lease.is_some() && is_memory {
            return Err("--lease is for a backend that is a server, such as --backend redis://HOST: memory need not ask".into());
        }
        let server = match is_memory {
            true => self.memory(clock)?,
            false => self.server(clock)?,
        };
        if !self.fallback {
            return Ok(match self.leased(server.clone(), clock) {
                Some((leased, leases)) => (Arc::new(leased), Some(leases)),
                None => (server, None),
            });
        }
        // What is held outlasts the server: so leases are around the breaker, and inside the fallback.
        let guarded: Arc<dyn Backend> = Arc::new(server.guarded(CircuitBreaker::new()));
        let (primary, leases): (Arc<dyn Backend>, _) = match self.leased(guarded.clone(), clock) {
            Some((leased, leases)) => (Arc::new(leased), Some(leases)),
            None => (guarded, None),
        };
        let failover = primary.fallback(self.memory(clock)?);
        Ok((Arc::new(failover.nodes(self.nodes.unwrap_or(1))), leases))
    }

    fn leased(
        &self,
        server: Arc<dyn Backend>,
        clock: Option<&ManualClock>,
    ) -> Option<(Leased<Arc<dyn Backend>>, Leases)> {
        let mut lease = Lease::new().period(self.lease?);
        if let Some(clock) = clock {
            lease = lease.clock(clock.clone());
        }
        let leased = server.lease(lease);
        let told = leased.clone();
        Some((leased, Box::new(move || told.info())))
    }

    fn memory(&self, clock: Option<&ManualClock>) -> Result<Arc<dyn Backend>, Error> {
        let mut builder = MemoryBackend::builder().namespace(&self.namespace);
        if let Some(clock) = clock {
            builder = builder.clock(clock.clone());
        }
        Ok(Arc::new(builder.build()?))
    }

    #[cfg_attr(
        not(any(feature = "redis", feature = "memcached")),
        expect(unused_variables, reason = "no server has a use for the clock")
    )]
    fn server(&self, clock: Option<&ManualClock>) -> Result<Arc<dyn Backend>, Error> {
        let scheme = self.backend.split("://").next().unwrap_or_default();
        #[cfg(feature = "memcached")]
        if scheme.starts_with("memcache") {
            let mut builder = traffik_actix::MemcachedBackend::builder(&*self.backend);
            builder = builder.namespace(&self.namespace);
            if let Some(deadline) = self.deadline {
                let connecting = deadline.min(Duration::from_secs(60));
                builder = builder.deadline(deadline).connect_timeout(connecting);
            }
            if let Some(clock) = clock {
                builder = builder.clock(clock.clone());
            }
            return Ok(Arc::new(builder.build()?));
        }
        #[cfg(feature = "redis")]
        if scheme.starts_with("redis") {
            let mut builder = crate::redis::at(&self.backend)?.namespace(&self.namespace);
            if let Some(deadline) = self.deadline {
                builder = builder.deadline(deadline);
            }
            if let Some(clock) = clock {
                builder = builder.clock(clock.clone());
            }
            return Ok(Arc::new(builder.build()?));
        }
        // The rest of a URL may be secret.
        Err(format!(
            "--backend must be memory, redis://HOST or memcached://HOST (or one of the others that \
             --help lists), not {scheme:?} (whatever is a server if built with `--features \
             redis,memcached`)"
        )
        .into())
    }
}
