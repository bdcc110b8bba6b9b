//! Processes that share a file, by the store of `examples/custom-store`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use super::nodes::{LOCKED, Node, Store};
use super::record::Plan;
use super::runs::{Runs, Tell, UNTIMED};

type Happens = fn(&mut Node);

impl Runs {
    pub(super) fn sqlite(&self, tell: Tell<'_>) {
        let faults: [(&str, bool, Happens); 3] = [
            ("nothing", true, |_| {}),
            // The cells of a batch are stored one after the other, so who dies in between charges a part.
            ("a process is killed", false, |node| {
                node.kill();
                sleep(LOCKED);
            }),
            ("a process stands still, 300 ms", false, |node| {
                node.pause();
                sleep(Duration::from_millis(300));
                node.resume();
            }),
        ];
        for (fault, batches, happen) in faults {
            let file = File::new();
            let mut nodes = [40, 41].map(|seed| {
                let plan = Plan {
                    seed,
                    batches,
                    ..self.endless()
                };
                Node::start(Store::Sqlite, &file.path(), plan)
            });
            sleep(self.scale.around);
            happen(&mut nodes[0]);
            sleep(self.scale.around);
            let events = nodes.into_iter().flat_map(Node::stop).collect();
            tell(self.row("Locked on SQLite, two processes", fault, UNTIMED, events));
        }
    }
}

/// A file of its own in a directory of its own, since SQLite puts others beside it.
struct File(PathBuf);

impl File {
    fn new() -> File {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("traffik-sqlite-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        File(directory)
    }

    fn path(&self) -> String {
        self.0.join("limits.sqlite").display().to_string()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
