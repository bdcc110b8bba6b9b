//! Tables of a file, asked for one key after the other.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use traffik_core::__private::nearest;
use traffik_core::Rate;

use super::document::{Key, Mistake, Mistakes, Node, Place, Read, Value};

/// A table whose keys are asked for one after the other; those that nobody asked for are mistakes. It keeps the mistakes in it.
pub(super) struct Table<'a> {
    /// What it is, for messages.
    pub(super) what: String,
    pub(super) place: Option<Place>,
    entries: &'a [(Key, Node)],
    known: RefCell<Vec<&'static str>>,
    /// Those of the whole file.
    mistakes: &'a Mistakes,
    is_mistaken: Cell<bool>,
}

/// A text and where it stands.
pub(super) type Text<'a> = (&'a str, Option<Place>);

impl<'a> Table<'a> {
    pub(super) fn new(
        what: String,
        place: Option<Place>,
        entries: &'a [(Key, Node)],
        mistakes: &'a Mistakes,
    ) -> Self {
        Table {
            what,
            place,
            entries,
            known: RefCell::default(),
            mistakes,
            is_mistaken: Cell::default(),
        }
    }

    /// A table of the same file.
    pub(super) fn another(
        &self,
        what: String,
        place: Option<Place>,
        entries: &'a [(Key, Node)],
    ) -> Self {
        Table::new(what, place, entries, self.mistakes)
    }

    /// Tells that something about it as a whole is wrong.
    pub(super) fn refuse(&self, what: impl fmt::Display) {
        self.tell(self.mistake(what));
    }

    /// Tells a mistake in it.
    pub(super) fn tell(&self, mistake: Mistake) {
        self.is_mistaken.set(true);
        self.mistakes.add(mistake);
    }

    /// What was read. If there was a mistake in it, that is told, and it is nothing.
    pub(super) fn note<T>(&self, read: Read<T>) -> Option<T> {
        read.map_err(|mistake| self.tell(mistake)).ok()
    }

    /// Whether a mistake in it was told.
    pub(super) fn is_mistaken(&self) -> bool {
        self.is_mistaken.get()
    }

    /// That something about the table as a whole is wrong.
    pub(super) fn mistake(&self, what: impl fmt::Display) -> Mistake {
        Mistake::at(self.place, format!("{}: {what}", self.what))
    }

    pub(super) fn get(&self, key: &'static str) -> Option<&'a Node> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let mut entries = self.entries.iter();
        entries
            .find(|(known, _)| known.text == key)
            .map(|(_, node)| node)
    }

