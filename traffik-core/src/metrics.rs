//! Numbers for whoever runs a limiter, through the [`metrics`](https://docs.rs/metrics) facade (feature `metrics`).
//!
//! Install the recorder of your choice *before the first hit*: a throttle asks for its handles once, when it
//! first decides, and what it is given then is what it counts with. A decision costs a few atomic additions and
//! allocates nothing. Labels come from your configuration only: no client can make a label.
//!
#![doc = include_str!("metrics/table.md")]
//!
//! ```
//! use metrics_exporter_prometheus::PrometheusBuilder;
//! use traffik_core::{Identity, MemoryBackend, Throttle, metrics};
//!
//! let recorder = PrometheusBuilder::new().build_recorder();
//! let scraped = recorder.handle();
//! # let _guard = ::metrics::set_default_local_recorder(&recorder);
//! // In a program: `PrometheusBuilder::new().install_recorder()?`
//! metrics::describe();
//!
//! let api = Throttle::builder("api").rate("1/day").backend(MemoryBackend::new()).build()?;
//! let ann = Identity::of("ann");
//! let _ = (api.hit_now(&ann)?, api.hit_now(&ann)?);
//! let text = scraped.render();
//! assert!(text.contains(r#"traffik_decisions_total{throttle="api",outcome="admitted"} 1"#));
//! assert!(text.contains(r#"traffik_decisions_total{throttle="api",outcome="denied"} 1"#));
//! # Ok::<(), traffik_core::Error>(())
//! ```
//!
//! Who is denied most often is no label, since clients are many and private: ask
//! [`Throttle::offenders`](crate::Throttle::offenders).

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub use crate::observe::offenders::Offender;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that comes and goes.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric, as the table of this module has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            #[cfg_attr(
                not(all(feature = "redis", feature = "tokio")),
                allow(dead_code, reason = "some things do not happen without other features")
            )]
            pub(crate) const $constant: &str = $name;
        )*

        /// Every metric there is.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        }),*];
    };
}

metrics! {
    DECISIONS = "traffik_decisions_total" Counter ["throttle", "outcome"]
        "Decisions, by what they were: `admitted`, `denied`, `never` (costs more than can ever be admitted), `withheld` (would have been admitted, but another limit of the same request denied: not charged), `failed` (the backend failed and the policy is to raise)";
    NEAR_LIMIT = "traffik_near_limit_total" Counter ["throttle"]
        "Hits that were admitted and left a tenth of the limit or less";
    DEGRADED = "traffik_degraded_total" Counter ["throttle", "by"]
        "Decisions without the primary backend: by a `fallback`, or by the error `policy`";
    SHADOW = "traffik_shadow_total" Counter ["throttle", "outcome"]
        "What throttles in shadow would have done: `admitted` and `denied` as it was, `newly_denied`, `newly_admitted`, `withheld` (another limit denied: not charged)";
    SECONDS = "traffik_decision_seconds" Histogram ["throttle"]
        "How long decisions took that were made outside of this process, failures included and queues not";
    WAITING = "traffik_waiting" Gauge ["throttle"]
        "Hits that wait for their turn";
    IN_FLIGHT = "traffik_in_flight" Gauge ["limit"]
        "Permits of limits on how many are in flight at a time, as held by this process";
    IN_FLIGHT_WAITING = "traffik_in_flight_waiting" Gauge ["limit"]
        "Those who wait until fewer are in flight";
    IN_FLIGHT_OUTCOMES = "traffik_in_flight_outcomes_total" Counter ["limit", "outcome"]
        "What became of those who asked to be in flight: `admitted` at once, or having `waited`, or `degraded` (its Redis could not be asked, and the policy is to admit); refused since it is `busy`, since there is `no_room` to wait, after a wait `in_vain`, or since its Redis `failed`; or `gave_up` before that was known";
    IN_FLIGHT_LOST = "traffik_in_flight_lost_total" Counter ["limit"]
        "Leases of this process that Redis no longer knew of (it forgot, or the process could not renew them in time) and that began anew";
    IN_FLIGHT_EXPIRED = "traffik_in_flight_expired_total" Counter ["limit"]
        "Leases of any process that ended since nobody renewed them (it crashed, or was cut off), as found by this one";
    BREAKER = "traffik_breaker_state" Gauge ["breaker"]
        "Circuit breakers: 0 is closed, 1 half open, 2 open; of several of one name the worst";
    TRANSITIONS = "traffik_breaker_transitions_total" Counter ["breaker", "to"]
        "How often circuit breakers became `closed`, `half_open` or `open`";
    OUTAGES = "traffik_outages" Gauge ["of"]
        "Backends that fail at present, of a `throttle` that decides by its error policy, or with a `fallback`";
    LOSSES = "traffik_state_losses_total" Counter []
        "Counts that a Redis had lost and that were restored";
    LEASE_LOCAL = "traffik_lease_local_total" Counter []
        "Hits on leased limits that were decided without asking the store";
    LEASE_TRIPS = "traffik_lease_trips_total" Counter []
        "How often the store was asked for leases, or beside them";
    LEASE_LENT = "traffik_lease_lent_total" Counter []
        "Units of cost that were lent";
    LEASE_RETURNED = "traffik_lease_returned_total" Counter []
        "Units of cost that were given back";
    LEASE_STRANDED = "traffik_lease_stranded_total" Counter []
        "Units of cost whose lease ended before they were spent";
    LEASE_VOID = "traffik_lease_void_total" Counter []
        "Units of cost that were worth nothing any more, after a loss or a reset";
    LEASE_HELD = "traffik_lease_held" Gauge []
        "Units of cost that are held at present";
}

/// Bounds for [`traffik_decision_seconds`](self), in seconds, for recorders that want to be told: from a tenth of
/// a millisecond to the longest deadline.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Tells the recorder what each metric is, for the texts that it shows beside them. Call it once, after the recorder
/// was installed.
pub fn describe() {
    for metric in ALL {
        let Metric { name, help, .. } = *metric;
        match metric.kind {
            Kind::Counter => describe_counter!(name, help),
            Kind::Gauge => describe_gauge!(name, help),
            Kind::Histogram => describe_histogram!(name, Unit::Seconds, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one table that users read, and what is registered.
    #[test]
    fn the_table_and_the_metrics_said_different_things() {
        let rows = ALL.iter().map(|metric| {
            let labels: Vec<_> = metric
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let Metric { name, help, .. } = metric;
            format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
        });
        let expected: String = rows.collect();
        let table = include_str!("metrics/table.md");
        let (_, written) = table.split_once("|---|---|---|---|\n").unwrap();
        assert!(written == expected, "it should be:\n{expected}");
    }
}
