use std::borrow::Cow;
use std::time::Duration;

use super::ratio::Ratio;
use super::shares::{self, Share, Shares};
use super::{Details, Hit, Lua, Settlement, Sharing, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::span::mul_div;
use crate::time::{Timestamp, micros};

/// Divides one limit among the instances of a service by their weights.
///
/// All identities share the limit. Each active instance is guaranteed the part of it that its
/// weight is of the weights of all active ones; what an inactive instance does not need is lent. An
/// instance is active in a window if it was last admitted within that window, or within the
/// fairness window before its beginning. The instance is this strategy's own, or the
/// [identity's](crate::Identity::instance) if that names one.
///
/// At most [`MAX_INSTANCES`](DistributedFairness::MAX_INSTANCES) are told apart, lest clients that
/// choose their instance make the state grow: when there are as many, the ones that come on top are
/// one instance, with the share of one.
///
/// * **Bound**: the limit in each window of the rate's period, over all instances, hence
///   `limit × (⌈t ÷ period⌉ + 1)` in an interval of length *t*.
/// * **Guarantee**: an instance that was active when the window began gets its part of that
///   window, unless instances join that were not: these compete for what is lent, and their part is
///   kept from then on.
/// * **State**: one word and 32 bytes for each active instance, 2 KiB at most, kept until none is. A
///   hit takes time in proportion to their number.
/// * **Bursts**: what is not kept for others at once; the whole limit if nobody else is active.
/// * **Choose it** when instances compete for one upstream limit and none may starve. An instance
///   that was only ever denied is not known: its first hit competes for what is left.
///
/// ```
/// use traffik_core::{DistributedFairness, Identity, MemoryBackend, Throttle};
///
/// let backend = MemoryBackend::new();
/// let instance = |id| {
///     Throttle::builder("upstream")
///         .rate("10/minute")
///         .strategy(DistributedFairness::new(id))
///         .backend(backend.clone())
///         .build()
/// };
/// let (a, b) = (instance("a")?, instance("b")?);
/// let anybody = Identity::ANONYMOUS;
///
/// assert_eq!(a.hit_now(&anybody)?.remaining(), 9);
/// assert_eq!(b.hit_now(&anybody)?.remaining(), 4); // five of ten are kept for `a`
/// # Ok::<(), traffik_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DistributedFairness {
    instance: Cow<'static, str>,
    weight: Ratio,
    memory_us: u64,
}

impl DistributedFairness {
    /// How many active instances are told apart.
    pub const MAX_INSTANCES: usize = shares::MAX_PARTIES - 1;

    /// This instance's share, at a weight of 1 and a fairness window of a minute. The name must
    /// not be empty.
    pub fn new(instance: impl Into<Cow<'static, str>>) -> DistributedFairness {
        DistributedFairness {
            instance: instance.into(),
            weight: Ratio::ONE,
            memory_us: 60_000_000,
        }
    }

    /// Sets the weight of this instance, up to a thousand. It is kept in millionths.
    pub const fn weight(mut self, weight: f64) -> DistributedFairness {
        self.weight = Ratio::new(weight);
        self
    }

    /// Sets how long before a window an instance may have been admitted last to be active in it.
    pub const fn fairness_window(mut self, window: Duration) -> DistributedFairness {
        self.memory_us = micros(window);
        self
    }

    fn instance<'a>(&'a self, attributes: &'a Attributes) -> &'a str {
        attributes.instance.as_ref().unwrap_or(&self.instance)
    }

    fn shares<'a>(&self, cell: &Cell, hit: &'a Hit<'a>) -> Shares<'a> {
        Shares::of(
            cell,
            hit,
            self.memory_us,
            self.instance(hit.attributes),
            self.weight.ppm(),
            Share::Fair,
        )
    }
}

/// The part of `limit` that `weight` is of `total`.
fn fair(limit: u64, weight: u64, total: u64) -> u64 {
    match total {
        0 => 0,
        _ => mul_div(limit, weight, total).0,
    }
}

