#!/usr/bin/env bash
# Whether each feature builds without the others, and each crate as cargo packages it.
set -euo pipefail
cd "$(dirname "$0")/.."

# The names between `[features]` and the next table.
features() {
    awk '/^\[/ { inside = /^\[features\]/ } inside && /^[a-z-]+ *=/ { print $1 }' "$1/Cargo.toml"
}

for crate in traffik-core traffik-actix; do
    for feature in $(features "$crate"); do
        [ "$feature" = default ] && continue
        echo "$crate with $feature"
        cargo check -q -p "$crate" --no-default-features --features "$feature"
    done
done

# In a workspace, crates lend each other the features of their dependencies; packaged, they do not.
# Each time in a place of its own: cargo remembers what a package of this name and place once was.
target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
cargo package -p traffik-core -p traffik-actix-macros -p traffik-actix --target-dir "$target"
