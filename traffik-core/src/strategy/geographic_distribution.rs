use std::borrow::Cow;

use super::ratio::Ratio;
use super::shares::{self, Share, Shares};
use super::{Details, Hit, Lua, Settlement, Sharing, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// Divides one limit among [regions](crate::Identity::region), by fixed parts.
///
/// All identities share the limit; each region has a count of its own. With spillover, as by
/// default, a region may take more than its part as far as nothing is kept for others: what is
/// kept is the parts of the regions that were active in this window or in the one before. Without,
/// a region's part is all it gets.
///
/// Who has no region counts towards the default region, and so does a region that is not listed. If
/// the default region is not listed either, its part is nothing.
///
/// ```
/// use traffik_core::{GeographicDistribution, Identity, MemoryBackend, Throttle};
///
/// let throttle = Throttle::builder("api")
///     .rate("10/minute")
///     .strategy(
///         GeographicDistribution::new()
///             .regions([("eu", 0.6), ("us", 0.4)])
///             .allow_spillover(false),
///     )
///     .backend(MemoryBackend::new())
///     .build()?;
/// let ann = Identity::of("ann").region("eu");
/// assert_eq!(throttle.hit_now(&ann)?.remaining(), 5);
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// * **Bound**: the limit in each window of the rate's period, over all regions, hence
///   `limit × (⌈t ÷ period⌉ + 1)` in an interval of length *t*; without spillover also the region's
///   part of it, for a region.
/// * **Guarantee**: a region that was active in the window before gets its part of this one, unless
///   regions join that were not: these compete for what is left over, and their part is kept from
///   then on. Without spillover every region gets its part.
/// * **State**: one word and 32 bytes for each active region, kept until none is.
/// * **Bursts**: what a region may take, at once.
/// * **Choose it** when no region may crowd out the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GeographicDistribution {
    regions: Cow<'static, [Region]>,
    spillover: bool,
    default_region: Cow<'static, str>,
}

type Region = (Cow<'static, str>, Ratio);

static DEFAULT_REGIONS: [Region; 1] = [(Cow::Borrowed("default"), Ratio::ONE)];

impl GeographicDistribution {
    /// One region, `default`, that has everything, and spillover.
    pub const fn new() -> GeographicDistribution {
        GeographicDistribution {
            regions: Cow::Borrowed(&DEFAULT_REGIONS),
            spillover: true,
            default_region: Cow::Borrowed("default"),
        }
    }

    /// Replaces all regions by others, with the part of the limit that each has. Together they
    /// have 1 at most. Parts are kept in millionths.
    pub fn regions<N: Into<Cow<'static, str>>>(
        mut self,
        regions: impl IntoIterator<Item = (N, f64)>,
    ) -> GeographicDistribution {
        self.regions = regions
            .into_iter()
            .map(|(name, part)| (name.into(), Ratio::new(part)))
            .collect();
        self
    }

    /// Sets whether a region may take what is not kept for others. Default: yes.
    pub const fn allow_spillover(mut self, allow: bool) -> GeographicDistribution {
        self.spillover = allow;
        self
    }

    /// Sets the region of who has none that is listed. Default: `default`.
    pub fn default_region(mut self, name: impl Into<Cow<'static, str>>) -> GeographicDistribution {
        self.default_region = name.into();
        self
    }

    fn part(&self, name: &str) -> Option<Ratio> {
        let known = self.regions.iter().find(|(known, _)| known == name);
        known.map(|(_, part)| *part)
    }

    /// The region of the hit, and its part.
    fn region(&self, attributes: &Attributes) -> (&str, Ratio) {
        let named = attributes
            .region
            .as_ref()
            .and_then(|region| self.regions.iter().find(|(known, _)| known == region));
        match named {
            Some((name, part)) => (name, *part),
            None => {
                let part = self.part(&self.default_region);
                (&self.default_region, part.unwrap_or(Ratio::new(0.0)))
            }
        }
    }

    fn shares<'a>(&self, cell: &Cell, hit: &'a Hit<'a>) -> Shares<'a> {
        let (name, part) = self.region(hit.attributes);
        let (memory_us, share) = (hit.rate.period_us(), self.share());
        Shares::of(cell, hit, memory_us, name, part.ppm(), share)
    }

    fn share(&self) -> Share {
        match self.spillover {
            true => Share::Part,
            false => Share::Fixed,
        }
    }
}

