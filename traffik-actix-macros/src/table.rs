//! What may be written in `#[throttle(..)]`: the arguments of every limit, the strategies and their
//! options. Every entry names a method of the builder it is given to.

/// An argument.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) about: About,
}

impl Key {
    /// About a rate.
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Key {
        let about = About::Rate;
        Key { name, kind, about }
    }

    const fn about(mut self, about: About) -> Key {
        self.about = about;
        self
    }
}

/// What an argument is about: how often, or how many at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Rate,
    InFlight,
    /// Means the same for both, if an attribute has both.
    Both,
    /// Means something else for each, so that an attribute which has both leaves open which is meant.
    Either,
}

/// What an argument takes. All but a [`Kind::Switch`] also take any expression of their type, which
/// is left to the compiler.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A text of printable ASCII.
    Name,
    /// A text such as `100/minute`.
    Rate,
    /// The name of one of [`STRATEGIES`].
    Strategy,
    /// A whole number of at least this.
    Count(u32),
    /// A whole number, which may be negative.
    Signed,
    /// A number, with or without a fraction.
    Number,
    /// A text such as `500ms`.
    Duration,
    /// Any text.
    Text,
    /// `true` calls the method, `false` does not.
    Switch,
    /// `true` or `false`, which the method takes.
    Bool,
    /// A text that names a variant of a type of `traffik-actix`.
    Choice(&'static Choice),
    /// A function or a closure.
    Function,
    /// The name of a time zone.
    Zone,
    /// Only an expression.
    Expression,
}

pub(crate) struct Choice {
    pub(crate) of: &'static str,
    pub(crate) variants: &'static [Variant],
}

/// Text and variant.
pub(crate) type Variant = (&'static str, &'static str);

/// The argument that says how many at a time.
pub(crate) const IN_FLIGHT: &str = "in_flight";

/// The arguments of every limit.
pub(crate) const KEYS: &[Key] = &[
    Key::new("name", Kind::Name).about(About::Both),
    Key::new("rate", Kind::Rate),
    Key::new("rate_by", Kind::Function),
    Key::new("rate_by_async", Kind::Function),
    Key::new(IN_FLIGHT, Kind::Count(1)).about(About::InFlight),
    Key::new("strategy", Kind::Strategy),
    Key::new("cost", Kind::Count(0)),
    Key::new("cost_by", Kind::Function),
    Key::new("cost_by_async", Kind::Function),
    Key::new("cost_after", Kind::Function),
    Key::new("refund_if", Kind::Function),
    Key::new("identify", Kind::Function).about(About::Both),
    Key::new("identify_async", Kind::Function).about(About::Both),
    Key::new("shared", Kind::Switch).about(About::Both),
    Key::new("shadow", Kind::Switch),
    Key::new("shadow_of", Kind::Text),
    Key::new("shadow_header", Kind::Switch),
    Key::new("scope", Kind::Choice(&SCOPE)),
    Key::new("scope_by", Kind::Function),
    Key::new("scope_by_async", Kind::Function),
    Key::new("min_wait", Kind::Duration),
    Key::new("wait_up_to", Kind::Duration).about(About::Either),
    Key::new("max_waiters", Kind::Count(1)).about(About::Either),
    Key::new("max_waiters_per_client", Kind::Count(1)).about(About::Either),
    Key::new("retry_after", Kind::Duration).about(About::InFlight),
    Key::new("on_error", Kind::Choice(&ON_ERROR)),
    Key::new("on_error_by", Kind::Function),
    Key::new("on_denied", Kind::Function).about(About::Either),
    Key::new("on_denied_async", Kind::Function).about(About::Either),
    Key::new("headers", Kind::Choice(&HEADERS)).about(About::Both),
    Key::new("header_style", Kind::Choice(&HEADER_STYLE)),
    Key::new("own_headers", Kind::Function),
    Key::new("backend", Kind::Expression).about(About::Either),
    Key::new("backend_by", Kind::Function),
    Key::new("backend_by_async", Kind::Function),
    Key::new("lease", Kind::Duration).about(About::InFlight),
    Key::new("on_outage", Kind::Choice(&ON_OUTAGE)).about(About::InFlight),
];

