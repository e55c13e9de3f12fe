#!/usr/bin/env bash
# Installs what building and testing dfs-csi needs on Debian 12. Safe to run again; needs root only if
# something is missing.
# Why each package is here: docs/dependencies.md.
set -euo pipefail

packages=(
  # Build.
  ccache clang-19 clang-format-19 clang-tidy-19 clang-tools-19 cmake git libclang-rt-19-dev lld-19 llvm-19
  make ninja-build pkg-config protobuf-compiler protobuf-compiler-grpc
  # Libraries.
  libabsl-dev libasio-dev libbenchmark-dev libc-ares-dev libfuse3-dev libgmock-dev libgrpc++-dev
  libgtest-dev libkrb5-dev libprotobuf-dev libssl-dev prometheus-cpp-dev
  # Run time.
  fuse3 gss-ntlmssp krb5-user
  # Real servers, faults and workloads for tests.
  fio iproute2 jq libpython3.11-testsuite nftables openssl procps python3 python3-pytest rsync samba smbclient
  smbnetfs stress-ng tshark util-linux
)

if ! grep -q '^VERSION_ID="12"' /etc/os-release; then
  echo "setup: made for Debian 12; going on, but package names may differ" >&2
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "setup: all ${#packages[@]} packages are installed"
  exit 0
fi
if [[ $(id -u) -ne 0 ]]; then
  echo "setup: run as root to install: ${missing[*]}" >&2
  exit 1
fi
echo "setup: installing ${missing[*]}"

# The test servers run in namespaces of their own; the packages' system services must not start.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "${missing[@]}"
