//! What `metrics` is told of how many are in flight.

use std::sync::{Arc, OnceLock};

use ::metrics::{Counter, Gauge, counter, gauge};

use crate::concurrency::{Busy, InFlight};
use crate::metrics as names;

/// The numbers of one limit.
#[derive(Clone, Debug)]
pub(crate) struct InFlightMeters(Arc<Named>);

#[derive(Debug)]
struct Named {
    name: String,
    /// Asked for when somebody first asks, since the recorder may not be there when the limit is built.
    handles: OnceLock<Handles>,
}

#[derive(Debug)]
struct Handles {
    in_flight: Gauge,
    waiting: Gauge,
    outcomes: [Counter; OUTCOMES.len()],
    #[cfg(feature = "redis")]
    lost: Counter,
    #[cfg(feature = "redis")]
    expired: Counter,
}

/// What becomes of whoever asks.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Admitted,
    Waited,
    Degraded,
    Busy,
    NoRoom,
    InVain,
    GaveUp,
    Failed,
}

const OUTCOMES: [&str; 8] = [
    "admitted", "waited", "degraded", "busy", "no_room", "in_vain", "gave_up", "failed",
];

impl InFlightMeters {
    pub(crate) fn new(name: &str) -> InFlightMeters {
        InFlightMeters(Arc::new(Named {
            name: name.to_owned(),
            handles: OnceLock::new(),
        }))
    }

    pub(crate) fn began(&self) {
        self.handles().in_flight.increment(1);
    }

    pub(crate) fn ended(&self) {
        self.handles().in_flight.decrement(1);
    }

    /// Somebody asks, and perhaps waits.
    pub(crate) fn ask(&self) -> Asks<'_> {
        Asks {
            handles: self.handles(),
            waits: false,
            found_no_room: false,
            is_over: false,
        }
    }

    /// Leases of this process that the server no longer knew of, and that began anew.
    #[cfg(feature = "redis")]
    pub(crate) fn lost(&self, leases: u64) {
        self.handles().lost.increment(leases);
    }

    /// Leases of any process that ended since nobody renewed them.
    #[cfg(feature = "redis")]
    pub(crate) fn expired(&self, leases: u64) {
        self.handles().expired.increment(leases);
    }

    fn handles(&self) -> &Handles {
        self.0.handles.get_or_init(|| Handles::of(&self.0.name))
    }
}

impl Handles {
    fn of(name: &str) -> Handles {
        let name = || name.to_owned();
        Handles {
            in_flight: gauge!(names::IN_FLIGHT, "limit" => name()),
            waiting: gauge!(names::IN_FLIGHT_WAITING, "limit" => name()),
            outcomes: OUTCOMES.map(|outcome| {
                counter!(names::IN_FLIGHT_OUTCOMES, "limit" => name(), "outcome" => outcome)
            }),
            #[cfg(feature = "redis")]
            lost: counter!(names::IN_FLIGHT_LOST, "limit" => name()),
            #[cfg(feature = "redis")]
            expired: counter!(names::IN_FLIGHT_EXPIRED, "limit" => name()),
        }
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }
}

/// Somebody who asks, and gives up unless told what became of it.
#[derive(Debug)]
pub(crate) struct Asks<'a> {
    handles: &'a Handles,
    waits: bool,
    found_no_room: bool,
    is_over: bool,
}

impl Asks<'_> {
    pub(crate) fn waits(&mut self) {
        if !self.waits {
            self.waits = true;
            self.handles.waiting.increment(1);
        }
    }

    /// As many wait as may.
    pub(crate) fn finds_no_room(&mut self) {
        self.found_no_room = true;
    }

    pub(crate) fn became(mut self, what: &Result<InFlight, Busy>) {
        self.is_over = true;
        let outcome = match what {
            Ok(one) if !one.is_counted() => return,
            Ok(one) if one.is_degraded() => Outcome::Degraded,
            Ok(_) if self.waits => Outcome::Waited,
            Ok(_) => Outcome::Admitted,
            Err(busy) if busy.failure().is_some() => Outcome::Failed,
            Err(_) if self.found_no_room => Outcome::NoRoom,
            Err(busy) if busy.waited() => Outcome::InVain,
            Err(_) => Outcome::Busy,
        };
        self.handles.count(outcome);
    }
}

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.handles.waiting.decrement(1);
        }
        if !self.is_over {
            self.handles.count(Outcome::GaveUp);
        }
    }
}
