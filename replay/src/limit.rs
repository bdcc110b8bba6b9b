//! A limit as it is written on the command line.

use traffik_core::Rate;

use crate::line::Entry;

/// A rate, a strategy, and the requests it is for.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: String,
    pub(crate) rate: Rate,
    pub(crate) strategy: String,
    pub(crate) only: Only,
}

/// Which requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Only {
    /// What paths begin with.
    path: Option<String>,
    method: Option<String>,
}

impl Limit {
    /// `login=5/minute;token_bucket,burst=10;path=/login;method=POST`. Without a name the text is the name.
    pub(crate) fn parse(text: &str) -> Result<Limit, String> {
        let within = |error: String| format!("--limit {text:?}: {error}");
        let mut parts = text.split(';').map(str::trim);
        let first = parts.next().unwrap_or_default();
        let (name, rate) = first.split_once('=').unwrap_or((first, first));
        let rate = Rate::parse(rate).map_err(|error| within(error.to_string()))?;
        let (strategy, only) = rest(parts).map_err(within)?;
        let name = match name.trim() {
            "" => return Err(within("a name is missing before the `=`".to_owned())),
            name if name == first => text.trim().to_owned(),
            name => name.to_owned(),
        };
        Ok(Limit {
            name,
            rate,
            strategy,
            only,
        })
    }
}

impl Only {
    pub(crate) fn matches(&self, entry: &Entry<'_>) -> bool {
        let path = self
            .path
            .as_deref()
            .is_none_or(|path| entry.path.starts_with(path));
        let method = self.method.as_deref();
        path && method.is_none_or(|method| entry.method.eq_ignore_ascii_case(method))
    }
}

/// A strategy, by default the library's, and which requests.
pub(crate) fn rest<'a>(parts: impl Iterator<Item = &'a str>) -> Result<(String, Only), String> {
    let (mut strategy, mut only) = (None, Only::default());
    for part in parts {
        let slot = match part.split_once('=') {
            Some(("path", path)) if path.starts_with('/') => (&mut only.path, path),
            Some(("path", path)) => {
                return Err(format!("a path begins with a slash: path=/{path}"));
            }
            Some(("method", method)) => (&mut only.method, method),
            _ => (&mut strategy, part),
        };
        if slot.0.replace(slot.1.to_owned()).is_some() {
            return Err(format!("`{part}` was said before, otherwise"));
        }
    }
    let strategy = strategy.unwrap_or_else(|| "fixed_window".to_owned());
    traffik_core::strategy::named(&strategy).map_err(|error| error.to_string())?;
    Ok((strategy, only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let limit =
            Limit::parse("login=5/minute;token_bucket,burst=10;path=/login;method=POST").unwrap();
        assert_eq!((&*limit.name, limit.rate), ("login", Rate::per_minute(5)));
        assert_eq!(limit.strategy, "token_bucket,burst=10");
        assert_eq!(limit.only.path.as_deref(), Some("/login"));
        let plain = Limit::parse("100/minute").unwrap();
        assert_eq!(
            (&*plain.name, &*plain.strategy),
            ("100/minute", "fixed_window")
        );
        let gcra = Limit::parse("10/s;gcra").unwrap();
        assert_eq!((&*gcra.name, &*gcra.strategy), ("10/s;gcra", "gcra"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = [
            ("many", "rate"),
            ("=5/s", "a name is missing"),
            ("5/s;gcar", "did you mean `gcra`?"),
            ("5/s;path=login", "path=/login"),
            ("5/s;gcra;fixed_window", "was said before"),
        ];
        for (text, says) in wrong {
            let error = Limit::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