const SCOPE: Choice = Choice {
    of: "Scope",
    variants: &[
        ("throttle", "Throttle"),
        ("route", "Route"),
        ("path", "Path"),
    ],
};

const ON_ERROR: Choice = Choice {
    of: "OnError",
    variants: &[
        ("allow", "Allow"),
        ("throttle", "Throttle"),
        ("raise", "Raise"),
    ],
};

/// `Share` takes a number: an expression.
const ON_OUTAGE: Choice = Choice {
    of: "OnOutage",
    variants: &[("deny", "Deny"), ("allow", "Allow"), ("raise", "Raise")],
};

const HEADERS: Choice = Choice {
    of: "Headers",
    variants: &[
        ("always", "Always"),
        ("denied", "Denied"),
        ("never", "Never"),
    ],
};

const HEADER_STYLE: Choice = Choice {
    of: "HeaderStyle",
    variants: &[
        ("standard", "Standard"),
        ("x_rate_limit", "XRateLimit"),
        ("x_rate_limit_epoch", "XRateLimitEpoch"),
        ("legacy", "Legacy"),
        ("both", "Both"),
        ("none", "None"),
    ],
};

/// A strategy of `traffik-core`.
pub(crate) struct Strategy {
    /// What it is called in a text; the strategy's own id.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) of: &'static str,
    pub(crate) options: &'static [Key],
    /// The option that `new` takes, which is therefore required.
    pub(crate) new_takes: Option<&'static str>,
    /// Whether it admits the same to everybody at any time, so that a cost that is too high for one
    /// is too high for all.
    pub(crate) is_uniform: bool,
}

impl Strategy {
    pub(crate) fn named(name: &str) -> Option<&'static Strategy> {
        STRATEGIES.iter().find(|strategy| strategy.name == name)
    }
}

/// What a limit follows that names no strategy.
pub(crate) const DEFAULT_STRATEGY: &Strategy = &STRATEGIES[0];