impl Default for GeographicDistribution {
    fn default() -> Self {
        GeographicDistribution::new()
    }
}

impl Strategy for GeographicDistribution {
    fn id(&self) -> &'static str {
        "geographic_distribution"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let limit = u64::from(hit.rate.limit());
        let shares = self.shares(cell, hit);
        let decision = if self.spillover {
            shares.decide(limit, |part, _| Ratio::of_ppm(part, limit))
        } else {
            // Rounded to millionths, parts that add up to one may exceed it by a hair.
            let part = Ratio::of_ppm(shares.me().weight, limit);
            let rest = limit.saturating_sub(shares.used() - shares.me().used);
            let free = part.min(rest).saturating_sub(shares.me().used);
            window::decide(part, part - free, hit.cost.into(), shares.left())
        };
        if decision.is_allowed() && hit.cost > 0 {
            shares.charge(cell);
        }
        decision
    }

    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        let (name, part) = self.region(attributes);
        let (memory_us, weight) = (rate.period_us(), part.ppm());
        Some(shares::lua(
            rate,
            cost,
            memory_us,
            name,
            weight,
            self.share(),
        ))
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
        let (name, part) = self.region(attributes);
        Some(shares::settle_lua(
            rate,
            settlement,
            rate.period_us(),
            name,
            part.ppm(),
            self.share(),
        ))
    }

    fn sharing(&self) -> Sharing {
        Sharing::Everybody
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)?;
        for (name, part) in &*self.regions {
            part.validate(&format!("the part of region `{name}`"), 0.0, 1.0)?;
        }
        let sum: u64 = self.regions.iter().map(|(_, part)| part.ppm()).sum();
        if sum > Ratio::ONE.ppm() {
            return Err(Error::invalid(format!(
                "the parts of all regions are at most 1 together, not {sum} millionths"
            )));
        }
        Ok(())
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let limit = u64::from(hit.rate.limit());
        let shares = self.shares(cell, hit);
        let (name, part) = self.region(hit.attributes);
        let used = shares.me().used;
        Details::GeographicDistribution(GeographicDistributionStat {
            region: name.to_owned(),
            region_multiplier_ppm: part.ppm(),
            region_limit: part.of(limit),
            region_count: used,
            spillover_count: used.saturating_sub(part.of(limit)),
            total_count: shares.used(),
            allow_spillover: self.spillover,
            window_id: shares.start() / hit.rate.period_us(),
            window_start: Timestamp::from_micros(shares.start()),
        })
    }
}

