use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::table::Turn;
use super::{Concurrency, InFlight};

/// A place in the queue, which becomes an [`InFlight`] in its turn, and is given up when it is dropped.
pub(super) struct Place {
    limit: Concurrency,
    key: u128,
    /// Nothing when it is over.
    turn: Option<Arc<Turn>>,
}

impl Place {
    pub(super) fn new(limit: Concurrency, key: u128, turn: Arc<Turn>) -> Place {
        Place {
            limit,
            key,
            turn: Some(turn),
        }
    }
}

impl Future for Place {
    type Output = InFlight;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<InFlight> {
        match &self.turn {
            Some(turn) if turn.poll(cx.waker()).is_ready() => {
                self.turn = None;
                Poll::Ready(InFlight::of(self.limit.clone(), self.key, 0))
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let inner = &self.limit.0;
        if !inner.table.give_up(self.key, &turn, &inner.waiting) {
            // Its turn came, and nobody knows: the next one's it is.
            self.limit.release(self.key, 0);
        }
    }
}
