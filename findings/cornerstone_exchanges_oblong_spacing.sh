#!/usr/bin/env bash
# @cornerstonejs/core 5.14.0, imageToWorldCoords: the column of a pixel is multiplied by the spacing between ROWS and its
# row by the spacing between COLUMNS. DICOM PS3.3 C.7.6.2.1.1 has it the other way: PixelSpacing is "row spacing \ column
# spacing", and one step along a row is one column spacing. With square pixels nobody sees it; with PixelSpacing 0.2\0.1
# (metadata as the library's own providers give it: rowPixelSpacing 0.2, columnPixelSpacing 0.1) a rectangle of 100 columns
# and 100 rows, 10 mm wide and 20 mm high, is 20 mm wide and 10 mm high in the world, and so in every measured length.
# worldToImageCoords exchanges them back, so that places in the image survive the round trip and hide it.
#
# Seen with node v20.20.2:
#   core 5.14.0 width_mm=20.00 height_mm=10.00 back=[100,100]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >package.json <<'JSON'
{"private": true, "type": "module", "dependencies": {
  "@cornerstonejs/core": "5.14.0", "@cornerstonejs/metadata": "5.14.0", "@babel/runtime": "7.26.10"}}
JSON
npm install --silent --ignore-scripts --no-audit --no-fund
node --version
cat >try.mjs <<'JS'
globalThis.window ??= globalThis;
globalThis.self ??= globalThis;
const { readFileSync } = await import('node:fs');
const { metaData, utilities } = await import('@cornerstonejs/core');
const version = JSON.parse(readFileSync('node_modules/@cornerstonejs/core/package.json')).version;
const plane = {
  rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imagePositionPatient: [0, 0, 0],
  imageOrientationPatient: [1, 0, 0, 0, 1, 0], rows: 200, columns: 200,
  pixelSpacing: [0.2, 0.1], rowPixelSpacing: 0.2, columnPixelSpacing: 0.1,
};
metaData.addProvider(type => (type === 'imagePlaneModule' ? plane : undefined), 1);
const at = point => utilities.imageToWorldCoords('image:1', point);
const [left, right] = [at([0, 0]), at([100, 100])];
const width = right[0] - left[0], height = right[1] - left[1];
const back = utilities.worldToImageCoords('image:1', right).map(value => Math.round(value * 100) / 100);
console.log(`core ${version} width_mm=${width.toFixed(2)} height_mm=${height.toFixed(2)} back=${JSON.stringify(back)}`);
process.exit(Math.abs(width - 20) < 1e-3 && Math.abs(height - 10) < 1e-3 ? 0 : 1);
JS
node try.mjs