impl Strategy for DistributedFairness {
    fn id(&self) -> &'static str {
        "distributed_fairness"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let limit = u64::from(hit.rate.limit());
        let shares = self.shares(cell, hit);
        let decision = shares.decide(limit, |weight, total| fair(limit, weight, total));
        if decision.is_allowed() && hit.cost > 0 {
            shares.charge(cell);
        }
        decision
    }

    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        let (name, weight) = (self.instance(attributes), self.weight.ppm());
        let share = Share::Fair;
        Some(shares::lua(rate, cost, self.memory_us, name, weight, share))
    }

    /// A refund counts if it is of this window.
    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        self.shares(cell, hit).settle(cell, settlement)
    }

    fn settle_lua(
        &self,
        rate: &Rate,
        settlement: Settlement,
        attributes: &Attributes,
    ) -> Option<Lua> {
        let (name, weight) = (self.instance(attributes), self.weight.ppm());
        Some(shares::settle_lua(
            rate,
            settlement,
            self.memory_us,
            name,
            weight,
            Share::Fair,
        ))
    }

    fn sharing(&self) -> Sharing {
        Sharing::Everybody
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)?;
        if self.instance.is_empty() {
            return Err(Error::invalid("the name of an instance must not be empty"));
        }
        self.weight
            .validate("the weight of an instance", 0.000_001, 1_000.0)?;
        if !(1..=micros(Rate::MAX_PERIOD)).contains(&self.memory_us) {
            return Err(Error::invalid(
                "the fairness window is between 1 µs and 366 days",
            ));
        }
        Ok(())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let limit = u64::from(hit.rate.limit());
        let shares = self.shares(cell, hit);
        let peek = Hit { cost: 0, ..*hit };
        let available = self.step(&mut cell.clone(), &peek).remaining();
        let used = shares.me().used;
        Details::DistributedFairness(DistributedFairnessStat {
            instance_id: self.instance(hit.attributes).to_owned(),
            instance_weight_ppm: self.weight.ppm(),
            fair_share: fair(limit, self.weight.ppm(), shares.weight()),
            quantum: used.saturating_add(available),
            instance_usage: used,
            global_usage: shares.used(),
            active_instances: shares.len() as u64,
            window_start: Timestamp::from_micros(shares.start()),
        })
    }
}

