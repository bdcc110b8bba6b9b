//! Tasks beside the requests, where there is a runtime to run them.

use std::time::Duration;

/// Whether there is a runtime here.
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(crate) fn is_possible() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

/// Runs a task; only if that [is possible](is_possible).
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // It ends by itself, or with its runtime.
        drop(runtime.spawn(task));
    }
}

/// What a task comes to, which goes on if nobody waits for that any more; nothing if its runtime ended.
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(crate) async fn to_its_end<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn(task).await.ok(),
        Err(_) => Some(task.await),
    }
}

#[cfg(any(feature = "redis", feature = "tokio"))]
pub(crate) async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}

/// What a future comes to within a time, for tasks.
#[cfg(any(feature = "redis", feature = "tokio"))]
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(crate) fn is_possible() -> bool {
    false
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(task);
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(crate) async fn to_its_end<T>(task: impl Future<Output = T>) -> Option<T> {
    Some(task.await)
}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(crate) async fn pause(_: Duration) {}

#[cfg(not(any(feature = "redis", feature = "tokio")))]
pub(crate) async fn within<T>(_: Duration, future: impl Future<Output = T>) -> Option<T> {
    Some(future.await)
}
