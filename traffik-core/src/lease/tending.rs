//! What is given back without anybody hitting.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Inner;
use super::errand::Errand;
use crate::backend::Backend;

/// How often it is looked at what is held: a third of what is left before the end.
const EVERY: Duration = Duration::from_millis(20);

/// After how many of these looks the metrics are told: a second.
const TELLING: u32 = 50;

/// Gives back what is left of leases, until nothing is held any more or the backend is gone.
pub(super) async fn tend<B: Backend>(mut tended: Tended<B>) {
    for look in 1_u32.. {
        tokio::time::sleep(EVERY).await;
        let Some(inner) = tended.0.upgrade() else {
            return;
        };
        if inner.table.is_closed() {
            return;
        }
        let (parts, is_needed) = inner.table.tend();
        for part in parts {
            let inner = Arc::clone(&inner);
            tokio::spawn(async move { inner.run(Errand::of(part)).await });
        }
        if !is_needed || look.is_multiple_of(TELLING) {
            inner.meters.tell(|| inner.info());
        }
        if !is_needed {
            match tended.end(&inner) {
                Some(again) => tended = again,
                None => return,
            }
        }
    }
}

/// That a task gives back what is left. When it ends, perhaps with its runtime and before it began, the next
/// question begins another.
pub(super) struct Tended<B>(Weak<Inner<B>>);

impl<B> Tended<B> {
    /// Unless there is one.
    pub(super) fn begin(inner: &Arc<Inner<B>>) -> Option<Tended<B>> {
        let is_tended = inner.is_tended.swap(true, Ordering::AcqRel);
        (!is_tended).then(|| Tended(Arc::downgrade(inner)))
    }

    /// When nothing was hot any more. Begins anew if something has become so meanwhile: whoever asked for it
    /// found that there was a task.
    pub(super) fn end(self, inner: &Arc<Inner<B>>) -> Option<Tended<B>> {
        drop(self);
        match inner.table.is_any_hot() {
            true => Tended::begin(inner),
            false => None,
        }
    }
}

impl<B> Drop for Tended<B> {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            // Read as well as written, so that what was hot when it was found set is seen to be hot after this.
            inner.is_tended.swap(false, Ordering::AcqRel);
        }
    }
}
