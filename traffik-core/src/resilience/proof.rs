use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{Backend, Op};

/// Whether an admission says that the store is there. One by what was lent before does not, unless
/// the store has answered since it failed: see [`Backend::answers`].
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// How often the store had answered when it failed last, by shard.
    answers: [AtomicU64; Self::SHARDS],
}

impl Proofs {
    /// Of a store that has more shards some are taken for one.
    const SHARDS: usize = 16;

    /// The store has failed.
    pub(super) fn fail(&self, backend: &dyn Backend, ops: &[Op<'_>]) {
        for op in ops {
            if let Some(answers) = backend.answers(&op.key) {
                self.of(backend, op).fetch_max(answers, Ordering::Relaxed);
            }
        }
    }

    /// Hits were admitted without waiting.
    #[inline]
    pub(super) fn are_in(&self, backend: &impl Backend, ops: &[Op<'_>]) -> bool {
        let is_news = |op: &Op<'_>| match backend.answers(&op.key) {
            None => true,
            Some(answers) => answers > self.of(backend, op).load(Ordering::Relaxed),
        };
        ops.iter().all(is_news)
    }

    fn of(&self, backend: &dyn Backend, op: &Op<'_>) -> &AtomicU64 {
        let shard = backend.shard_of(&op.key) % Self::SHARDS as u64;
        #[expect(clippy::cast_possible_truncation, reason = "it is less than 16")]
        &self.answers[shard as usize]
    }
}
