//! Two Redis servers whose clocks are 10 s apart, of which one takes over from the other.
//!
//! To those who ask it is a clock that steps. Ahead, the model decides what it decides, and a cell is what it was, or what it
//! once was where the other server was killed before it had told everything. Behind, cells are of a time to come: each is brought
//! back by the first denial on it, in a trip of its own that no witness sees, so there is no order to look for. Each of the
//! two servers keeps to the bound.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use traffik_core::{Backend, RedisBackend};

use super::check::Terms;
use super::runs::{Runs, Tell};
use super::table::Promise;
use crate::support::{Proxy, RedisServer, clocks_can_be_set};

impl Runs {
    pub(super) fn clocks(&self, tell: Tell<'_>) {
        if !clocks_can_be_set() {
            // Where histories are read, so that nobody takes them for recorded.
            println!(
                "| Redis | *failover to a clock 10 s apart: skipped, `apt-get install faketime`* |"
            );
            return;
        }
        let in_order = Promise::Order(Terms {
            forgets: true,
            steps_back: true,
            ..Terms::default()
        });
        for (fault, before, after, promise) in [
            ("failover to a clock 10 s ahead", 0, 10, in_order),
            ("failover to a clock 10 s behind", 10, 0, Promise::Twice),
        ] {
            let mut master = RedisServer::start_ahead(before);
            let replica = master.replica_ahead(after);
            let apart = replica.seconds().abs_diff(master.seconds());
            assert!((9..=11).contains(&apart), "the clocks are {apart} s apart");
            let proxy = Proxy::before(master.port());
            let two = [(); 2].map(|()| {
                let builder = RedisBackend::builder(&proxy.url()).deny_cache(0);
                let builder = builder.deadline(Duration::from_millis(300));
                Arc::new(builder.build().unwrap()) as Arc<dyn Backend>
            });
            let around = self.scale.around;
            let events = self.record(two.into(), self.endless(), move || {
                sleep(around);
                master.kill();
                replica.command::<()>(&["REPLICAOF", "NO", "ONE"]);
                proxy.redirect(replica.port());
                sleep(around);
            });
            tell(self.row("Redis", fault, promise, events));
        }
    }
}