/// What [`DistributedFairness`] knows about its instances.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DistributedFairnessStat {
    /// The instance that asks.
    pub instance_id: String,
    /// Its weight, in parts per million.
    pub instance_weight_ppm: u64,
    /// What it is guaranteed.
    pub fair_share: u64,
    /// What it may take in this window, what others lend included.
    pub quantum: u64,
    /// What it has taken.
    pub instance_usage: u64,
    /// What all have taken.
    pub global_usage: u64,
    /// How many instances are active, this one included.
    pub active_instances: u64,
    /// When the window began.
    pub window_start: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;
    use crate::identity::Attributes;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    fn at(instance: &'static str) -> Attributes {
        Attributes {
            instance: Some(instance.into()),
            ..Attributes::NONE
        }
    }

    #[test]
    fn is_lawful() {
        for window in [
            Duration::from_micros(1),
            Duration::from_secs(60),
            Rate::MAX_PERIOD,
        ] {
            let fairness = DistributedFairness::new("a")
                .weight(1.0 / 3.0)
                .fairness_window(window);
            Laws::of(&fairness, Bound::windows(|rate| rate.limit().into()))
                .asked_by([at("a"), at("b"), at("c")])
                .cases(128)
                .check();
        }
    }

    fn stat(trial: &Trial<'_>) -> DistributedFairnessStat {
        let Details::DistributedFairness(stat) = trial.details() else {
            panic!("it is distributed fairness");
        };
        stat
    }

    /// SPEC 3.17: one instance took 99 of 100, since what it left unused only raised its deficit.
    #[test]
    fn an_active_instance_gets_its_share_whoever_hammers() {
        let fairness = DistributedFairness::new("a");
        let mut trial = Trial::of(&fairness, "100/s");
        for instance in ["a", "b"] {
            trial.who = at(instance);
            assert_eq!(trial.admitted_of(1), 1);
        }
        trial.who = at("a");
        assert_eq!(trial.admitted_of(1_000), 49);
        assert_eq!(stat(&trial).fair_share, 50);
        trial.who = at("b");
        assert_eq!(trial.admitted_of(1_000), 49);
        assert_eq!(stat(&trial).global_usage, 100);

        // Also in the next window, in which `b` comes late.
        trial.advance(Duration::from_secs(1));
        trial.who = at("a");
        assert_eq!(trial.admitted_of(1_000), 50);
        trial.who = at("b");
        assert_eq!(trial.admitted_of(1_000), 50);
    }

    #[test]
    fn the_share_of_an_inactive_instance_is_lent() {
        let fairness = DistributedFairness::new("a").fairness_window(Duration::from_millis(1_500));
        let mut trial = Trial::of(&fairness, "100/s");
        trial.who = at("b");
        assert_eq!(trial.admitted_of(1), 1);
        trial.who = at("a");
        assert_eq!(trial.admitted_of(1_000), 50);
        // The window that begins a second later still knows `b`, the one after does not.
        assert_eq!(trial.hit(51).wait(), Duration::from_secs(2));
        trial.advance(Duration::from_secs(2));
        assert_eq!(trial.admitted_of(1_000), 100);
    }

    #[test]
    fn weights_divide() {
        let (small, large) = (
            DistributedFairness::new("small"),
            DistributedFairness::new("large").weight(3.0),
        );
        let mut trial = Trial::of(&small, "100/s");
        assert_eq!(trial.admitted_of(1), 1);
        trial.strategy = &large;
        assert_eq!(trial.admitted_of(1_000), 75);
        trial.strategy = &small;
        assert_eq!(trial.admitted_of(1_000), 24);
    }

    /// Whoever chooses an instance for each hit made the cell, and the time of each hit, grow.
    #[test]
    fn who_comes_on_top_of_too_many_instances_shares_one() {
        let fairness = DistributedFairness::new("a");
        let mut trial = Trial::of(&fairness, "64000/minute");
        for invented in 0..1_000 {
            trial.who = Attributes {
                instance: Some(format!("{invented}").into()),
                ..Attributes::NONE
            };
            assert_eq!(trial.admitted_of(1), 1);
            let known = (invented + 1).min(DistributedFairness::MAX_INSTANCES + 1);
            assert_eq!(stat(&trial).active_instances, known as u64);
        }
        assert_eq!(trial.cell.queue().unwrap().items().len(), 2 * 64);
        // Those who came first have what is theirs, the others one share together.
        trial.who = at("0");
        assert_eq!(stat(&trial).instance_usage, 1);
        trial.who = at("999");
        let together = 1_000 - DistributedFairness::MAX_INSTANCES as u64;
        assert_eq!(stat(&trial).instance_usage, together);
        assert_eq!(stat(&trial).fair_share, 64_000 / 64);

        // And nobody is admitted beyond the limit.
        let mut admitted = 1_000;
        for instance in ["0", "999", "b", "1", "998", "c"] {
            trial.who = at(instance);
            while trial.hit(100).is_allowed() {
                admitted += 100;
            }
            admitted += trial.admitted_of(100);
        }
        assert!(admitted <= 64_000, "{admitted}");
    }

    proptest! {
        /// The guarantee of the documentation, however the others hit.
        #[test]
        fn who_was_active_gets_its_share(
            weights in prop::array::uniform3(1..=10_u32),
            limit in prop::sample::select(vec!["30/s", "31/s", "97/s"]),
            hits in prop::collection::vec((0..3_usize, 1..20_u32), 1..120),
        ) {
            let names = ["a", "b", "c"];
            let instances = weights.map(|weight| {
                DistributedFairness::new("me").weight(weight.into())
            });
            let total: u32 = weights.iter().sum();
            let mut trial = Trial::of(&instances[0], limit);
            let limit = trial.rate.limit();
            for who in 0..3 {
                (trial.strategy, trial.who) = (&instances[who], at(names[who]));
                prop_assert!(trial.hit(1).is_allowed());
            }
            trial.advance(Duration::from_secs(1));
            let mut used = [0; 3];
            for (who, cost) in hits {
                (trial.strategy, trial.who) = (&instances[who], at(names[who]));
                let admitted = trial.hit(cost).is_allowed();
                prop_assert!(admitted || used[who] + cost > limit * weights[who] / total);
                if admitted {
                    used[who] += cost;
                }
            }
            prop_assert!(used.iter().sum::<u32>() <= limit);
        }
    }

    /// SPEC 3.17: the rate's period was ignored; `5/s` was 5 in each fairness window of a minute.
    #[test]
    fn windows_are_those_of_the_rate() {
        let fairness = DistributedFairness::new("a");
        let mut trial = Trial::of(&fairness, "5/s");
        assert_eq!(trial.admitted_of(9), 5);
        assert_eq!(trial.hit(1).wait(), Duration::from_secs(1));
        trial.advance(Duration::from_secs(1));
        assert_eq!(trial.admitted_of(9), 5);
    }

    #[test]
    fn refuses_the_nameless_and_the_weightless() {
        let rate = Rate::per_second(1);
        let fair = DistributedFairness::new;
        assert!(fair("").validate(&rate).is_err());
        assert!(fair("a").weight(0.0).validate(&rate).is_err());
        assert!(
            fair("a")
                .fairness_window(Duration::ZERO)
                .validate(&rate)
                .is_err()
        );
    }
}
