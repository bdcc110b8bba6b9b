/// What a [`Concurrency`](crate::Concurrency) on a [backend](crate::ConcurrencyBuilder::backend) does while that
/// cannot be asked.
///
/// What is admitted in the meantime is told as soon as the backend answers again, before anything else is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOutage {
    /// Deny: protection before availability. The default.
    #[default]
    Deny,
    /// Admit everybody: availability before protection.
    Allow,
    /// Fail, with [`Busy::failure`](crate::Busy::failure); in HTTP a 503.
    Raise,
    /// Admit this process's share, if there are so many processes: the limit divided by them, rounded down, so that
    /// all together stay within it. What was admitted before counts. With fewer at a time than processes nobody is
    /// admitted.
    Share(u32),
}
