//! Tasks beside the requests, where there is a runtime to run them.

use std::time::Duration;

/// Whether there is a runtime here.
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(super) fn is_possible() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

/// Runs a task; only if that [is possible](is_possible).
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // It ends by itself, or with its runtime.
        drop(runtime.spawn(task));
    }
}

#[cfg(any(feature = "redis", feature = "tokio"))]
pub(super) async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}

/// What a future comes to within a time, for tasks.
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(super) fn is_possible() -> bool {
    false
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(task);
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(super) async fn pause(_: Duration) {}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(super) async fn within<T>(_: Duration, future: impl Future<Output = T>) -> Option<T> {
    Some(future.await)
}
