#!/usr/bin/env bash
# Fetches what the console's page uses from npm, exact versions, into this directory, with the licences: run it again to
# update (`make vendor`), then look at what changed. npm checks each archive's digest against the registry's.
# The only change made: preact's hooks import "./preact.mjs", as a browser does not know where "preact" is.
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