    /// A text, if it is one, without asking for it.
    pub(super) fn peek(&self, key: &str) -> Option<&'a str> {
        let mut entries = self.entries.iter();
        match entries.find(|(known, _)| known.text == key) {
            Some((
                _,
                Node {
                    value: Value::Text(text),
                    ..
                },
            )) => Some(text),
            _ => None,
        }
    }

    /// That the value of a key cannot be read, and why.
    pub(super) fn unreadable(
        &self,
        key: &str,
        at: Option<Place>,
        why: impl fmt::Display,
    ) -> Mistake {
        Mistake::at(at, format!("`{key}` of {}: {why}", self.what))
    }

    /// That the value of a key is not what it must be.
    pub(super) fn wrong(&self, key: &str, node: &Node, must: &str) -> Mistake {
        let is = shown(key, node);
        Mistake::at(
            node.place,
            format!("`{key}` of {} must be {must}, not {is}", self.what),
        )
    }

    /// Whether it has a key, be its value right or wrong.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, if it is there. One that is not what it must be is told.
    fn value<T>(
        &self,
        key: &'static str,
        must: &str,
        read: impl FnOnce(&'a Node) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let value = read(node);
        if value.is_none() {
            self.tell(self.wrong(key, node, must));
        }
        value
    }

    pub(super) fn text(&self, key: &'static str, must: &str) -> Option<Text<'a>> {
        self.value(key, must, |node| match &node.value {
            Value::Text(text) if !text.trim().is_empty() => Some((text.as_str(), node.place)),
            _ => None,
        })
    }

    /// Refuses that a key is not there.
    pub(super) fn require(&self, key: &'static str, must: &str) {
        if !self.has(key) {
            self.refuse(format!("`{key}` is missing: {must}"));
        }
    }

    /// Refuses that two keys are there which say the same.
    pub(super) fn either(&self, one: &'static str, other: &'static str) {
        if let (Some(node), true) = (self.get(one), self.has(other)) {
            let what = format!(
                "{} has both `{one}` and `{other}`: leave one out",
                self.what
            );
            self.tell(Mistake::at(node.place, what));
        }
    }

    pub(super) fn required_text(&self, key: &'static str, must: &str) -> Option<Text<'a>> {
        self.require(key, must);
        self.text(key, must)
    }

    pub(super) fn number<T: FromStr + PartialOrd>(
        &self,
        key: &'static str,
        of: RangeInclusive<T>,
        must: &str,
    ) -> Option<T> {
        self.value(key, must, |node| match &node.value {
            Value::Whole(number) => number.parse().ok().filter(|number| of.contains(number)),
            _ => None,
        })
    }

    pub(super) fn count(&self, key: &'static str) -> Option<u32> {
        let must = "a whole number from 0 to 4294967295";
        self.number(key, 0..=u32::MAX, must)
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        self.value(key, "true or false", |node| match &node.value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        let must = "a duration such as \"500ms\" or \"2 hours\"";
        self.value(key, must, |node| match &node.value {
            Value::Text(text) => Rate::parse_period(text).ok(),
            _ => None,
        })
    }

    /// One of these words.
    pub(super) fn choice<T: Clone>(&self, key: &'static str, of: &[(&str, T)]) -> Option<T> {
        self.value(key, &any_of(of), |node| {
            let is_it = |word: &str| matches!(&node.value, Value::Text(text) if text == word);
            let (_, choice) = of.iter().find(|(word, _)| is_it(word))?;
            Some(choice.clone())
        })
    }

    pub(super) fn required_choice<T: Clone>(
        &self,
        key: &'static str,
        of: &[(&str, T)],
    ) -> Option<T> {
        self.require(key, &any_of(of));
        self.choice(key, of)
    }

    /// A text, or a list of different texts; nothing if the key is not there.
    pub(super) fn texts(&self, key: &'static str, must: &str) -> Vec<Text<'a>> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let all = match &node.value {
            Value::List(all) => all.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if all.is_empty() {
            let what = format!(
                "`{key}` of {} is empty: leave it out, or say {must}",
                self.what
            );
            self.tell(Mistake::at(node.place, what));
        }
        let mut texts: Vec<Text<'a>> = Vec::new();
        for one in all {
            match &one.value {
                Value::Text(text) if texts.iter().any(|(other, _)| other == text) => {
                    let what = format!("`{key}` of {} has {} twice", self.what, shown(key, one));
                    self.tell(Mistake::at(one.place, what));
                }
                Value::Text(text) if !text.trim().is_empty() => texts.push((text, one.place)),
                _ => self.tell(self.wrong(key, one, must)),
            }
        }
        texts
    }

    /// A table in the table.
    pub(super) fn table(&self, key: &'static str, must: &str) -> Option<&'a [(Key, Node)]> {
        self.value(key, must, |node| match &node.value {
            Value::Table(entries) if !entries.is_empty() => Some(entries.as_slice()),
            _ => None,
        })
    }

    /// The tables in the table of this key, by name: `[throttle.api]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<(&'a str, &'a Node, Table<'a>)> {
        let Some(node) = self.get(key) else {
            return Vec::new();
        };
        let Value::Table(all) = &node.value else {
            let must = format!("a table of tables, written `[{key}.NAME]`");
            self.tell(self.wrong(key, node, &must));
            return Vec::new();
        };
        let each = all.iter().map(|(name, node)| match &node.value {
            Value::Table(entries) => {
                let what = format!("{key} `{}`", name.text);
                Ok((
                    name.text.as_str(),
                    node,
                    self.another(what, name.place, entries),
                ))
            }
            _ => {
                let what = format!(
                    "a {key} is a table with a name: write `[{key}.NAME]`, and below it `{} = ..`",
                    name.text
                );
                Err(Mistake::at(name.place, what))
            }
        });
        each.filter_map(|one| self.note(one)).collect()
    }

    /// Keys that were not asked for.
    pub(super) fn others(&self) -> Vec<(&'a Key, &'a Node)> {
        let known = self.known.borrow();
        let others = self.entries.iter();
        let others = others.filter(|(key, _)| !known.contains(&key.text.as_str()));
        others.map(|(key, node)| (key, node)).collect()
    }

    /// What was probably meant by a key that is not there.
    pub(super) fn meant(&self, key: &str) -> Option<&'static str> {
        nearest(key, self.known.borrow().iter().copied())
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn finish(&self) {
        for (key, _) in self.others() {
            let hint = match self.meant(&key.text) {
                Some(near) => format!(", did you mean `{near}`?"),
                None => format!("; it has {}", self.known.borrow().join(", ")),
            };
            let what = format!("{} has no key `{}`{hint}", self.what, key.text);
            self.tell(Mistake::at(key.place, what));
        }
    }
}

/// `"a", "b" or "c"`.
fn any_of<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<String> = choices
        .iter()
        .map(|(word, _)| format!("{word:?}"))
        .collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// A value in a message. What may have a password in it is not shown.
pub(super) fn shown(key: &str, node: &Node) -> String {
    match &node.value {
        Value::Text(text)
            if ["url", "secret", "master"]
                .iter()
                .any(|of| key.starts_with(of))
                || text.contains("://") =>
        {
            "this text, which may be secret".to_owned()
        }
        Value::Text(text) => format!("{text:?}"),
        Value::Whole(number) | Value::Fraction(number) => number.clone(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(all) if all.is_empty() => "an empty list".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        Value::Other(what) => (*what).to_owned(),
    }
}

/// That a name is not there, and which was probably meant. Names are told in their order.
pub(super) fn unknown<'n>(
    kind: &str,
    name: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> String {
    let mut all: Vec<&str> = known.into_iter().collect();
    all.sort_unstable();
    let hint = match nearest(name, all.iter().copied()) {
        Some(near) => format!(", did you mean `{near}`?"),
        None if all.is_empty() => "; there is none".to_owned(),
        None => format!("; there are {}", all.join(", ")),
    };
    match name.contains("://") {
        true => format!("there is no {kind} of this name, which may be secret{hint}"),
        false => format!("there is no {kind} `{name}`{hint}"),
    }
}
