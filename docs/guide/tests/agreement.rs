//! What the guide says a second time is what was said first.

use std::collections::BTreeSet;
use std::fs;

use crate::pages;

fn read(path: &str) -> String {
    fs::read_to_string(pages::root().join(path)).expect("the file is there")
}

/// The commands that a text permits: `+get` and the like.
fn commands(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '`');
    let permitted = words.filter(|word| word.len() > 1 && word.starts_with('+'));
    permitted.map(|word| word.replace('\\', "")).collect()
}

#[test]
fn the_guide_permits_what_the_documentation_of_redis_does() {
    let documented = read("traffik-core/src/backend/redis.rs");
    let table = documented.lines().filter(|line| line.starts_with("/// |"));
    let documented = commands(&table.collect::<Vec<_>>().join("\n"));
    assert!(documented.len() > 10, "{documented:?}");
    assert_eq!(commands(&read("docs/guide/pages/redis.md")), documented);
}

#[test]
fn every_feature_is_in_the_guide() {
    let manifest = read("traffik-actix/Cargo.toml");
    let (_, features) = manifest.split_once("[features]\n").expect("features");
    let features = features.lines().take_while(|line| !line.starts_with('['));
    let names = features.filter_map(|line| Some(line.split_once(" = ")?.0));
    let page = read("docs/guide/pages/first-limit.md");
    let mut seen = 0;
    for name in names.filter(|name| *name != "default" && !name.starts_with('#')) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
        seen += 1;
    }
    assert!(seen > 5, "only {seen}");
}
