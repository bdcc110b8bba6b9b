//! Throttles that meet the same requests.

use std::sync::{Arc, OnceLock};

use actix_web::http::header::HeaderValue;
use smallvec::SmallVec;

use crate::response::headers::joined;
use crate::throttle::{HttpThrottle, WeakThrottle};

/// What can be said once and for all about throttles that meet the same requests.
#[derive(Debug)]
pub(crate) struct Company {
    /// All but the first, which keeps this.
    others: SmallVec<[WeakThrottle; 2]>,
    policies: HeaderValue,
    is_plain: bool,
}

impl Company {
    fn of(all: &[&HttpThrottle]) -> Company {
        let policies = all.iter().map(|one| one.usual_policy().clone());
        let others = all[1..].iter().map(|one| one.downgrade());
        Company {
            policies: joined(policies),
            others: others.collect(),
            is_plain: all.iter().all(|one| one.is_plain()) && count_apart(all),
        }
    }

    /// Their usual policies as one list.
    pub(crate) fn policies(&self) -> &HeaderValue {
        &self.policies
    }

    /// Whether they ask for nothing but who it is, in the same way on the same backend, and limit
    /// everybody who is not exempt, each on a count of its own.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    #[inline]
    fn is_of(&self, all: &[&HttpThrottle]) -> bool {
        let mut others = self.others.iter().zip(&all[1..]);
        all.len() == self.others.len() + 1 && others.all(|(one, other)| one.is(other))
    }
}

fn count_apart(all: &[&HttpThrottle]) -> bool {
    let is_namesake = |(at, one): (usize, &&HttpThrottle)| {
        let mut earlier = all[..at].iter();
        earlier.any(|other| one.throttle().is_namesake_of(other.throttle()))
    };
    !all.iter().enumerate().any(is_namesake)
}

/// The companies in which a throttle is the first: rules of a middleware meet in several ways, seldom in many.
/// Beyond these nothing is kept.
#[derive(Debug, Default)]
pub(super) struct Companies([OnceLock<Arc<Company>>; 4]);

impl Companies {
    /// The company of throttles, the first of which these belong to, unless it is in too many.
    #[inline]
    pub(super) fn of(&self, all: &[&HttpThrottle]) -> Option<&Arc<Company>> {
        let mut known = self.0.iter().map_while(OnceLock::get);
        known
            .find(|company| company.is_of(all))
            .or_else(|| self.meet(all))
    }

    #[cold]
    fn meet(&self, all: &[&HttpThrottle]) -> Option<&Arc<Company>> {
        let free = self.0.iter().find(|place| place.get().is_none())?;
        // If another thread was faster, this is about others, perhaps.
        let company = free.get_or_init(|| Arc::new(Company::of(all)));
        company.is_of(all).then_some(company)
    }
}
