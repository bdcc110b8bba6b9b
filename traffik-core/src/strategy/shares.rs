//! One capacity that several parties share in windows of the rate's period, each with a guaranteed
//! share of it.
//!
//! A party may take whatever is not kept for the others. For each other *active* party its share
//! is kept, or what it has taken if that is more; the shares of all others are lent. So whoever is
//! active always gets its share, whoever is alone may take everything, and the whole is never
//! exceeded.
//!
//! A party is active in a window if it was last admitted within, or not long before, that window.
//! Nothing is known of a party that was only ever denied, since a denial changes nothing: its first
//! hit competes for what is left. From then on its share is kept, at the expense of whoever has not
//! taken theirs if others have borrowed it: what is promised is promised to those who were active
//! when the window began, in windows in which nobody joins them.
//!
//! The cell holds one word, the start of the window, and two pairs for each active party.
//!
//! Where parties are whoever says so, there may be [`MAX_PARTIES`] of them: the surplus is one party,
//! with one share. So a cell stays small whatever clients call themselves, and as this party's hits
//! are counted like any other's, the whole is not exceeded either.

use smallvec::SmallVec;

use super::settle::{self, CLOCK_SLACK_US, Settlement};
use super::{Hit, Lua, window};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::key::KeyHasher;
use crate::rate::Rate;
use crate::time::Timestamp;

/// How many parties are told apart at most, where their number is not limited otherwise, the one
/// of the surplus included. So does `shares.lua`.
pub(super) const MAX_PARTIES: usize = 64;

/// The label of the surplus; any other is a digest of 52 bits.
const SURPLUS: u64 = 0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    label: u64,
    /// When it was last admitted, in µs.
    seen: u64,
    pub(super) used: u64,
    pub(super) weight: u64,
}

/// Everybody who is active in the window of a hit, and who hits.
#[derive(Clone)]
pub(super) struct Shares<'a> {
    hit: &'a Hit<'a>,
    start: u64,
    /// How long before a window a party may have been admitted last to be active in it.
    memory_us: u64,
    parties: SmallVec<[Party; 8]>,
    me: usize,
}

impl<'a> Shares<'a> {
    pub(super) fn of(
        cell: &Cell,
        hit: &'a Hit<'a>,
        memory_us: u64,
        name: &str,
        weight: u64,
        share: Share,
    ) -> Shares<'a> {
        let (start, same) = match cell.words() {
            [start] => window::in_force(window::realigned(*start, hit), hit),
            _ => (window::aligned(hit), false),
        };
        let mut parties = SmallVec::<[Party; 8]>::new();
        for pairs in cell
            .queue()
            .map_or(&[][..], |queue| queue.items())
            .chunks_exact(2)
        {
            let [[label, seen], [used, weight]] = [pairs[0], pairs[1]];
            if same || seen.saturating_add(memory_us) >= start {
                parties.push(Party {
                    label,
                    seen,
                    used: if same { used } else { 0 },
                    weight,
                });
            }
        }
        let place = |label| parties.iter().position(|party| party.label == label);
        let mut label = KeyHasher::label(name);
        let mut me = place(label);
        if me.is_none() && share.is_open() && parties.len() + 1 >= MAX_PARTIES {
            label = SURPLUS;
            me = place(label);
        }
        let me = me.unwrap_or_else(|| {
            parties.push(Party {
                label,
                seen: 0,
                used: 0,
                weight,
            });
            parties.len() - 1
        });
        parties[me].weight = weight;
        Shares {
            hit,
            start,
            memory_us,
            parties,
            me,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn me(&self) -> &Party {
        &self.parties[self.me]
    }

    /// How many are active, who hits included.
    pub(super) fn len(&self) -> usize {
        self.parties.len()
    }

    pub(super) fn used(&self) -> u64 {
        self.parties
            .iter()
            .fold(0, |sum, party| sum.saturating_add(party.used))
    }

    pub(super) fn weight(&self) -> u64 {
        total_weight(self.parties.iter())
    }

    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.hit.rate.period_us())
    }

    /// How long the window lasts.
    pub(super) fn left(&self) -> u64 {
        let end = window::honest(self.start, self.hit) + self.hit.rate.period_us();
        end.saturating_sub(self.hit.now.as_micros())
    }

    /// As far ahead as it can honestly be, and whether it is further.
    fn honest(&self) -> (Shares<'a>, bool) {
        let mut honest = self.clone();
        honest.start = window::honest(self.start, self.hit);
        let now = self.hit.now.as_micros();
        let latest = now.saturating_add(self.hit.rate.period_us().max(CLOCK_SLACK_US));
        let mut is_ahead = honest.start != self.start;
        for party in honest.parties.iter_mut().filter(|one| one.seen > latest) {
            party.seen = now;
            is_ahead = true;
        }
        (honest, is_ahead)
    }

    /// Settles what this party has taken; a refund counts if it is of this window.
    pub(super) fn settle(&self, cell: &mut Cell, settlement: Settlement) -> bool {
        let (mut settled, is_ahead) = self.honest();
        let (used, now) = (self.me().used, self.hit.now);
        let me = &mut settled.parties[self.me];
        me.used = settlement.of_count(used, settle::elapsed(self.start, now), MOST);
        if me.used > used {
            me.seen = me.seen.max(now.as_micros());
        }
        let is_unaligned = cell.words().len() == 1 && window::is_unaligned(cell, self.hit);
        let changes = is_ahead || me.used != used || is_unaligned;
        if changes {
            settled.store(cell);
        }
        changes
    }

    /// What is kept for the others, if those in `others` are active: `share` tells the share of a
    /// weight among the sum of all.
    fn kept(
        &self,
        share: &impl Fn(u64, u64) -> u64,
        is_active: impl Fn(&Party) -> bool,
        used: impl Fn(&Party) -> u64,
    ) -> u64 {
        let others = || {
            let all = self.parties.iter().enumerate();
            all.filter(|(at, party)| *at != self.me && is_active(party))
                .map(|(_, party)| party)
        };
        let total = total_weight(others().chain([self.me()]));
        others().fold(0, |sum, party| {
            sum.saturating_add(share(party.weight, total).max(used(party)))
        })
    }

    /// Decides what may be taken of `limit`; charging it is up to the caller.
    pub(super) fn decide(&self, limit: u64, share: impl Fn(u64, u64) -> u64) -> Decision {
        let cost = u64::from(self.hit.cost);
        let now = self.hit.now.as_micros();
        let kept = self.kept(&share, |_| true, |party| party.used);
        let taken = self.me().used.saturating_add(kept);
        let left = self.left();
        let decision = window::decide(limit, taken, cost, left);
        if decision.retry_after().is_none() {
            return decision;
        }
        let ready = self.honest().0.ready(limit, &share);
        Decision::deny(limit, decision.remaining(), ready.saturating_sub(now)).resets_in(left)
    }

    /// The first window in which so few others are active that the cost fits.
    fn ready(&self, limit: u64, share: &impl Fn(u64, u64) -> u64) -> u64 {
        let mut starts: SmallVec<[u64; 8]> = self
            .parties
            .iter()
            .map(|party| self.inactive_from(party.seen))
            .chain([self.end()])
            .collect();
        starts.sort_unstable();
        let room = limit.saturating_sub(self.hit.cost.into());
        let fits = |start: &u64| {
            let is_active = |party: &Party| party.seen.saturating_add(self.memory_us) >= *start;
            self.kept(share, is_active, |_| 0) <= room
        };
        // In the last one nobody else is active.
        let last = starts.last().copied();
        let first = starts.into_iter().find(fits).or(last);
        first.unwrap_or_else(|| self.end())
    }

    /// The start of the first window, after this one, in which a party seen then is not active.
    fn inactive_from(&self, seen: u64) -> u64 {
        let period = self.hit.rate.period_us();
        let forgotten = seen.saturating_add(self.memory_us);
        let windows = forgotten.saturating_sub(self.start) / period + 1;
        self.start.saturating_add(windows.saturating_mul(period))
    }

    /// Charges the hit.
    pub(super) fn charge(mut self, cell: &mut Cell) {
        let me = &mut self.parties[self.me];
        me.used += u64::from(self.hit.cost);
        me.seen = me.seen.max(self.hit.now.as_micros());
        self.store(cell);
    }

    fn store(&self, cell: &mut Cell) {
        let queue = cell.queue_mut();
        while queue.pop().is_some() {}
        let mut expires = self.end();
        for party in &self.parties {
            queue.push([party.label, party.seen]);
            queue.push([party.used, party.weight]);
            expires = expires.max(self.inactive_from(party.seen));
        }
        cell.set(&[self.start], Timestamp::from_micros(expires));
    }
}

