#!/usr/bin/env bash
# Checks each crate with each of its features alone: what only builds beside others is found here.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=()
for crate in traffik-core traffik-actix; do
    features=$(sed -n '/^\[features\]/,/^\[[^f]/p' "$crate/Cargo.toml" | sed -n 's/^\([a-z-]*\) = .*/\1/p' | grep -vx default)
    for feature in $features; do
        echo "$crate with $feature"
        cargo clippy --quiet -p "$crate" --no-default-features --features "$feature" -- -D warnings || failed+=("$crate/$feature")
    done
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "not by themselves: ${failed[*]}"
    exit 1
fi
