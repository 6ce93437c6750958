#!/usr/bin/env bash
# @cornerstonejs/adapters 5.14.0 (what OHIF hydrates SR with) and TID 1410: a measurement group may hold its region
# (SCOORD, CONTAINS) and, beside it, any number (NUM), such as a probability. The library takes coordinates from below
# the first NUM of a group wherever there is one, and from the group only where there is none: a group that highdicom
# 0.28.2 writes by the book, a region and a probability, gives no annotation at all; without the probability it gives a
# rectangle. What becomes of it is a warning of the console, "No spatial coordinates group found".
#
# Seen with node v20.20.2, highdicom 0.28.2, pydicom 3.0.2:
#   with_probability=0 without=1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2
cat >package.json <<'JSON'
{"private": true, "type": "module", "dependencies": {
  "@cornerstonejs/adapters": "5.14.0", "@cornerstonejs/core": "5.14.0", "@cornerstonejs/metadata": "5.14.0",
  "@cornerstonejs/tools": "5.14.0", "dcmjs": "0.52.0", "@babel/runtime": "7.26.10"}}
JSON
npm install --silent --ignore-scripts --no-audit --no-fund
node --version
venv/bin/pip list 2>/dev/null | grep -E "^(highdicom|pydicom) "
cat >write.py <<'PY'
import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

image = Dataset()
image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "2.25.1"
image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.2", "2.25.3"
image.PatientID = image.PatientName = image.PatientBirthDate = image.PatientSex = image.AccessionNumber = ""
image.StudyID = image.StudyDate = image.StudyTime = image.ReferringPhysicianName = None
image.Modality, image.Rows, image.Columns = "CR", 100, 100
corners = np.array([(10, 10), (50, 10), (50, 60), (10, 60), (10, 10)], dtype=float)
for name, numbers in (("with", [(codes.DCM.Probability, 0.9)]), ("without", [])):
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid="2.25.4", identifier="Cornerstone3DTools@^0.1.0:RectangleROI"),
        referenced_region=hd.sr.ImageRegion(
            "POLYLINE", corners, source_image=hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID)
        ),
        finding_type=codes.SCT.PleuralEffusion,
        measurements=[hd.sr.Measurement(name=code, value=value, unit=codes.UCUM.NoUnits) for code, value in numbers],
    )
    device = hd.sr.DeviceObserverIdentifyingAttributes(uid="2.25.5")
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(hd.sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[group],
    )
    hd.sr.ComprehensiveSR(
        evidence=[image], content=report, series_instance_uid="2.25.6", series_number=1, sop_instance_uid="2.25.7",
        instance_number=1, manufacturer="m",
    ).save_as(f"{name}.dcm")
PY
venv/bin/python write.py 2>/dev/null
cat >try.mjs <<'JS'
globalThis.window ??= globalThis;
globalThis.self ??= globalThis;
console.warn = () => {};
const { readFileSync } = await import('node:fs');
const dcmjs = (await import('dcmjs')).default;
const { adaptersSR } = await import('@cornerstonejs/adapters');
const { metaData } = await import('@cornerstonejs/core');
const plane = {
  rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imagePositionPatient: [0, 0, 0],
  rowPixelSpacing: 1, columnPixelSpacing: 1, rows: 100, columns: 100,
};
metaData.addProvider(type => (type === 'imagePlaneModule' ? plane : undefined), 1);
const count = name => {
  const bytes = readFileSync(`${name}.dcm`);
  const file = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const dataset = dcmjs.data.DicomMetaDictionary.naturalizeDataset(file.dict);
  const found = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(dataset, { '2.25.1:1': 'image:1' }, metaData);
  return (found.RectangleROI ?? []).length;
};
const counts = [count('with'), count('without')];
console.log(`with_probability=${counts[0]} without=${counts[1]}`);
process.exit(counts[0] === 0 && counts[1] === 1 ? 0 : 1);
JS
node try.mjs 2>/dev/null
