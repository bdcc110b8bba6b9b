//! What requests see when Redis dies, hangs, forgets or is cut off, under load, with each policy.
//!
//! One table is printed: `cargo test -p traffik-tests chaos -- --nocapture`.

mod crash;
mod load;
mod nodes;
mod report;
pub(crate) mod scenarios;
mod settlement;
mod shards;

use std::time::Duration;

use self::load::{Load, Policy, Record};
use self::report::Report;
use self::scenarios::{SCENARIOS, Scenario, World};

/// How long a decision of Redis may take here.
const DEADLINE: Duration = Duration::from_millis(100);

/// How many hits the one client of each policy has: more than it makes before the fault, less
/// than it makes altogether.
const LIMIT: u32 = 400;

const WARM_UP: Duration = Duration::from_millis(400);

/// How long requests go on after the fault, at least.
const RECOVERY: Duration = Duration::from_millis(1200);

#[test]
fn requests_survive_their_store() {
    println!("{}", Report::head());
    let mut broken = Vec::new();
    for scenario in SCENARIOS {
        let records = run(scenario);
        let report = |policy| Report::new(scenario, policy, &records);
        let memory = report(Policy::Memory);
        for report in Policy::ALL.map(report) {
            println!("{report}");
            broken.extend(report.broken_promises(&memory));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn run(scenario: &Scenario) -> Vec<Record> {
    let mut world = World::new();
    let load = Load::start(&world.url());
    std::thread::sleep(WARM_UP);

    load.enter_fault();
    (scenario.begin)(&mut world);
    std::thread::sleep(scenario.lasts);
    (scenario.end)(&mut world);

    load.enter_recovery();
    std::thread::sleep(RECOVERY);
    load.stop()
}
