#!/usr/bin/env bash
# Downloads the console's JavaScript libraries and their licences from npm into this directory, in exact versions.
# To update, change the versions and run `make vendor`, then review the changes. npm checks the digest of each archive.
# One change is made to the files: preact's hooks import "./preact.mjs", as a browser cannot resolve "preact".
set -euo pipefail
cd "$(dirname "$0")"

PREACT=11.2.0 HTM=3.1.1 UPLOT=1.6.32
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

for package in "preact@$PREACT" "htm@$HTM" "uplot@$UPLOT"; do
  name="${package%@*}"
  mkdir "$work/$name"
  tar -xzf "$work/$(npm pack --silent --pack-destination "$work" "$package")" -C "$work/$name" --strip-components 1
  cp "$work/$name/LICENSE" "$name.LICENSE"
done

without_map() { sed '/^\/\/# sourceMappingURL=/d' "$1"; }
without_map "$work/preact/dist/preact.mjs" > preact.mjs
without_map "$work/preact/hooks/dist/hooks.mjs" | sed 's#from"preact"#from"./preact.mjs"#g' > hooks.mjs
cp "$work/htm/dist/htm.mjs" htm.mjs
cp "$work/uplot/dist/uPlot.iife.min.js" "$work/uplot/dist/uPlot.min.css" .
