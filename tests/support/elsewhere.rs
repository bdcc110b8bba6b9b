use tokio::task::{spawn_blocking, yield_now};

/// Does something on another thread, as in life: this one goes on, and when it is done has learnt of
/// connections that ended meanwhile.
pub(crate) async fn elsewhere<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    let done = spawn_blocking(task).await.unwrap();
    // On a busy machine this thread had no turn until now. The first turn is given to the sockets,
    // the next to the tasks that they wake.
    for _ in 0..3 {
        yield_now().await;
    }
    done
}
