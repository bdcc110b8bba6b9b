use std::borrow::Cow;

use super::ratio::Ratio;
use super::{Details, Hit, Lent, Loan, Lua, Settlement, Strategy, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::error::{Error, Result};
use crate::identity::Attributes;
use crate::rate::Rate;
use crate::time::Timestamp;

/// A [`FixedWindow`](crate::FixedWindow) whose limit is a multiple of the rate's, by the
/// [tier](crate::Identity::tier) of who asks.
///
/// By default `free` gets the limit, `premium` five and `enterprise` ten times as much. Who has no
/// tier gets the default tier; a tier that is not listed gets the limit itself.
///
/// ```
/// use traffik_core::{Identity, MemoryBackend, Throttle, TieredRate};
///
/// let throttle = Throttle::builder("api")
///     .rate("2/minute")
///     .strategy(TieredRate::new().tier("premium", 2.5))
///     .backend(MemoryBackend::new())
///     .build()?;
/// let (ann, ben) = (Identity::of("ann").tier("premium"), Identity::of("ben"));
/// assert_eq!(throttle.hit_now(&ann)?.limit(), 5);
/// assert_eq!(throttle.hit_now(&ben)?.limit(), 2);
/// # Ok::<(), traffik_core::Error>(())
/// ```
///
/// * **Bound**: twice the tier's limit in any period, as of a fixed window:
///   `⌊limit × multiplier⌋ × (⌈t ÷ period⌉ + 1)` in an interval of length *t*.
/// * **State**: two words, start of the window and count. There is one count for each identity,
///   not for each tier: who changes tiers keeps what was taken, under the new limit.
/// * **Bursts**: the tier's limit at once.
/// * **Choose it** when plans differ in how much, not in how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TieredRate {
    tiers: Cow<'static, [Tier]>,
    default_tier: Cow<'static, str>,
}

type Tier = (Cow<'static, str>, Ratio);

static DEFAULT_TIERS: [Tier; 3] = [
    (Cow::Borrowed("free"), Ratio::new(1.0)),
    (Cow::Borrowed("premium"), Ratio::new(5.0)),
    (Cow::Borrowed("enterprise"), Ratio::new(10.0)),
];

impl TieredRate {
    /// The three tiers above, `free` being the default.
    pub const fn new() -> TieredRate {
        TieredRate {
            tiers: Cow::Borrowed(&DEFAULT_TIERS),
            default_tier: Cow::Borrowed("free"),
        }
    }

    /// Replaces all tiers by others, with their multipliers from 0 to a million.
    pub fn tiers<N: Into<Cow<'static, str>>>(
        mut self,
        tiers: impl IntoIterator<Item = (N, f64)>,
    ) -> TieredRate {
        self.tiers = Cow::Owned(Vec::new());
        for (name, multiplier) in tiers {
            self = self.tier(name, multiplier);
        }
        self
    }

    /// Adds a tier, or changes its multiplier, from 0 to a million. It is kept in millionths.
    pub fn tier(mut self, name: impl Into<Cow<'static, str>>, multiplier: f64) -> TieredRate {
        let (name, multiplier) = (name.into(), Ratio::new(multiplier));
        let tiers = self.tiers.to_mut();
        match tiers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = multiplier,
            None => tiers.push((name, multiplier)),
        }
        self
    }

    /// Sets the tier of who has none; it must be one of the tiers. Default: `free`.
    pub fn default_tier(mut self, name: impl Into<Cow<'static, str>>) -> TieredRate {
        self.default_tier = name.into();
        self
    }

    fn tier_of<'a>(&'a self, attributes: &'a Attributes) -> &'a str {
        attributes.tier.as_ref().unwrap_or(&self.default_tier)
    }

    fn multiplier(&self, tier: &str) -> Ratio {
        let known = self.tiers.iter().find(|(name, _)| name == tier);
        known.map_or(Ratio::ONE, |(_, multiplier)| *multiplier)
    }

    fn limit(&self, rate: &Rate, attributes: &Attributes) -> u64 {
        self.multiplier(self.tier_of(attributes))
            .of(rate.limit().into())
    }
}

impl Default for TieredRate {
    fn default() -> Self {
        TieredRate::new()
    }
}

