//! Processes that share a store, one of which dies or stands still.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use custom_store::Sqlite;
use traffik_core::{
    Backend, BackendExt, Lease, LockConfig, Locked, MemcachedBackend, RedisBackend,
};

use super::event::{Event, parse};
use super::record::{Plan, record};
use super::world::World;
use crate::support::PATIENCE;

/// What a process is told: what the store is and where, where to write to, and what to do.
const ROLE: &str = "TRAFFIK_TESTS_HISTORY";

/// What processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Redis,
    /// Each has leases of its own.
    LeasedRedis,
    Memcached,
    /// A file.
    Sqlite,
}

/// So long others wait for who was killed while it had a lock on a [`Store::Sqlite`].
pub(super) const LOCKED: Duration = Duration::from_secs(2);

impl Store {
    const ALL: [Store; 4] = [
        Store::Redis,
        Store::LeasedRedis,
        Store::Memcached,
        Store::Sqlite,
    ];

    /// What is hit there.
    pub(super) fn world(self) -> World {
        match self {
            Store::LeasedRedis => World::lent(),
            _ => World::new(),
        }
    }

    fn backend(self, place: &str) -> Arc<dyn Backend> {
        let deadline = Duration::from_secs(5);
        match self {
            Store::Redis => {
                let builder = RedisBackend::builder(place).deny_cache(0);
                Arc::new(builder.deadline(deadline).build().unwrap())
            }
            Store::LeasedRedis => {
                let builder = RedisBackend::builder(place).persistent(true);
                let redis = builder.deadline(Duration::from_millis(500)).build();
                Arc::new(redis.unwrap().lease(Lease::new()))
            }
            Store::Memcached => {
                let builder = MemcachedBackend::builder(place).deadline(deadline);
                Arc::new(builder.build().unwrap())
            }
            Store::Sqlite => {
                let locks = LockConfig::new().ttl(LOCKED).blocking_timeout(deadline);
                let builder = Locked::builder(Sqlite::open(place).unwrap()).lock(locks);
                Arc::new(builder.deadline(deadline).build().unwrap())
            }
        }
    }
}

/// A process that hits until it is told to stop, or killed.
pub(super) struct Node {
    child: Child,
    journal: PathBuf,
}

impl Node {
    /// Starts it, and waits until it hits.
    pub(super) fn start(store: Store, place: &str, plan: Plan) -> Node {
        let name = format!("traffik-history-{}-{}", std::process::id(), plan.seed);
        let journal = std::env::temp_dir().join(name);
        let role = [
            format!("{store:?}"),
            place.to_owned(),
            journal.display().to_string(),
            plan.clients.to_string(),
            plan.events.to_string(),
            plan.batches.to_string(),
            plan.askers.to_string(),
            plan.seed.to_string(),
            plan.stay.to_string(),
            plan.rest.as_micros().to_string(),
            plan.groups.0.to_string(),
            plan.groups.1.to_string(),
        ];
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "history::nodes::another_process"])
            .env(ROLE, role.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this very program");
        let node = Node { child, journal };
        let start = Instant::now();
        while std::fs::metadata(&node.journal).map_or(0, |journal| journal.len()) == 0 {
            assert!(start.elapsed() < PATIENCE, "a process does not hit");
            std::thread::sleep(Duration::from_millis(2));
        }
        node
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().expect("it runs");
    }

    pub(super) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(super) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("`kill`").success());
    }

    /// What it has done.
    pub(super) fn stop(mut self) -> Vec<Event> {
        // The end of its input is its end.
        drop(self.child.stdin.take());
        self.child.wait().expect("it ends");
        let events = std::fs::read_to_string(&self.journal).expect("a journal");
        let _ = std::fs::remove_file(&self.journal);
        parse(&events)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`Node::start`] runs.
#[test]
#[ignore = "is a part of other tests"]
fn another_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let words: Vec<&str> = role.split(' ').collect();
    let [
        store,
        place,
        journal,
        clients,
        events,
        batches,
        askers,
        seed,
        stay,
        rest,
        first,
        groups,
    ] = words[..]
    else {
        panic!("{role}")
    };
    let store = Store::ALL
        .into_iter()
        .find(|one| format!("{one:?}") == store);
    let plan = Plan {
        clients: clients.parse().unwrap(),
        events: events.parse().unwrap(),
        batches: batches.parse().unwrap(),
        askers: askers.parse().unwrap(),
        seed: seed.parse().unwrap(),
        stay: stay.parse().unwrap(),
        rest: Duration::from_micros(rest.parse().unwrap()),
        groups: (first.parse().unwrap(), groups.parse().unwrap()),
    };
    hit(store.expect("a store"), place, Path::new(journal), plan);
}

#[tokio::main]
async fn hit(store: Store, place: &str, journal: &Path, plan: Plan) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let journal = Arc::new(File::create(journal).unwrap());
    let world = Arc::new(store.world());
    record(store.backend(place), world, plan, stop, Some(journal)).await;
}
