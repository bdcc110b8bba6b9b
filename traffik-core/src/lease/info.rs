use super::holding::Tally;

/// What a [`Leased`](super::Leased) backend has done since it was made, clones included. Amounts are
/// in units of cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeaseInfo {
    /// How many hits were decided without asking the store, denials included.
    pub local: u64,
    /// How often the store was asked: for hits, for leases, or to give something back.
    pub trips: u64,
    /// How much was lent.
    pub lent: u64,
    /// How much of it was given back.
    pub returned: u64,
    /// How much of it ended before it was spent: nobody else could have it while it was held.
    pub stranded: u64,
    /// How much of it was worth nothing any more, since the store did not know of it or was reset.
    pub void: u64,
    /// How much is held at present.
    pub held: u64,
}

impl LeaseInfo {
    pub(super) fn of(tally: &Tally, held: u64, trips: u64) -> LeaseInfo {
        LeaseInfo {
            local: tally.local,
            trips,
            lent: tally.lent,
            returned: tally.returned,
            stranded: tally.stranded,
            void: tally.void,
            held,
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.local += other.local;
        self.lent += other.lent;
        self.returned += other.returned;
        self.stranded += other.stranded;
        self.void += other.void;
    }
}
