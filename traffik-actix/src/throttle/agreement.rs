//! Throttles that share their counts.

use crate::request::scope::Scope;
use crate::throttle::{HttpThrottle, Settings};

impl HttpThrottle {
    /// That two throttles that may meet one request share a count, but not its rate: they would be one
    /// hit of both costs, under the rate of the first, and the other limit would not hold.
    ///
    /// # Panics
    ///
    /// If so.
    pub(crate) fn must_agree_with(&self, other: &HttpThrottle) {
        let (this, other) = (&*self.current(), &*other.current());
        let (one, two) = (&this.0, &other.0);
        let elsewhere = match (&one.backend, &two.backend) {
            (Some(one), Some(two)) => one.backend.store_id() != two.backend.store_id(),
            _ => false,
        };
        let same_rate =
            one.rate.is_none() && two.rate.is_none() && one.throttle.rate() == two.throttle.rate();
        assert!(
            !this.shares_counts_with(other) || elsewhere || same_rate,
            "{}",
            this.disagreement(other),
        );
    }

    /// Why two throttles cannot be meant that share their counts on a store but meet different requests: that
    /// nobody gave them their name, or if their rates differ and neither says that it is meant. Two functions may
    /// well be the same.
    pub(crate) fn quarrel_with(&self, other: &HttpThrottle) -> Option<String> {
        let (one, two) = (&self.0, &other.0);
        // Those of one handler are made once, whatever workers there are.
        if one.is_named_after_handler
            && two.is_named_after_handler
            && one.scope == Scope::Throttle
            && self.shares_counts_with(other)
        {
            return Some(format!(
                "two handlers are named `{}` and share the counts of their `#[throttle]`: give each a \
                 `name = ..`, or both the same if it is meant",
                self.name()
            ));
        }
        let is_meant = one.shares_counts || two.shares_counts;
        let differ =
            one.rate.is_some() != two.rate.is_some() || one.throttle.rate() != two.throttle.rate();
        (differ && !is_meant && self.shares_counts_with(other)).then(|| {
            format!(
                "{}, or say `.shares_counts()` if it is meant",
                self.disagreement(other)
            )
        })
    }

    /// Whether both keep the same counts where they share a backend, and are not one throttle at different
    /// times.
    fn shares_counts_with(&self, other: &HttpThrottle) -> bool {
        let (one, two) = (&self.0, &other.0);
        let is_one = one.origin.is_some() && one.origin == two.origin;
        one.throttle != two.throttle
            && !is_one
            && one.throttle.is_namesake_of(&two.throttle)
            && one.scope == two.scope
            && one.scope_by.is_some() == two.scope_by.is_some()
    }

    fn disagreement(&self, other: &HttpThrottle) -> String {
        format!(
            "two throttles are named `{}` and share their counts, but not their rates ({} and {}), so \
             that one limit would not hold: give them different names",
            self.name(),
            self.0.rate_in_words(),
            other.0.rate_in_words(),
        )
    }
}

impl Settings {
    fn rate_in_words(&self) -> String {
        match self.rate {
            Some(_) => "that of a function".to_owned(),
            None => self.throttle.rate().to_string(),
        }
    }
}
