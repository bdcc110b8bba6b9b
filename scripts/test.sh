#!/usr/bin/env bash
# Runs every test. Installs the servers that some of them start (Debian and Ubuntu).
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v memcached >/dev/null || missing+=(memcached)
# Servers with clocks of their own.
command -v faketime >/dev/null || missing+=(faketime)
# Certificates for tests of TLS.
command -v openssl >/dev/null || missing+=(openssl)
# The Memcached client links to OpenSSL.
pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev pkg-config)
if [ ${#missing[@]} -gt 0 ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    # Tests start servers of their own, on ports of their own: the packages' need not run.
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq "${missing[@]}"
fi

cargo test --workspace --exclude traffik-benches --all-features "$@"
