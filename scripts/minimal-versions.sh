#!/usr/bin/env bash
# Whether the published crates build with the oldest versions that they say they take, of what they name themselves.
#
# For before a release, and not part of CI: a new version of what our dependencies bring along can ask for
# more than we do, and then nothing of ours has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
crates=(traffik-core traffik-actix traffik-actix-macros)
cp -r "${crates[@]}" "$copy"
members=$(printf '"%s", ' "${crates[@]}")
sed -e "s/^members = .*/members = [$members]/" -e '/^default-members = /d' Cargo.toml >"$copy/Cargo.toml"
for crate in "${crates[@]}"; do
    # Whoever uses a crate never resolves what its tests need.
    awk '/^\[/ { tests = /^\[dev-dependencies/ } !tests' "$crate/Cargo.toml" >"$copy/$crate/Cargo.toml"
done

cd "$copy"
# `-Z` is for nightly compilers, or for one that is told to be one: only the resolver is asked.
RUSTC_BOOTSTRAP=1 cargo update -Z direct-minimal-versions
cargo check --workspace --all-features --target-dir "$copy/target"