/// What a [`GeographicDistribution`] knows about its regions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct GeographicDistributionStat {
    /// The region that asks.
    pub region: String,
    /// Its part of the limit, in parts per million.
    pub region_multiplier_ppm: u64,
    /// Its part of the limit, rounded down.
    pub region_limit: u64,
    /// What it has taken in the window.
    pub region_count: u64,
    /// How much of that is beyond its part.
    pub spillover_count: u64,
    /// What all regions have taken.
    pub total_count: u64,
    /// Whether a region may take what is not kept for others.
    pub allow_spillover: bool,
    /// How many periods since the epoch the window begins.
    pub window_id: u64,
    /// When the window began.
    pub window_start: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;
    use crate::identity::Attributes;
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    fn from(region: &'static str) -> Attributes {
        Attributes {
            region: Some(region.into()),
            ..Attributes::NONE
        }
    }

    fn three_regions() -> GeographicDistribution {
        GeographicDistribution::new().regions([("us", 0.6), ("eu", 0.3), ("asia", 0.1)])
    }

    fn everywhere() -> [Attributes; 5] {
        [
            from("us"),
            from("eu"),
            from("asia"),
            from("moon"),
            Attributes::NONE,
        ]
    }

    #[test]
    fn is_lawful() {
        for spillover in [true, false] {
            let geographic = three_regions().allow_spillover(spillover);
            Laws::of(&geographic, Bound::windows(|rate| rate.limit().into()))
                .asked_by(everywhere())
                .check();
        }
    }

    #[test]
    fn a_region_keeps_to_its_part_without_spillover() {
        let geographic = three_regions()
            .allow_spillover(false)
            .default_region("asia");
        let part = Bound::windows(|rate| u64::from(rate.limit()) * 3 / 10);
        Laws::of(&geographic, part).asked_by([from("eu")]).check();
        let part = Bound::windows(|rate| u64::from(rate.limit()) / 10);
        Laws::of(&geographic, part)
            .asked_by([from("asia"), from("moon"), Attributes::NONE])
            .check();
    }

    proptest! {
        /// The guarantee of the documentation, however the others hit.
        #[test]
        fn who_was_active_gets_its_part(
            spillover: bool,
            limit in prop::sample::select(vec!["10/s", "13/s", "60/s"]),
            hits in prop::collection::vec((0..3_usize, 1..9_u32), 1..120),
        ) {
            let geographic = three_regions().allow_spillover(spillover);
            let mut trial = Trial::of(&geographic, limit);
            let limit = trial.rate.limit();
            let regions = [("us", 6), ("eu", 3), ("asia", 1)];
            for (region, _) in regions {
                trial.who = from(region);
                prop_assert!(trial.hit(1).is_allowed());
            }
            trial.advance(Duration::from_secs(1));
            let mut used = [0; 3];
            for (who, cost) in hits {
                let (region, tenths) = regions[who];
                trial.who = from(region);
                let admitted = trial.hit(cost).is_allowed();
                prop_assert!(admitted || used[who] + cost > limit * tenths / 10);
                if admitted {
                    used[who] += cost;
                }
            }
            prop_assert!(used.iter().sum::<u32>() <= limit);
        }
    }

    /// SPEC 3.18: every user had regions of their own, and spillover saw only its own region: a
    /// lone region got 80 of 100.
    #[test]
    fn a_lone_region_may_take_everything_and_then_makes_room() {
        let geographic = three_regions();
        let mut trial = Trial::of(&geographic, "100/s");
        trial.who = from("us");
        assert_eq!(trial.admitted_of(200), 100);
        let Details::GeographicDistribution(stat) = trial.details() else {
            panic!("it is a geographic distribution");
        };
        assert_eq!((stat.region_count, stat.spillover_count), (100, 40));

        trial.advance(Duration::from_secs(1));
        trial.who = from("eu");
        // What `us`, active until now, is guaranteed is kept.
        assert_eq!(trial.admitted_of(200), 40);
        trial.who = from("us");
        assert_eq!(trial.admitted_of(200), 60);
    }

    /// SPEC 3.18: what was denied was counted as spilt.
    #[test]
    fn a_denied_hit_spills_nothing() {
        let geographic = three_regions();
        let mut trial = Trial::of(&geographic, "10/s");
        for region in ["us", "eu"] {
            trial.who = from(region);
            assert_eq!(trial.admitted_of(1), 1);
        }
        assert_eq!(trial.admitted_of(500), 3);
        trial.who = from("us");
        assert_eq!(trial.admitted_of(500), 5);
    }

    /// SPEC 3.18: 0.2 + 0.4 + 0.3 + 0.1 is more than 1 in floats.
    #[test]
    fn parts_that_add_up_to_one_are_accepted() {
        let rate = Rate::per_second(1);
        let regions = |parts: [f64; 4]| {
            GeographicDistribution::new()
                .regions(["a", "b", "c", "d"].into_iter().zip(parts))
                .validate(&rate)
        };
        assert!(regions([0.2, 0.4, 0.3, 0.1]).is_ok());
        assert!(regions([0.2, 0.4, 0.3, 0.100_001]).is_err());
        assert!(regions([-0.2, 0.4, 0.3, 0.1]).is_err());
    }
}