/// Which part of the limit is a party's share.
#[derive(Clone, Copy)]
pub(super) enum Share {
    /// What its weight is of the weights of all.
    Fair = 0,
    /// Its weight, in millionths.
    Part = 1,
    /// The same, and it gets no more.
    Fixed = 2,
}

impl Share {
    /// Whether anybody may be a party; regions are listed.
    fn is_open(self) -> bool {
        matches!(self, Share::Fair)
    }
}

/// No party is charged beyond this, so that sums of all are exact.
const MOST: u64 = 1 << 40;

/// [`Shares::settle`] for Redis.
pub(super) fn settle_lua(
    rate: &Rate,
    settlement: Settlement,
    memory_us: u64,
    name: &str,
    weight: u64,
    share: Share,
) -> Lua {
    let label = KeyHasher::label(name);
    let [is_refund, amount, age] = settlement.words();
    let (period, kind) = (rate.period_us(), share as u64);
    Lua::new(
        SETTLE_LUA,
        &[
            period, memory_us, label, weight, kind, is_refund, amount, age,
        ],
    )
}

pub(super) const SETTLE_LUA: &str = concat!(
    "local period, memory, label, weight, kind_of_share, refund, amount, age =\n",
    "    unpack('>I8I8I8I8I8I8I8I8', arguments)\n",
    include_str!("shares_parties.lua"),
    include_str!("settle.lua"),
    include_str!("shares_settle.lua")
);

/// Deciding and charging for Redis.
pub(super) fn lua(
    rate: &Rate,
    cost: u32,
    memory_us: u64,
    name: &str,
    weight: u64,
    share: Share,
) -> Lua {
    let label = KeyHasher::label(name);
    let (cost, limit, period) = (cost.into(), rate.limit().into(), rate.period_us());
    Lua::new(
        LUA,
        &[cost, limit, period, memory_us, label, weight, share as u64],
    )
}

pub(super) const LUA: &str = concat!(
    "local cost, limit, period, memory, label, weight, kind_of_share =\n",
    "    unpack('>I8I8I8I8I8I8I8', arguments)\n",
    include_str!("shares_parties.lua"),
    include_str!("shares.lua")
);

fn total_weight<'a>(parties: impl Iterator<Item = &'a Party>) -> u64 {
    parties.fold(0, |sum, party| sum.saturating_add(party.weight))
}
