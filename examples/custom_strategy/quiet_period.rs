use traffik_core::strategy::Lua;
use traffik_core::{Attributes, Cell, Decision, Hit, Rate, Strategy, Timestamp};

/// As many hits as the limit says; then nothing until a whole period after the last of them, however often
/// somebody tries. Whoever leaves a period between two hits is never stopped.
///
/// * **Bound**: the limit, once for every period that an interval holds, and once more.
/// * **State**: two words, when it is quiet again and what was taken since it last was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuietPeriod;

impl Strategy for QuietPeriod {
    fn id(&self) -> &'static str {
        "quiet_period"
    }

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let (now, cost) = (hit.now.as_micros(), u64::from(hit.cost));
        let (limit, period) = (u64::from(hit.rate.limit()), hit.rate.period_us());
        let (quiet, taken) = match *cell.words() {
            [quiet, taken] if now < quiet => (quiet, taken),
            _ => (now, 0),
        };
        let left = limit.saturating_sub(taken);
        match cost {
            0 => Decision::allow(limit, left).resets_in(quiet - now),
            _ if cost > limit => Decision::never(limit, left).resets_in(quiet - now),
            _ if cost > left => Decision::deny(limit, left, quiet - now),
            _ => {
                let quiet = quiet.max(now + period); // the clock may have stepped back
                cell.set(&[quiet, taken + cost], Timestamp::from_micros(quiet));
                Decision::allow(limit, left - cost).resets_in(quiet - now)
            }
        }
    }

    /// Optional: without it Redis is asked twice for each hit, to read the cell and to write it.
    fn lua(&self, rate: &Rate, cost: u32, _attributes: &Attributes) -> Option<Lua> {
        const LUA: &str = "
            local cost, limit, period = unpack('>I8I8I8', arguments)
            local quiet, taken = words(2)
            if not quiet or now >= quiet then
              quiet, taken = now, 0
            end
            if cost <= limit - taken then
              quiet = math.max(quiet, now + period)
              take(quiet, quiet, taken + cost)
            end
        ";
        let (cost, limit) = (u64::from(cost), u64::from(rate.limit()));
        Some(Lua::new(LUA, &[cost, limit, rate.period_us()]))
    }
}