/// The strategies that a text can name: all that `traffik-core` knows by name, in its order.
pub(crate) const STRATEGIES: &[Strategy] = &[
    Strategy {
        name: "fixed_window",
        of: "FixedWindow",
        options: &[],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "sliding_window_log",
        of: "SlidingWindowLog",
        options: &[],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "sliding_window_counter",
        of: "SlidingWindowCounter",
        options: &[],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "token_bucket",
        of: "TokenBucket",
        options: &[Key::new("burst", Kind::Count(1))],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "token_bucket_with_debt",
        of: "TokenBucketWithDebt",
        options: &[
            Key::new("burst", Kind::Count(1)),
            Key::new("max_debt", Kind::Count(0)),
        ],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "leaky_bucket",
        of: "LeakyBucket",
        options: &[],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "leaky_bucket_with_queue",
        of: "LeakyBucketWithQueue",
        options: &[],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "gcra",
        of: "Gcra",
        options: &[
            Key::new("burst_tolerance", Kind::Duration),
            Key::new("strict", Kind::Switch),
        ],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "tiered_rate",
        of: "TieredRate",
        options: &[
            Key::new("tiers", Kind::Expression),
            Key::new("default_tier", Kind::Text),
        ],
        new_takes: None,
        is_uniform: false,
    },
    Strategy {
        name: "adaptive_throttle",
        of: "AdaptiveThrottle",
        options: &[
            Key::new("load_threshold", Kind::Number),
            Key::new("reduction_factor", Kind::Number),
            Key::new("recovery_rate", Kind::Number),
            Key::new("min_limit_ratio", Kind::Number),
            Key::new("load", Kind::Expression),
        ],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "priority_queue",
        of: "PriorityQueue",
        options: &[
            Key::new("default_priority", Kind::Choice(&PRIORITY)),
            Key::new("max_queue_size", Kind::Count(1)),
        ],
        new_takes: None,
        is_uniform: false,
    },
    Strategy {
        name: "quota_with_rollover",
        of: "QuotaWithRollover",
        options: &[
            Key::new("rollover_percentage", Kind::Number),
            Key::new("max_rollover", Kind::Count(0)),
            Key::new("cumulative", Kind::Switch),
        ],
        new_takes: None,
        is_uniform: false,
    },
    Strategy {
        name: "time_of_day",
        of: "TimeOfDay",
        options: &[
            Key::new("windows", Kind::Expression),
            Key::new("windows_by_minute", Kind::Expression),
            Key::new("timezone_offset", Kind::Signed),
            Key::new("timezone_offset_minutes", Kind::Signed),
            Key::new("zone", Kind::Zone),
        ],
        new_takes: None,
        is_uniform: false,
    },
    Strategy {
        name: "calendar_window",
        of: "CalendarWindow",
        options: &[
            Key::new("week_starts_on", Kind::Choice(&WEEKDAY)),
            Key::new("month_starts_on", Kind::Count(1)),
            Key::new("timezone_offset", Kind::Signed),
            Key::new("timezone_offset_minutes", Kind::Signed),
            Key::new("zone", Kind::Zone),
        ],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "cost_based_token_bucket",
        of: "CostBasedTokenBucket",
        options: &[
            Key::new("burst", Kind::Count(1)),
            Key::new("cost_window", Kind::Count(1)),
            Key::new("min_refill_rate", Kind::Number),
        ],
        new_takes: None,
        is_uniform: true,
    },
    Strategy {
        name: "distributed_fairness",
        of: "DistributedFairness",
        options: &[
            Key::new("instance", Kind::Text),
            Key::new("weight", Kind::Number),
            Key::new("fairness_window", Kind::Duration),
        ],
        new_takes: Some("instance"),
        is_uniform: false,
    },
    Strategy {
        name: "geographic_distribution",
        of: "GeographicDistribution",
        options: &[
            Key::new("regions", Kind::Expression),
            Key::new("allow_spillover", Kind::Bool),
            Key::new("default_region", Kind::Text),
        ],
        new_takes: None,
        is_uniform: false,
    },
];

const PRIORITY: Choice = Choice {
    of: "Priority",
    variants: &[
        ("low", "Low"),
        ("normal", "Normal"),
        ("high", "High"),
        ("critical", "Critical"),
    ],
};

const WEEKDAY: Choice = Choice {
    of: "Weekday",
    variants: &[
        ("monday", "Monday"),
        ("tuesday", "Tuesday"),
        ("wednesday", "Wednesday"),
        ("thursday", "Thursday"),
        ("friday", "Friday"),
        ("saturday", "Saturday"),
        ("sunday", "Sunday"),
    ],
};

#[cfg(test)]
mod tests {
    use traffik_core::strategy;

    use super::*;

    #[test]
    fn knows_every_strategy_of_the_library_and_its_options() {
        let names: Vec<&str> = STRATEGIES.iter().map(|strategy| strategy.name).collect();
        assert_eq!(names, strategy::NAMES);
        for Strategy { name, options, .. } in STRATEGIES {
            // The library lists what it has when asked for what it has not.
            let error = strategy::named(&format!("{name},nothing=1")).unwrap_err();
            let error = error.to_string();
            let (_, known) = error.rsplit_once("it has ").unwrap();
            let known: Vec<&str> = known
                .split(", ")
                // Those that need a feature say so; a method of two arguments is no argument here.
                .map(|option| option.split(' ').next().unwrap_or(option))
                .filter(|option| !["none", "reserve"].contains(option))
                .collect();
            let ours: Vec<&str> = options
                .iter()
                .map(|option| option.name)
                // A gauge cannot be written down.
                .filter(|option| *option != "load")
                .collect();
            assert_eq!(known, ours, "{name}");
        }
    }
}
