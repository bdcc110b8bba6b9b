#!/usr/bin/env bash
# Runs every bench and writes docs/BENCHMARKS.md: what was measured, on which machine, beside whom.
#
# Leave the machine alone meanwhile. A bench fails whose server is not installed, and says so in the report: say
# `scripts/test.sh --no-run` first, which installs the servers. Instructions are skipped without valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

# From what nobody's clock can falsify to what a busy machine changes most.
benches=(instructions memory decision strategies churn requests redis memcached leases echo outage)
report=docs/BENCHMARKS.md

first_line() { "$@" 2>/dev/null | sed -n 1p || true; }
locked() { awk -v name="\"$1\"" '$3 == name { getline; gsub(/"/, ""); print $3; exit }' Cargo.lock; }
about_cpu() { lscpu | sed -n "s/^$1: *//p"; }

cargo bench -q -p traffik-benches --no-run
written=$(mktemp)
trap 'rm -f "$written"' EXIT
{
    cat <<EOF
# Benchmarks

Written by \`scripts/benches.sh\`, which runs all that is in \`benches/\`; [how fast](guide/pages/speed.md) says what to make of it.
Contestants run in turn in short rounds, and ratios are between neighbours of one round. Take ratios, not figures, to another machine.

| | |
|---|---|
| when | $(date -u +%F), commit $(git describe --always --dirty) |
| processor | $(about_cpu 'Model name'), $(nproc) of it; $(first_line uname -sr) |
| compiler | $(first_line rustc --version) |
| servers | $(first_line redis-server --version | cut -d' ' -f1-3), $(first_line memcached --version) |
| peers | governor $(locked governor), actix-extensible-rate-limit $(locked actix-extensible-rate-limit) |
| floors | a bare actix-web $(locked actix-web), and on Redis a bare \`INCR\` script for each request |
EOF
    for bench in "${benches[@]}"; do
        echo "measuring $bench" >&2
        load=$(cut -d' ' -f1 /proc/loadavg)
        # One that fails says so in its place, and takes nothing of the others away.
        figures=$(cargo bench -q -p traffik-benches --bench "$bench") || figures+=$'\nIt failed here.'
        printf '\n## %s\n\n' "$bench"
        # What the bench says of itself is the text above its figures.
        awk '!/^\/\/!/ { exit } { sub(/^\/\/! ?/, ""); print }' "benches/benches/$bench.rs"
        printf '\nLoad of the machine when it began: %s.\n\n```text\n%s\n```\n' "$load" "$figures"
    done
} >"$written"
mv "$written" "$report"
chmod 644 "$report"
echo "wrote $report"
