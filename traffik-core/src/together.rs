use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// What futures come to that run at once, in the order in which they were given.
///
/// All are polled whenever one wakes up: meant for a few.
pub(crate) async fn together<F: Future + Unpin>(
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|one| (Some(one), None)).collect();
    poll_fn(|context| {
        for (future, output) in &mut running {
            if let Some(pending) = future
                && let Poll::Ready(ready) = Pin::new(pending).poll(context)
            {
                (*future, *output) = (None, Some(ready));
            }
        }
        match running.iter().all(|(future, _)| future.is_none()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
