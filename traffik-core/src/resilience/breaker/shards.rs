//! One breaker per shard, all with the settings of one.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use super::{BreakerInfo, BreakerState, Change, CircuitBreaker, Trial};

impl CircuitBreaker {
    /// The breaker of a shard. The one of a store that has no shards, 0, is this one itself.
    #[inline]
    pub(crate) fn of_shard(&self, shard: u64) -> Cow<'_, CircuitBreaker> {
        match shard {
            0 => Cow::Borrowed(self),
            shard => Cow::Owned(self.find_or_add(shard)),
        }
    }

    fn find_or_add(&self, shard: u64) -> CircuitBreaker {
        let find = |all: &[(u64, CircuitBreaker)]| {
            let found = all.iter().find(|(of, _)| *of == shard);
            found.map(|(_, breaker)| breaker.clone())
        };
        if let Some(known) = find(&self.shards()) {
            return known;
        }
        let inner = &*self.0;
        let mut all = inner.shards.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = find(&all) {
            return known;
        }
        let breaker = Self::from_settings(Arc::clone(&inner.settings), Some(shard));
        let mut trial = self.lock();
        let (own, of_shard) = match self.is_forced() {
            // Whoever forced all of them open did not know of this one.
            true => (None, breaker.open_for_good()),
            false if all.is_empty() => (self.leave_to_shards(&mut trial), None),
            false => (None, None),
        };
        drop(trial);
        all.push((shard, breaker.clone()));
        inner.is_sharded.store(true, Ordering::Release);
        // Hooks may ask the breaker.
        drop(all);
        self.announce(own, None);
        breaker.announce(of_shard, None);
        breaker
    }

    /// Nobody asks it any more: what failed while no shard was known, or was asked then and fails later, opens
    /// nothing that would ever be closed.
    fn leave_to_shards(&self, trial: &mut Trial) -> Option<Change> {
        let change = self.change(trial, BreakerState::Closed);
        self.begin(BreakerState::Closed);
        change
    }

    pub(super) fn of_each_shard(&self, act: fn(&CircuitBreaker)) {
        // Copied first, since hooks may ask the breaker.
        let all: Vec<_> = self.shards().iter().map(|(_, one)| one.clone()).collect();
        all.iter().for_each(act);
    }

    pub(super) fn worst_state(&self, own: BreakerState) -> BreakerState {
        let shards = self.shards();
        let all = shards.iter().map(|(_, breaker)| breaker.own_state());
        all.chain([own])
            .max_by_key(|state| state.badness())
            .unwrap_or(own)
    }

    pub(super) fn sum_of_infos(&self, own: BreakerInfo) -> BreakerInfo {
        self.shards().iter().fold(own, |sum, (_, breaker)| {
            let one = breaker.own_info();
            let worst = match one.state.badness() > sum.state.badness() {
                true => one,
                false => sum,
            };
            BreakerInfo {
                opened_total: sum.opened_total + one.opened_total,
                failed_total: sum.failed_total + one.failed_total,
                refused_total: sum.refused_total + one.refused_total,
                ..worst
            }
        })
    }

    fn shards(&self) -> RwLockReadGuard<'_, Vec<(u64, CircuitBreaker)>> {
        // Consistent between statements.
        self.0.shards.read().unwrap_or_else(PoisonError::into_inner)
    }
}
