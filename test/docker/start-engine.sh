#!/usr/bin/env bash
# Sees to it that a Docker engine answers. Where none does, on Debian and as root, it installs one and starts it, and prints
# the id of its process: whoever called ends it. What goes wrong is on stderr.
set -euo pipefail

answers() { docker info >/dev/null 2>&1; }

! answers || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo 'No Docker engine answers, and one is started only on Debian and as root.' >&2
  exit 1
fi
if ! command -v dockerd >/dev/null; then
  {
    apt-get update --quiet --quiet
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --no-install-recommends docker.io iptables
  } >&2
  # Where there is an init system, the package has started it.
  ! answers || exit 0
fi

log=$(mktemp)
setsid dockerd </dev/null >"$log" 2>&1 &
engine=$!
for _ in {1..150}; do
  if answers; then
    rm "$log"
    echo "$engine"
    exit 0
  fi
  sleep 0.2
done
tail -n 20 "$log" >&2
rm "$log"
kill "$engine" 2>/dev/null || true
exit 1
