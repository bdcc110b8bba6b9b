//! Links lead somewhere.

use std::fs;
use std::path::Path;

use crate::pages::{self, Page};

/// What is wrong about a link, if anything is. Other hosts are not asked.
fn fault(page: &Page, target: &str) -> Option<String> {
    let says = |what: &str| Some(format!("{}: `{target}` {what}", page.path.display()));
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = page.path.parent().unwrap_or(Path::new("."));
    let path = match file {
        "" => page.path.clone(),
        file => folder.join(file),
    };
    let is_page = folder.ends_with("guide/pages");
    if is_page && file.starts_with("..") && file.ends_with(".md") {
        return says("is no page of the book, which would make an address of it that is not there");
    }
    if !path.exists() {
        return says("is not there");
    }
    if anchor.is_empty() {
        return None;
    }
    let there = pages::anchors(&fs::read_to_string(&path).ok()?).contains(anchor);
    if there {
        None
    } else {
        says("has no such heading")
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages::all();
    assert!(pages.len() > 10, "only {}", pages.len());
    let faults = pages.iter().flat_map(|page| {
        let targets = pages::targets(&page.text);
        targets
            .into_iter()
            .filter_map(|target| fault(page, &target))
    });
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// mdBook makes `.html` of every `.md`, also of those that are not in the book.
#[test]
fn a_link_out_of_the_book_that_the_book_would_break_is_found() {
    let page = Page {
        path: pages::root().join("docs/guide/pages/redis.md"),
        text: String::new(),
    };
    assert!(fault(&page, "../../DESIGN.md").is_some());
    for right in [
        "failures.md",
        "../../../vectors",
        "../../../examples/login.rs",
    ] {
        assert_eq!(fault(&page, right), None);
    }
}

#[test]
fn a_link_to_what_is_not_there_is_found() {
    let page = Page {
        path: pages::root().join("README.md"),
        text: "# Here\n".to_owned(),
    };
    let right = [
        "README.md",
        "docs/DESIGN.md#in-one-page",
        "https://example.com/nowhere",
        "docs",
    ];
    for target in right {
        assert_eq!(fault(&page, target), None);
    }
    for target in [
        "NOWHERE.md",
        "docs/DESIGN.md#nothing",
        "#nothing-of-that-name",
    ] {
        assert!(fault(&page, target).is_some(), "{target}");
    }
}
