//! Processes that share a store, one of which dies or stands still.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use traffik_core::{Backend, MemcachedBackend, RedisBackend};

use super::event::{Event, parse};
use super::record::{Plan, record};
use super::world::World;

/// What a process is told: where the store is, where to write to, how many events and the seed.
const ROLE: &str = "TRAFFIK_TESTS_HISTORY";

/// A process that hits until it is told to stop, or killed.
pub(super) struct Node {
    child: Child,
    journal: PathBuf,
}

impl Node {
    pub(super) fn start(url: &str, plan: Plan) -> Node {
        let name = format!("traffik-history-{}-{}", std::process::id(), plan.seed);
        let journal = std::env::temp_dir().join(name);
        let role = [
            url.to_owned(),
            journal.display().to_string(),
            plan.clients.to_string(),
            plan.events.to_string(),
            plan.batches.to_string(),
            plan.askers.to_string(),
            plan.seed.to_string(),
        ];
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "history::nodes::another_process"])
            .env(ROLE, role.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this very program");
        Node { child, journal }
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
    let [url, journal, clients, events, batches, askers, seed] = words[..] else {
        panic!("{role}")
    };
    let plan = Plan {
        clients: clients.parse().unwrap(),
        events: events.parse().unwrap(),
        batches: batches.parse().unwrap(),
        askers: askers.parse().unwrap(),
        seed: seed.parse().unwrap(),
    };
    hit(url, Path::new(journal), plan);
}

#[tokio::main]
async fn hit(url: &str, journal: &Path, plan: Plan) {
    let deadline = Duration::from_secs(5);
    let backend: Arc<dyn Backend> = match url.starts_with("redis") {
        true => Arc::new(
            RedisBackend::builder(url)
                .deny_cache(0)
                .deadline(deadline)
                .build()
                .unwrap(),
        ),
        false => Arc::new(
            MemcachedBackend::builder(url)
                .deadline(deadline)
                .build()
                .unwrap(),
        ),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let journal = Arc::new(File::create(journal).unwrap());
    record(backend, Arc::new(World::new()), plan, stop, Some(journal)).await;
}
