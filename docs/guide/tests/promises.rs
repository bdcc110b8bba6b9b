//! Promises name the tests that hold them to it.

use std::fs;
use std::path::Path;

use crate::pages;

const PAGE: &str = "docs/guide/pages/promises.md";

/// A row of the table: what is promised, and links to tests, each the name of a function and its file.
struct Promise<'a> {
    text: &'a str,
    tests: Vec<(&'a str, &'a str)>,
}

fn promises(page: &str) -> Vec<Promise<'_>> {
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| promise"));
    rows.map(|row| Promise {
        text: row.split('|').nth(1).unwrap_or_default().trim(),
        tests: tests(row),
    })
    .collect()
}

/// Of ``[`name`](file)``.
fn tests(row: &str) -> Vec<(&str, &str)> {
    let links = row.split("[`").skip(1);
    links
        .filter_map(|link| {
            let (name, rest) = link.split_once("`](")?;
            Some((name, rest.split_once(')')?.0))
        })
        .collect()
}

/// Whether a source has a test of this name: a function with an attribute above it that ends in `test`, or
/// one of `proptest!`, which has the same.
fn has_test(source: &str, name: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let above = before.rsplit_once('\n').map_or("", |(above, _)| above);
    let above = above.lines().rev();
    let mut attributes = above.map(str::trim).take_while(|line| {
        let is_comment = line.starts_with("//");
        is_comment || line.starts_with("#[") || line.ends_with(")]")
    });
    attributes.any(|line| line.starts_with("#[") && line.contains("test"))
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let path = pages::root().join(PAGE);
    let page = fs::read_to_string(&path).expect("the page");
    let promises = promises(&page);
    assert!(promises.len() > 20, "only {}", promises.len());
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut faults = Vec::new();
    for promise in promises {
        if promise.tests.is_empty() {
            faults.push(format!("no test: {}", promise.text));
        }
        for (name, file) in promise.tests {
            let source = fs::read_to_string(folder.join(file)).unwrap_or_default();
            if !has_test(&source, name) {
                faults.push(format!("{}: no test `{name}` in {file}", promise.text));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_function_that_is_no_test_holds_nothing() {
    let source = "/// Doc.\n#[actix_rt::test]\nasync fn held() {}\n\nfn not_held() {}\n\n    #[test]\n    fn inside() {}\n#[test]\nfn plain() {}";
    for name in ["held", "inside", "plain"] {
        assert!(has_test(source, name), "{name}");
    }
    assert!(!has_test(source, "not_held"));
    assert!(!has_test(source, "nothing"));
}
