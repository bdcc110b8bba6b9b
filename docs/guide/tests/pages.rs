//! The texts of the repository, and what is in them besides prose.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// A text in Markdown.
pub(super) struct Page {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Where the repository is.
pub(super) fn root() -> &'static Path {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR"));
    guide.ancestors().nth(2).expect("the guide is two rooms in")
}

/// The texts of one folder.
fn folder(folder: &str) -> Vec<Page> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is there");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| Page {
        text: fs::read_to_string(&path).expect("it is text"),
        path,
    };
    paths.into_iter().map(read).collect()
}

/// All that people read.
pub(super) fn all() -> Vec<Page> {
    let folders = [".", "docs", "docs/guide/pages", "vectors", "fuzz"];
    folders.into_iter().flat_map(folder).collect()
}

/// The lines outside of code blocks.
pub(super) fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// A line with what is in backticks blotted out, so that `[a](b)` in there is no link.
fn without_code(line: &str) -> String {
    let mut parts = line.split('`');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for (at, part) in parts.enumerate() {
        out.push_str(if at % 2 == 0 { "code" } else { part });
    }
    out
}

/// Where the links and pictures of a text lead.
pub(super) fn targets(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(text) {
        let line = without_code(line);
        let inline = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        targets.extend(inline.map(str::to_owned));
        targets.extend(reference(&line).map(str::to_owned));
    }
    targets
}

/// The target of `[name]: target`.
fn reference(line: &str) -> Option<&str> {
    let (name, target) = line.strip_prefix('[')?.split_once("]: ")?;
    (!name.contains(']')).then(|| target.trim())
}

/// The anchors of a text's headings, as GitHub and mdBook name them.
pub(super) fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = HashMap::<String, usize>::new();
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let slug = slug(heading.trim_start_matches('#').trim());
            let times = seen.entry(slug.clone()).or_default();
            *times += 1;
            match *times {
                1 => slug,
                more => format!("{slug}-{}", more - 1),
            }
        })
        .collect()
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// Whether a text has code that a reader would copy.
fn has_code(text: &str) -> bool {
    text.lines()
        .any(|line| line.starts_with("```rust") && !line.contains("ignore"))
}

/// A page that nobody finds is not there, and code that is not compiled is wrong some day.
#[test]
fn every_page_is_in_the_summary_and_compiled() {
    let pages = folder("docs/guide/pages");
    let summary =
        fs::read_to_string(root().join("docs/guide/pages/SUMMARY.md")).expect("a summary");
    let compiled = fs::read_to_string(root().join("docs/guide/lib.rs")).expect("the library");
    let listed: Vec<_> = targets(&summary);
    for page in pages
        .iter()
        .filter(|page| !page.path.ends_with("SUMMARY.md"))
    {
        let name = page
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("text");
        let times = listed.iter().filter(|listed| *listed == name).count();
        assert_eq!(times, 1, "{name} in the summary");
        let is_compiled = compiled.contains(&format!("\"pages/{name}\""));
        assert!(
            is_compiled || !has_code(&page.text),
            "{name} has code: name it in lib.rs"
        );
    }
}

/// What is marked as `ignore` or as plain `text` is not compiled: no Rust hides there.
#[test]
fn no_rust_of_the_guide_goes_uncompiled() {
    for page in folder("docs/guide/pages") {
        for line in page.text.lines().filter(|line| line.starts_with("```")) {
            assert!(!line.contains("ignore"), "{}: {line}", page.path.display());
        }
        let fences = page.text.lines().filter(|line| line.starts_with("```"));
        assert_eq!(
            fences.count() % 2,
            0,
            "{}: a block is open",
            page.path.display()
        );
    }
}

#[test]
fn headings_become_the_anchors_that_github_makes() {
    let text = "# Who asks?\n```sh\n# a comment\n```\n## `GCRA` & buckets\n## Who asks?\n";
    let anchors: Vec<_> = anchors(text).into_iter().collect();
    assert_eq!(anchors, ["gcra--buckets", "who-asks", "who-asks-1"]);
}

#[test]
fn links_are_found_and_code_is_not_taken_for_one() {
    let text = "[a](b.md#c), ![d](e.svg) and `[f](g)`\n```rust\nlet x = [1](2);\n```\n[h]: i.md\n";
    assert_eq!(targets(text), ["b.md#c", "e.svg", "i.md"]);
}

/// Readers choose from tables: what is not in them is not there.
#[test]
fn every_strategy_is_in_the_guide() {
    let page = fs::read_to_string(root().join("docs/guide/pages/strategies.md")).expect("a page");
    for name in traffik_core::strategy::NAMES {
        let row = format!("\n| `{name}`");
        assert!(
            page.contains(&row),
            "{name}: say how much it admits at most"
        );
    }
}

/// An example that nobody finds helps nobody.
#[test]
fn every_example_is_in_the_guide() {
    let root = root();
    let manifest = fs::read_to_string(root.join("examples/Cargo.toml")).expect("a manifest");
    let paths = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \""));
    let examples: Vec<_> = paths.map(|path| path.trim_end_matches('"')).collect();
    assert!(examples.len() > 5, "{examples:?}");
    let page = root.join("docs/guide/pages/introduction.md");
    let linked = targets(&fs::read_to_string(page).expect("a page"));
    for example in examples {
        let target = format!("../../../examples/{example}");
        assert!(linked.contains(&target), "{example}");
    }
}
