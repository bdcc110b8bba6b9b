use std::cell::Cell as Place;
use std::sync::Arc;

use crate::backend::{Backend, Op};
use crate::cell::Cell;
use crate::decision::Decision;
use crate::strategy::{Hit, Strategy, same_strategy_as};

/// Leaves no more in a cell of `memory` than `decision` says there is, in one step: answers may
/// come in any order, from many threads, and the one that tells of the least counts.
pub(super) fn follow(memory: &dyn Backend, op: &Op<'_>, decision: &Decision) {
    if decision.is_unlimited() || decision.is_degraded() {
        return;
    }
    let has_taken = decision.is_allowed() && !decision.hides_denial();
    let admitted = if has_taken { op.cost } else { 0 };
    let follow = Follow::again(op.strategy, decision.remaining(), admitted);
    let strategy: Arc<dyn Strategy> = Arc::<Follow>::clone(&follow);
    let step = Op {
        strategy: &strategy,
        // Any but zero, which would leave the cell as it is.
        cost: 1,
        ..*op
    };
    // Memory that was closed has nothing to remember.
    let _ = memory.try_step(&step);
    drop(strategy);
    let _ = LAST.try_with(|last| last.set(Some(follow)));
}

thread_local! {
    /// That of the last decision of this thread, to be used again: a decision that did not have to be
    /// waited for should not have to allocate either. It keeps its strategy until then.
    static LAST: Place<Option<Arc<Follow>>> = const { Place::new(None) };
}

/// Takes from a cell what is beyond `remaining`.
#[derive(Debug)]
struct Follow {
    strategy: Arc<dyn Strategy>,
    remaining: u64,
    /// The cost of the hit that left so much.
    admitted: u32,
}

impl Follow {
    fn again(strategy: &Arc<dyn Strategy>, remaining: u64, admitted: u32) -> Arc<Follow> {
        let mut last = LAST.try_with(Place::take).ok().flatten();
        match last.as_mut().and_then(Arc::get_mut) {
            Some(follow) => {
                (follow.remaining, follow.admitted) = (remaining, admitted);
                // Their count is shared with other threads.
                if !Arc::ptr_eq(&follow.strategy, strategy) {
                    follow.strategy = Arc::clone(strategy);
                }
            }
            // Or memory has kept it.
            None => last = None,
        }
        last.unwrap_or_else(|| {
            Arc::new(Follow {
                strategy: Arc::clone(strategy),
                remaining,
                admitted,
            })
        })
    }
}

impl Strategy for Follow {
    same_strategy_as!(strategy);

    fn step(&self, cell: &mut Cell, hit: &Hit<'_>) -> Decision {
        let take = |cell: &mut Cell, cost| self.strategy.step(cell, &Hit { cost, ..*hit });
        let known = take(cell, 0).remaining();
        let spent = u32::try_from(known.saturating_sub(self.remaining)).unwrap_or(u32::MAX);
        if spent == 0 {
            return Decision::deny(0, 0, 0);
        }
        // A post-paid hit may take more than there is, and leaves a debt that `remaining` does not
        // tell. Any other that leaves nothing does not fit into less than it took.
        if self.remaining == 0 && self.admitted > spent {
            let indebted = take(cell, self.admitted);
            if indebted.is_allowed() && !indebted.hides_denial() {
                return indebted;
            }
        }
        take(cell, spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::{FixedWindow, SlidingWindowLog};

    /// A memory that is full had another kind of overflow for whom it followed first.
    #[test]
    fn a_full_memory_is_told_of_the_strategy_that_is_followed() {
        let strategies: [Arc<dyn Strategy>; 2] =
            [Arc::new(FixedWindow), Arc::new(SlidingWindowLog::new())];
        for strategy in strategies {
            let follow = Follow {
                strategy: Arc::clone(&strategy),
                remaining: 0,
                admitted: 1,
            };
            assert_eq!(follow.ordered(), strategy.ordered());
        }
    }
}
