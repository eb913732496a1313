#!/usr/bin/env bash
# Makes a Docker image of programs of this machine, so that tests need no registry, unless it is there already:
#
#     test/docker/make-image.sh NAME PROGRAM...
set -euo pipefail

name=$1
shift
! docker image inspect "$name" >/dev/null 2>&1 || exit 0
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{etc,tmp,usr/local/bin}
chmod 1777 "$root/tmp"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

for program; do
  file=$(command -v "$program")
  cp --dereference "$file" "$root/usr/local/bin/$program"
  # Each library goes where the loader of the program looks for it.
  ldd "$file" | grep --only-matching '/[^ ]*' | xargs cp --dereference --parents --target-directory "$root"
done

tar --create --directory "$root" --owner 0 --group 0 . |
  docker import --change 'ENV PATH=/usr/local/bin' - "$name" >/dev/null
