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
pub(super) async fn tend<B: Backend>(inner: Weak<Inner<B>>) {
    let _tended = Tended(Weak::clone(&inner));
    for look in 1_u32.. {
        tokio::time::sleep(EVERY).await;
        let Some(inner) = inner.upgrade() else {
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
            return;
        }
    }
}

/// When the task ends, perhaps with its runtime, the next question begins another.
struct Tended<B>(Weak<Inner<B>>);

impl<B> Drop for Tended<B> {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.is_tended.store(false, Ordering::Release);
        }
    }
}