impl Strategy for TieredRate {
    fn id(&self) -> &'static str {
        "tiered_rate"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        window::step(cell, hit, self.limit(hit.rate, hit.attributes))
    }

    fn counts(&self) -> bool {
        true
    }

    fn grows(&self) -> bool {
        true
    }

    fn ordered(&self) -> bool {
        true
    }

    fn lua(&self, rate: &Rate, cost: u32, attributes: &Attributes) -> Option<Lua> {
        Some(window::lua(rate, cost, self.limit(rate, attributes)))
    }

    fn settle(&self, cell: &mut Cell, hit: &Hit<'_>, settlement: Settlement) -> bool {
        window::settle(cell, hit, settlement)
    }

    fn settle_lua(&self, rate: &Rate, settlement: Settlement, _: &Attributes) -> Option<Lua> {
        Some(window::settle_lua(rate, settlement))
    }

    fn lends(&self, _rate: &Rate, _cost: u32) -> bool {
        true
    }

    fn lend(&self, cell: &mut Cell, hit: &Hit<'_>, loan: &Loan) -> (Decision, Lent) {
        window::lend(cell, hit, loan, self.limit(hit.rate, hit.attributes))
    }

    fn lend_lua(
        &self,
        rate: &Rate,
        cost: u32,
        loan: &Loan,
        attributes: &Attributes,
    ) -> Option<Lua> {
        let limit = self.limit(rate, attributes);
        Some(window::lend_lua(rate, cost, loan, limit))
    }

    fn validate(&self, rate: &Rate) -> Result<()> {
        window::has_length(rate)?;
        for (name, multiplier) in &*self.tiers {
            multiplier.validate(&format!("the multiplier of tier `{name}`"), 0.0, 1e6)?;
        }
        if self
            .tiers
            .iter()
            .any(|(name, _)| *name == self.default_tier)
        {
            return Ok(());
        }
        let names: Vec<_> = self.tiers.iter().map(|(name, _)| &**name).collect();
        Err(Error::invalid(format!(
            "the default tier `{}` must be one of the tiers: {}",
            self.default_tier,
            names.join(", ")
        )))
    }

    fn details(&self, cell: &Cell, hit: &Hit<'_>) -> Details {
        let (start, count) = window::count(cell, hit);
        let tier = self.tier_of(hit.attributes);
        Details::TieredRate(TieredRateStat {
            tier: tier.to_owned(),
            tier_multiplier_ppm: self.multiplier(tier).ppm(),
            effective_limit: self.limit(hit.rate, hit.attributes),
            current_count: count,
            window_id: start / hit.rate.period_us(),
            window_start: Timestamp::from_micros(start),
        })
    }
}

/// What a [`TieredRate`] knows about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TieredRateStat {
    /// The tier of who asks.
    pub tier: String,
    /// Its multiplier, in parts per million.
    pub tier_multiplier_ppm: u64,
    /// The rate's limit times the multiplier, rounded down.
    pub effective_limit: u64,
    /// What was taken in the window.
    pub current_count: u64,
    /// How many periods since the epoch the window begins.
    pub window_id: u64,
    /// When the window began.
    pub window_start: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Verdict;
    use crate::identity::{Attributes, Identity};
    use crate::strategy::trial::Trial;
    use crate::testing::laws::{Bound, Laws};

    fn of_tier(tier: &'static str) -> Attributes {
        Attributes {
            tier: Some(tier.into()),
            ..Attributes::NONE
        }
    }

    #[test]
    fn is_lawful_in_each_tier() {
        let tiered = TieredRate::new().tier("trial", 0.29).tier("blocked", 0.0);
        for (tier, millionths) in [
            ("free", 1_000_000),
            ("enterprise", 10_000_000),
            ("trial", 290_000),
            ("blocked", 0),
            ("unknown", 1_000_000),
        ] {
            let bound =
                Bound::windows(move |rate| u64::from(rate.limit()) * millionths / 1_000_000);
            Laws::of(&tiered, bound)
                .asked_by([of_tier(tier)])
                .cases(64)
                .check();
        }
    }

    #[test]
    fn is_lawful_when_tiers_change() {
        let bound = Bound::windows(|rate| u64::from(rate.limit()) * 10);
        Laws::of(&TieredRate::new(), bound)
            .asked_by([of_tier("enterprise"), of_tier("free"), Attributes::NONE])
            .check();
    }

    /// SPEC 3.20: the tier was read out of the key, which holds what the client chose.
    #[test]
    fn nobody_gets_a_tier_by_their_name_or_path() {
        let tiered = TieredRate::new();
        let mut trial = Trial::of(&tiered, "1/s");
        for forged in ["/x/tier:enterprise:", "frontier:premium", "tier:premium"] {
            trial.who = Identity::of(forged).attributes().clone();
            assert_eq!(trial.hit(0).limit(), 1, "{forged}");
        }
        trial.who = of_tier("premium");
        assert_eq!(trial.hit(0).limit(), 5);
    }

    #[test]
    fn a_tier_of_nothing_never_passes() {
        let tiered = TieredRate::new().tier("blocked", 0.0);
        let mut trial = Trial::of(&tiered, "9/s");
        trial.who = of_tier("blocked");
        assert_eq!(trial.hit(1).verdict(), Verdict::Never);
    }

    #[test]
    fn refuses_tiers_that_make_no_sense() {
        let rate = Rate::per_second(1);
        let complaint = |tiered: TieredRate| tiered.validate(&rate).unwrap_err().to_string();
        assert_eq!(
            complaint(TieredRate::new().default_tier("fre")),
            "the default tier `fre` must be one of the tiers: free, premium, enterprise"
        );
        assert_eq!(
            complaint(TieredRate::new().tier("vip", f64::NAN)),
            "the multiplier of tier `vip` must be a number from 0 to 1000000, not something else"
        );
        let none: [(&str, f64); 0] = [];
        assert!(TieredRate::new().tiers(none).validate(&rate).is_err());
        assert!(
            TieredRate::new()
                .tiers([("a", 1.0)])
                .default_tier("a")
                .validate(&rate)
                .is_ok()
        );
    }
}
