//! A value that another thread will send, once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Waits for the value. `None` if the [`Resolver`] was dropped without one.
#[derive(Debug)]
pub(super) struct Promise<T>(Arc<Mutex<Slot<T>>>);

/// Sends the value.
#[derive(Debug)]
pub(super) struct Resolver<T>(Arc<Mutex<Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    Waiting(Waker),
    Resolved(Option<T>),
}

pub(super) fn promise<T>() -> (Resolver<T>, Promise<T>) {
    let slot = Arc::new(Mutex::new(Slot::Waiting(Waker::noop().clone())));
    (Resolver(Arc::clone(&slot)), Promise(slot))
}

impl<T> Resolver<T> {
    pub(super) fn resolve(self, value: T) {
        settle(&self.0, Some(value));
    }

    /// Whether nobody waits any more.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for Resolver<T> {
    fn drop(&mut self) {
        settle(&self.0, None);
    }
}

impl<T> Future for Promise<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut *lock(&self.0) {
            Slot::Waiting(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            Slot::Resolved(value) => Poll::Ready(value.take()),
        }
    }
}

fn settle<T>(slot: &Mutex<Slot<T>>, value: Option<T>) {
    let mut slot = lock(slot);
    if let Slot::Waiting(waker) = &*slot {
        let waker = waker.clone();
        *slot = Slot::Resolved(value);
        drop(slot);
        waker.wake();
    }
}

fn lock<T>(slot: &Mutex<Slot<T>>) -> MutexGuard<'_, Slot<T>> {
    // Nothing under this lock panics.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll<T>(promise: Pin<&mut Promise<T>>) -> Poll<Option<T>> {
        promise.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_value_arrives_from_another_thread() {
        let (resolver, promise) = promise();
        let mut promise = pin!(promise);
        assert_eq!(poll(promise.as_mut()), Poll::Pending);
        std::thread::spawn(move || resolver.resolve(7))
            .join()
            .unwrap();
        assert_eq!(poll(promise.as_mut()), Poll::Ready(Some(7)));
    }

    #[test]
    fn each_side_learns_that_the_other_is_gone() {
        let (resolver, waiting) = promise::<()>();
        drop(resolver);
        assert_eq!(poll(pin!(waiting)), Poll::Ready(None));

        let (resolver, waiting) = promise::<()>();
        assert!(!resolver.is_abandoned());
        drop(waiting);
        assert!(resolver.is_abandoned());
    }
}
