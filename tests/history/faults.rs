//! What happens to a store while it decides.

use std::time::Duration;

use crate::chaos::scenarios::{SCENARIOS, Scenario, World as Network};

/// What the chaos test does to a Redis, and more.
pub(super) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(MORE)
}

const MORE: &[Scenario] = &[
    Scenario {
        name: "restart from a snapshot 300 ms old",
        begin: |network| {
            let _: String = network.server().command(&["SAVE"]);
            std::thread::sleep(Duration::from_millis(300));
            network.server_mut().kill();
            network.server_mut().resurrect();
        },
        lasts: Duration::ZERO,
        end: |_| {},
        is_unnoticed: false,
        loses_state: true,
    },
    Scenario {
        name: "nothing",
        begin: |_| {},
        lasts: Duration::ZERO,
        end: |_| {},
        is_unnoticed: true,
        loses_state: false,
    },
];

/// Whether cells may be lost: some of what evicts may spare what we look at.
pub(super) fn may_lose(scenario: &Scenario) -> bool {
    scenario.loses_state || scenario.name.contains("eviction of")
}

/// Begins and ends it, with time before and after.
pub(super) fn happen(
    scenario: &Scenario,
    network: &mut Network,
    before: Duration,
    after: Duration,
) {
    std::thread::sleep(before);
    (scenario.begin)(network);
    std::thread::sleep(scenario.lasts);
    (scenario.end)(network);
    std::thread::sleep(after);
}
