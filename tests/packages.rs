//! What the packages bring along and say of themselves.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

/// What asks nothing of a service that links it beyond naming its authors.
const PERMISSIVE: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Whoever adds a dependency, to a bench too, sees at once what it would ask of everybody.
#[test]
fn no_dependency_asks_for_more_than_a_notice() {
    let packages = packages();
    assert!(packages.len() > 100, "{} packages", packages.len());
    let refused = packages.iter().filter(|package| !is_permissive(package));
    let refused: Vec<_> = refused
        .map(|package| {
            format!(
                "{} {}: {}",
                package["name"], package["version"], package["license"]
            )
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn a_licence_is_permissive_by_one_of_its_choices() {
    let permissive = |license: &str| is_permissive(&serde_json::json!({ "license": license }));
    for license in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "MIT AND (ISC OR MPL-2.0)",
    ] {
        assert!(permissive(license), "{license}");
    }
    for license in [
        "GPL-3.0",
        "MIT AND GPL-2.0",
        "MPL-2.0",
        "LGPL-3.0 OR AGPL-3.0",
        "mine",
        "",
    ] {
        assert!(!permissive(license), "{license}");
    }
    assert!(!is_permissive(&serde_json::json!({})));
}

/// A registry refuses a package without some of these, and nobody finds one without the others.
#[test]
fn what_can_be_published_says_what_it_is() {
    let packages = packages();
    let published = packages
        .iter()
        .filter(|package| is_ours(package) && package["publish"].is_null());
    let mut names = Vec::new();
    for package in published {
        let name = package["name"].as_str().unwrap();
        for key in [
            "description",
            "license",
            "rust_version",
            "keywords",
            "categories",
        ] {
            let said = &package[key];
            let empty = said.is_null() || said.as_array().is_some_and(Vec::is_empty);
            assert!(!empty, "{name} has no {key}");
        }
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(
        names,
        ["traffik-actix", "traffik-actix-macros", "traffik-core"]
    );
}

/// Every package of the workspace's lock, as far as this platform needs it.
fn packages() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            host,
        ])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let mut metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let needed: Vec<_> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].clone())
        .collect();
    let Value::Array(packages) = metadata["packages"].take() else {
        panic!("no packages")
    };
    packages
        .into_iter()
        .filter(|package| needed.contains(&package["id"]))
        .collect()
}

fn is_ours(package: &Value) -> bool {
    package["source"].is_null()
}

fn is_permissive(package: &Value) -> bool {
    let license = package["license"].as_str().unwrap_or_default();
    let Ok(choices) = Expression::parse_mode(license, ParseMode::LAX) else {
        return false;
    };
    choices.evaluate(|one| {
        one.license
            .id()
            .is_some_and(|id| PERMISSIVE.contains(&id.name))
    })
}
